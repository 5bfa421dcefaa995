# SPDX-License-Identifier: MIT
"""Checks which members this node sees, which members it should see, and which problems the members report."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

from .. import tables
from .finding import Finding, Subject
from .identity import PROBLEMS
from .look import Look

_SAYS = Subject(
    "members",
    nobody="warning",
    isolated="error",
    agent_down="warning",
    alone="note",
    seeds="warning",
    seed_names="warning",
    suspect="note",
    **dict.fromkeys(PROBLEMS, "warning"),
)
_SHOWN = 5


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about members. If no agent answers, check only whether the seed names resolve to an address."""
    config = look.sound
    unknown = []
    for host, port in config.seed_names if config is not None else ():
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            unknown.append(f"{host} ({error.strerror})")
    if unknown:
        text = f"seeds whose names mean no address here: {several(unknown)}"
        yield _SAYS("seed_names", text, "correct seeds or the resolver (getent ahosts NAME)")
    status = look.status
    if status is None:
        return
    if status.get("isolated"):
        text = "this node is isolated: it knows several nodes, but none of them answers it; it confirms no document"
        remedy = "ip addr; ip route; open the node's port (udp and tcp) both ways in the firewalls of this host"
        yield _SAYS("isolated", text, remedy)
    members = status["members"]
    others = members["alive"] + members["suspect"] - 1
    seeds = [str(seed) for seed in config.seeds if seed != config.node.address] if config is not None else []
    if others < 1 and config is not None and (seeds or config.seed_names):
        remedy = f"open port {config.node.port} (udp and tcp) both ways; compare cluster and secret"
        yield _SAYS("nobody", "no other node is seen, although seeds are configured", remedy)
    elif others < 1:
        yield _SAYS(
            "alone",
            "no other node is seen, and no seed is configured",
            "configure seeds, unless this node is meant to be alone",
        )
    else:
        yield _SAYS.ok(f"{others} other nodes present, {members['suspect']} of them suspect")
        yield from _absent(seeds, look)
    suspect = [named(node) for node in look.nodes if node["state"] == "suspect"]
    if suspect:
        text = f"not heard for {status['timeout']:g} s, and being asked for: {several(suspect)}"
        yield _SAYS("suspect", text, "nothing, if that passes; xdp-gossip members")
    down = [named(node) for node in look.nodes if node["state"] == "agent_down"]
    if down:
        text = f"the host answers, but its agent does not run: {several(down)}"
        yield _SAYS("agent_down", text, "on these hosts: systemctl status xdp-gossip; journalctl -u xdp-gossip")
    for problem, (_, text, remedy) in PROBLEMS.items():
        found = [named(node) for node in look.nodes if not node["local"] and problem in node.get("problems", ())]
        if found:
            yield _SAYS(problem, f"{several(found)}: {text}", remedy)


def _absent(seeds: list[str], look: Look) -> Iterator[Finding]:
    present = {tables.address(node) for node in look.nodes}
    absent = [seed for seed in seeds if seed not in present]
    if absent and "nodes" not in look.untold:
        text = f"of {len(seeds)} seeds {len(absent)} are not among the members: {several(absent)}"
        remedy = "start them, open their ports (udp and tcp), or take them out; one behind NAT has another address here"
        yield _SAYS("seeds", text, remedy)


def named(node: dict[str, Any]) -> str:
    """Format a node as "name (address)"."""
    return f"{node['name'] or '?'} ({tables.address(node)})"


def several(names: Sequence[str]) -> str:
    """Join the first few of ``names``, followed by "and N more"."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
