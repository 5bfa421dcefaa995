# SPDX-License-Identifier: MIT
"""Routes for nodes: list all nodes, forget a dead node, change or stop the local node, and join or leave a cluster."""

from __future__ import annotations

from typing import Any, Callable

from aiohttp import web

from ..core.interface import ProtocolError
from ..core.shown import shown
from ..core.types import MAX_ZONE, PRESENT, Address, Node, State, check_text
from ..node import parameters, shapes
from . import lists, params, render
from .access import Right
from .audit import record_of
from .context import Context
from .errors import Fault, bad_request
from .routes import Route, delete, get, patch, post

#: Maximum number of addresses in one join request. A few addresses are enough to join a fleet of any size.
MAX_JOIN = 1000
#: Maximum length, in bytes, of a cursor, which is a node's address.
_CURSOR = 64


def parse_states(text: str | None) -> frozenset[State]:
    """Parse the parameter ``state`` into a set of states. Raises :class:`Fault` 400."""
    if text is None:
        return PRESENT
    if text == "all":
        return frozenset(State)
    known = {state.value: state for state in State}
    chosen = set()
    for word in text.split(","):
        if word not in known:
            raise bad_request(f"state: expected all, or some of {','.join(known)}, got {shown(word)}")
        chosen.add(known[word])
    return frozenset(chosen)


def parse_zones(text: str | None) -> frozenset[str] | None:
    """Parse the parameter ``zone`` into a set of zones; None: all zones. Raises :class:`Fault` 400.

    The empty name is the zone of the nodes that have none.
    """
    if text is None:
        return None
    try:
        return frozenset(check_text("zone", name, MAX_ZONE) for name in text.split(","))
    except ValueError as error:
        raise bad_request(str(error)) from None


def _address(cursor: str) -> Address:
    try:
        return Address.parse(cursor)
    except ValueError as error:
        raise bad_request(f"cursor: {error}") from None


