# SPDX-License-Identifier: MIT
"""Serves the HTTP paths of eGossip (NTHU-LSALAB/eGossip, ``modules/nodeList/http.go``) with eGossip's field names.

The API deliberately differs from eGossip in two ways. Responses are JSON. A GET that changes state is served on the
Unix socket only, because a web page could make a browser send such a GET over TCP.
"""

from __future__ import annotations

from typing import Any, Callable

from aiohttp import web

from ..core.shown import shown
from ..core.types import DEFAULT_KEY, Node
from ..node import parameters, shapes
from . import params, render
from .context import Context
from .documents import read_document, written
from .errors import bad_request
from .nodes import MAX_JOIN, add_nodes, switched

#: Fields that eGossip includes in a node and that this agent ignores.
_IGNORED = frozenset({"Mac", "LinkName"})


class EGossip:
    """Handlers of /set, /list, /stop, /start, /publish and /metadata."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._node_list = context.node_list

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this class.

        GETs that change state are served only on the Unix socket (``context.local``).
        """
        routes = [
            web.get("/list", self.list),
            web.get("/metadata", self.metadata),
            web.post("/set", self.set),
            web.post("/publish", self.publish),
            web.post("/stop", self.stop),
            web.post("/start", self.start),
        ]
        if self._context.local:
            # HEAD is not served, because a HEAD request must not change state (RFC 9110, 9.2.1), but /stop and /start
            # change it.
            routes += [web.get("/stop", self.stop, allow_head=False), web.get("/start", self.start, allow_head=False)]
        return routes

    async def list(self, request: web.Request) -> web.Response:
        """Return the node list."""
        params.query(request, ())
        return render.json_response([shapes.pascal_node(node) for node in self._node_list.get()])

    async def metadata(self, request: web.Request) -> web.Response:
        """Return the value of the ``default`` document unchanged; an empty body if the document does not exist."""
        params.query(request, ())
        headers = {"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=self._node_list.read(DEFAULT_KEY), headers=headers)

    async def set(self, request: web.Request) -> web.Response:
        """Add the nodes in the request body (an object or a list) to the node list, which then contacts them."""
        params.query(request, ())
        body = await params.read_json(request, self._context.uploads)
        entries = body if isinstance(body, list) else [body]
        if not 1 <= len(entries) <= MAX_JOIN:
            raise bad_request(f"body: expected a node or a list of 1 to {MAX_JOIN} nodes, got {len(entries)}")
        local = self._node_list.get()[0]
        nodes = [_node(index, entry, local) for index, entry in enumerate(entries)]
        return render.json_response({"added": add_nodes(self._node_list, nodes)})

    async def publish(self, request: web.Request) -> web.Response:
        """Publish the request body as the ``default`` document."""
        params.query(request, ())
        value = await read_document(request, self._context)
        with self._context.requests.once(request, value) as done:
            if done.answer is None:
                done.answer = written(self._context, await self._node_list.publish(value, DEFAULT_KEY))
        return render.json_response(done.answer)

    async def stop(self, request: web.Request) -> web.Response:
        """Stop publishing heartbeats."""
        return await self._operate(request, self._node_list.stop)

    async def start(self, request: web.Request) -> web.Response:
        """Resume publishing heartbeats."""
        return await self._operate(request, self._node_list.start)

    async def _operate(self, request: web.Request, operation: Callable[[], bool]) -> web.Response:
        params.query(request, ())
        await params.no_body(request, self._context.uploads)
        return switched(self._node_list, operation())


def _node(index: int, entry: Any, local: Node) -> Node:
    """Parse ``entry``, a node of the request; ``index`` is its position in the request. Raises :class:`Fault` 400.

    As in PekoNode, a missing ``Addr`` means 0.0.0.0, this host. 0.0.0.0 is accepted only if ``local`` itself has an
    address that no other host can reach (loopback or 0.0.0.0).
    """
    if not isinstance(entry, dict):
        raise bad_request(f"node {index}: expected an object with Addr and Port, got {type(entry).__name__}")
    known = {"Addr": "addr", "Port": "port", "Name": "name", "PrivateData": "private_data"}
    for name in entry:
        if name not in known and name not in _IGNORED:
            raise bad_request(f"node {index}: expected no field but {', '.join(known)}, got {shown(name)}")
    fields = {known[name]: value for name, value in entry.items() if name in known}
    if "port" not in fields:
        raise bad_request(f"node {index}: expected Port, got none", "invalid_node")
    fields["addr"] = fields.get("addr") or "0.0.0.0"
    try:
        node = Node(**fields)
    except (ValueError, TypeError) as error:
        raise bad_request(f"node {index}: {error}", "invalid_node") from None
    try:
        return parameters.other_node(f"node {index}", node, local)
    except ValueError as error:
        raise bad_request(str(error), "invalid_node") from None
