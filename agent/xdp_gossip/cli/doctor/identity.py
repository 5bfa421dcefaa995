# SPDX-License-Identifier: MIT
"""Checks this node's address and name: whether they are unique, and whether other members can reach the address."""

from __future__ import annotations

from collections.abc import Iterator

from .. import tables
from .finding import Finding, Subject
from .look import Look

#: Problem of a node (docs/protocol.md) -> level, explanation and remedy of the finding that ``doctor`` reports on the
#: affected node.
PROBLEMS = {
    "twin": (
        "error",
        "another host uses the same address and port",
        "ip neigh; stop one of the agents, or give it a node.addr of its own",
    ),
    "short_datagrams": (
        "warning",
        "the path there loses long datagrams without an error; they go over TCP",
        "find the tunnel or firewall that hides the MTU (ping -M do -s 1252), let ICMP through",
    ),
    "unreached": (
        "warning",
        "heard, but packets to its address do not reach it",
        "open its port (udp and tcp) in security groups and firewalls, forward it behind NAT, or correct node.addr",
    ),
    "no_common_family": (
        "warning",
        "it has no address family in common with this node",
        "give both an address of one family as node.addr, or listen_addr '::' and routes for both",
    ),
    "clock": (
        "error",
        "its clock differs from the cluster's by more than half of max_clock_drift",
        "synchronise it (timedatectl set-ntp true); with two members it is unknown which clock is right",
    ),
    "same_name": (
        "warning",
        "another node has the same name",
        "set node.name (the role: xdp_gossip_agent_name), then reload",
    ),
}
#: Packet types that this node receives only if another node can reach it.
_RECEIVED = ("heartbeat", "swap_request", "swap_response", "metadata", "record", "probe")
#: If this node has sent this many requests and received no packet at all, ``doctor`` reports that no packet reaches
#: this node.
_IN_VAIN = 5

_SAYS = Subject(
    "identity", unheard="error", foreign="warning", **{problem: level for problem, (level, _, _) in PROBLEMS.items()}
)


def examine(look: Look) -> Iterator[Finding]:
    """Check the address that this node announces, the listening address, whether the node receives packets, and the
    problems that the node reports about itself.
    """
    status = look.status
    if status is None:
        return
    told, counters = tables.address(status["node"]), look.counters
    where = f"tells others {told}, listens on {status.get('listen', 'an unknown address')}"
    asked = counters.get("tx_swap_request", 0)
    arrived = sum(counters.get(f"rx_{kind}", 0) for kind in _RECEIVED)
    if status["wire"] == "native" and asked >= _IN_VAIN and not arrived:
        remedy = (
            "open the port (udp and tcp) in security groups and firewalls, forward it to this host behind NAT, or set "
            "node.addr to the address by which others reach it"
        )
        yield _SAYS("unheard", f"{where}; {asked} requests were sent and nothing ever arrived", remedy)
    elif counters.get("source_unavailable"):
        yield _SAYS("foreign", f"{where}; no interface of this host has {told}", "behind NAT that is right")
    else:
        yield _SAYS.ok(where)
    for problem in status["node"].get("problems", ()):
        if problem in PROBLEMS:
            _, text, remedy = PROBLEMS[problem]
            yield _SAYS(problem, f"this node: {text}", remedy)