class Nodes:
    """Handlers of /v1/nodes and /v1/node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._node_list = context.node_list

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [
            get(Right.READ, "/v1/nodes", self.list),
            delete(Right.ADMIN, "/v1/nodes/{node}", self.forget),
            get(Right.READ, "/v1/node", self.show),
            patch(Right.ADMIN, "/v1/node", self.change),
            post(Right.ADMIN, "/v1/node/join", self.join),
            post(Right.ADMIN, "/v1/node/start", self.start),
            post(Right.ADMIN, "/v1/node/stop", self.stop),
            post(Right.ADMIN, "/v1/node/leave", self.leave),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """List the nodes in the requested states and zones.

        The entity tag does not change if only heartbeats have changed.
        """
        query = params.query(request, ("state", "zone", "limit", "cursor"))
        wanted, zones = parse_states(query.get("state")), parse_zones(query.get("zone"))
        page = lists.page(query, _CURSOR)
        after = _address(page.cursor) if page.cursor else None
        digest = self._node_list.documents_digest()
        isolated = self._node_list.isolated
        states = sorted(state.value for state in wanted)
        places = None if zones is None else sorted(zones)
        etag = render.etag_of([states, places, page, self._node_list.tag(), digest, isolated])
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if params.matches(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=headers)
        found = self._node_list.page(wanted, after, page.more, zones)
        nodes, following = page.cut(found, lambda member: str(member.address))
        more = {
            "revision": self._node_list.revision,
            "cluster": self._node_list.cluster,
            "digest": digest,
            "isolated": isolated,
            "next_cursor": following,
        }
        return await lists.answer(request, "nodes", nodes, shapes.node, more, headers)

    async def forget(self, request: web.Request) -> web.Response:
        """Remove a dead node, named by its address and port or by its name, from this member's node list."""
        params.query(request, ())
        await params.no_body(request, self._context.uploads)
        address = self._dead(request.match_info["node"])
        record_of(request).target = str(address)
        return render.json_response({"forgotten": shapes.node(self._node_list.forget(address))})

    def _dead(self, text: str) -> Address:
        """Return the address of the node that ``text`` names: ``addr:port``, an address or a name.

        Raises ``ProtocolError`` (node_not_found) and :class:`Fault` 409 (node_ambiguous).
        """
        try:
            return Address.parse(text)
        except ValueError:
            pass
        found = [member for member in self._node_list.members(None) if text in (member.node.name, member.address.ip)]
        # Several nodes may have the same name or the same address. Only a dead node can be forgotten.
        dead = [member for member in found if member.state is State.DEAD] or found
        if len(dead) > 1:
            addresses = ", ".join(str(member.address) for member in dead[:5])
            why = f"{shown(text)} names {len(dead)} nodes: expected one of their addresses with port: {addresses}"
            raise Fault(409, "node_ambiguous", why, nodes=[str(member.address) for member in dead[:5]])
        if not dead:
            why = f"node: expected ADDRESS:PORT or the name of a known node, got {shown(text)}"
            raise ProtocolError("node_not_found", why)
        return dead[0].address

    async def show(self, request: web.Request) -> web.Response:
        """Return the local node."""
        params.query(request, ())
        return render.json_response(shapes.node(self._node_list.local()))

    async def change(self, request: web.Request) -> web.Response:
        """Change the local node's name, its private data, or both."""
        params.query(request, ())
        wanted = await params.read_object(request, self._context.uploads, ("name", "private_data"))
        if not wanted:
            raise bad_request("body: expected name, private_data or both, got neither")
        for name, value in wanted.items():
            if not isinstance(value, str):
                raise bad_request(f"{name}: expected text, got {type(value).__name__}")
        local = self._node_list.local().address
        try:
            Node(local.ip, local.port, **wanted)
        except ValueError as error:
            raise bad_request(str(error), "invalid_node") from None
        record_of(request).target = ", ".join(sorted(wanted))
        self._node_list.update_node(**wanted)
        return render.json_response(shapes.node(self._node_list.local()))

    async def join(self, request: web.Request) -> web.Response:
        """Add the given nodes to the node list, which contacts them now and retries until they answer."""
        params.query(request, ())
        wanted = (await params.read_object(request, self._context.uploads, ("nodes",))).get("nodes")
        if not isinstance(wanted, list) or not 1 <= len(wanted) <= MAX_JOIN:
            raise bad_request(f"nodes: expected a list of 1 to {MAX_JOIN} addresses such as 198.18.0.11:8000")
        local = self._node_list.local().node
        nodes = [self._address(index, value, local) for index, value in enumerate(wanted)]
        record_of(request).target = addresses(nodes)
        return render.json_response({"added": add_nodes(self._node_list, nodes)})

    @staticmethod
    def _address(index: int, value: Any, local: Node) -> Node:
        name = f"nodes[{index}]"
        try:
            if not isinstance(value, str):
                raise ValueError(f"{name}: expected text, got {type(value).__name__}")
            try:
                address = Address.parse(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            return parameters.other_node(name, Node(address.ip, address.port), local)
        except ValueError as error:
            raise bad_request(str(error), "invalid_node") from None

    async def start(self, request: web.Request) -> web.Response:
        """Resume publishing heartbeats."""
        return await self._operate(request, self._node_list.start)

    async def stop(self, request: web.Request) -> web.Response:
        """Stop publishing heartbeats. The other nodes then time this node out and remove it from their lists."""
        return await self._operate(request, self._node_list.stop)

    async def _operate(self, request: web.Request, operation: Callable[[], bool]) -> web.Response:
        params.query(request, ())
        await params.no_body(request, self._context.uploads)
        return switched(self._node_list, operation())

    async def leave(self, request: web.Request) -> web.Response:
        """Leave the cluster. The other nodes remove this node from their lists at once."""
        params.query(request, ())
        await params.no_body(request, self._context.uploads)
        return switched(self._node_list, await self._node_list.leave())


def switched(node_list: Any, changed: bool) -> web.Response:
    """Build the response to start, stop and leave."""
    return render.json_response({"state": node_list.state(), "changed": bool(changed)})


def addresses(nodes: list[Node]) -> str:
    """Return the addresses of the first ten ``nodes``, for an audit record."""
    more = f" and {len(nodes) - 10} more" if len(nodes) > 10 else ""
    return ", ".join(str(node.address) for node in nodes[:10]) + more


def add_nodes(node_list: Any, nodes: list[Node]) -> int:
    """Pass ``nodes`` to the node list. Returns the number of nodes that the list did not contain before."""
    present = {node.address for node in node_list.get()}
    new = {node.address: node for node in nodes if node.address not in present}
    for node in new.values():
        node_list.set(node)
    return len(new)
