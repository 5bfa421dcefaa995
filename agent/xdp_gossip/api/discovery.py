# SPDX-License-Identifier: MIT
"""Routes for service discovery: the targets that Prometheus scrapes.

Prometheus reads the list by its ``http_sd_configs``. The format is that of Prometheus' documentation of HTTP SD.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..core.types import Address, Member, State
from ..node.convergence import refuse_isolated
from . import lists, params
from .access import Right
from .context import Context
from .errors import bad_request
from .nodes import parse_states, parse_zones
from .routes import Route, get

#: The states of the nodes that are targets unless the request names others: all but ``left``. A host that is down stays
#: a target, so that Prometheus reports it as down.
_STATES = ",".join(state.value for state in State if state is not State.LEFT)
#: Prefix of the labels. Prometheus removes labels with the prefix ``__`` after relabeling.
_PREFIX = "__meta_xdp_gossip_"


class Discovery:
    """Handlers of /v1/sd."""

    def __init__(self, context: Context) -> None:
        self._node_list = context.node_list

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [get(Right.READ, "/v1/sd/prometheus", self.prometheus)]

    async def prometheus(self, request: web.Request) -> web.Response:
        """List one target for each node in the requested states and zones.

        Raises ``ProtocolError`` (isolated) on an isolated member: Prometheus then keeps the targets that it has.
        """
        query = params.query(request, ("port", "state", "zone"))
        port = _port(request, query)
        states, zones = parse_states(query.get("state", _STATES)), parse_zones(query.get("zone"))
        refuse_isolated(self._node_list.isolated)
        cluster = self._node_list.cluster

        def group(member: Member) -> dict[str, Any]:
            return target_group(member, port, cluster)

        found = self._node_list.page(states, None, None, zones)
        return await lists.plain_answer(request, found, group, {"Cache-Control": "no-cache"})


def target_group(member: Member, port: int, cluster: str) -> dict[str, Any]:
    """Return a target group with one target: the port ``port`` of the member's host."""
    record = member.record
    labels = {
        "cluster": cluster,
        "node": (record.name if record else "") or member.address.ip,
        "addr": member.address.ip,
        "port": str(member.address.port),
        "state": member.state.value,
        "zone": member.zone,
        "version": record.agent_version if record else "",
    }
    return {
        "targets": [str(Address(member.address.ip, port))],
        "labels": {_PREFIX + name: value for name, value in labels.items()},
    }


def _port(request: web.Request, query: dict[str, str]) -> int:
    """Return the port of the targets: the one that the request names, or the one on which the request arrived.

    Raises :class:`Fault` 400.
    """
    if "port" in query:
        port = params.natural(query, "port", 0)
        if not 1 <= port <= 65535:
            raise bad_request(f"port: expected 1 to 65535, got {port}")
        return port
    here = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(here, tuple):
        raise bad_request("port: expected the port of the targets, because this request arrived on the Unix socket")
    return int(here[1])
