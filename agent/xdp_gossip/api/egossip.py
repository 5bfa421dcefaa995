# SPDX-License-Identifier: MIT
"""Serves the HTTP paths of eGossip (NTHU-LSALAB/eGossip, ``modules/nodeList/http.go``) with eGossip's field names.

The API deliberately differs from eGossip in two ways. Responses are JSON. A GET that changes state is served on the
Unix socket only, because a web page could make a browser send such a GET over TCP.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

from aiohttp import web

from ..core.shown import shown
from ..core.types import DEFAULT_KEY, Node
from ..node import parameters, shapes
from . import params, render
from .access import Right, identity_of, recheck
from .audit import note_keys, note_written, record_of
from .context import Context
from .documents import read_document, written
from .errors import bad_request
from .nodes import MAX_JOIN, add_nodes, addresses, switched
from .routes import Route, changing_get, get, post

#: Fields that eGossip includes in a node and that this agent ignores.
_IGNORED = frozenset({"Mac", "LinkName"})


class EGossip:
    """Handlers of /set, /list, /stop, /start, /publish and /metadata."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._node_list = context.node_list

    def routes(self) -> list[Route]:
        """Return the routes of this class.

        GETs that change state are served only on the Unix socket (``context.local``).
        """
        routes = [
            get(Right.READ, "/list", self.list),
            get(Right.READ, "/metadata", self.metadata),
            post(Right.ADMIN, "/set", self.set),
            post(Right.WRITE, "/publish", self.publish),
            post(Right.ADMIN, "/stop", self.stop),
            post(Right.ADMIN, "/start", self.start),
        ]
        if self._context.local:
            routes += [
                changing_get(Right.ADMIN, "/stop", self.stop),
                changing_get(Right.ADMIN, "/start", self.start),
            ]
        return routes

    async def list(self, request: web.Request) -> web.Response:
        """Return the node list."""
        params.query(request, ())
        return render.json_response([shapes.pascal_node(node) for node in self._node_list.get()])

    async def metadata(self, request: web.Request) -> web.Response:
        """Return the value of the ``default`` document unchanged; an empty body if the document does not exist."""
        params.query(request, ())
        identity_of(request).need_key(DEFAULT_KEY)
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
        record_of(request).target = addresses(nodes)
        return render.json_response({"added": add_nodes(self._node_list, nodes)})

    async def publish(self, request: web.Request) -> web.Response:
        """Publish the request body as the ``default`` document."""
        params.query(request, ())
        identity = identity_of(request)
        note_keys(request, [DEFAULT_KEY])
        identity.need_key(DEFAULT_KEY)
        value = await read_document(request, self._context)
        with self._context.requests.once(request, value, functools.partial(recheck, request)) as done:
            if done.answer is None:
                result = await self._node_list.publish(value, DEFAULT_KEY, author=identity.name)
                done.answer = written(self._context, result)
                note_written(request, [done.answer])
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
