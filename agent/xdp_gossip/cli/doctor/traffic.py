# SPDX-License-Identifier: MIT
"""Checks the counters of packets and requests that the agent dropped, refused or lost, grouped by cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .finding import Finding, Subject
from .look import Look


class _Cause(NamedTuple):
    """Counters that share one cause and one remedy. The finding consists of the counters' sum followed by ``text``."""

    counters: tuple[str, ...]
    text: str
    remedy: str
    level: str = "warning"


#: Causes by id. Counters that other modules of ``doctor`` check (keys, versions, clocks, documents, disks) are not
#: repeated here.
CAUSES = {
    "cluster": _Cause(
        ("rx_foreign_cluster",), "packets of another cluster", "give `cluster` the same value on every member"
    ),
    "fleets": _Cause(
        ("fleets_met",),
        "many unknown members appeared at once: another fleet with this cluster name and secret?",
        "give one of the fleets another cluster or secret",
    ),
    "addresses": _Cause(
        ("rx_bad_address",),
        "packets of nodes with an address that no other host can have",
        "correct node.addr there; journalctl -u xdp-gossip names it",
    ),
    "misdirected": _Cause(
        ("rx_misdirected",),
        "probes meant for another node arrived here",
        "do two hosts share an address behind NAT? give each a node.addr of its own",
    ),
    "table": _Cause(
        ("rx_table_full", "members_full", "plane_table_full"),
        "packets of new nodes for which the table had no room",
        "raise limits.nodes on every member",
    ),
    "allow": _Cause(
        ("rx_not_allowed",), "packets from networks that dataplane.allow does not name", "add them, or close the port"
    ),
    "malformed": _Cause(
        ("rx_truncated", "rx_malformed", "datagrams_malformed", "frames_malformed", "plane_malformed"),
        "malformed packets, which no agent of this release sends",
        "find out what else sends to this port: tcpdump -n port PORT",
    ),
    "size": _Cause(
        ("datagrams_oversized", "frames_dropped_oversized", "rx_oversized", "tx_too_large"),
        "packets longer than `size`",
        "give `size` the same value on every member",
    ),
    "buffer": _Cause(
        ("datagrams_dropped_kernel",),
        "datagrams lost in the socket buffer",
        "sysctl -w net.core.rmem_max=8388608, then restart; is the host overloaded?",
    ),
    "queue": _Cause(
        ("datagrams_dropped_queue", "frames_dropped_queue", "frames_dropped_peers", "frames_dropped_stalled"),
        "packets dropped because a queue was full",
        "raise `buffer`; is the host or the network overloaded?",
    ),
    "unsendable": _Cause(
        ("datagrams_unsendable",), "datagrams that this host could not send", "ip route get ADDRESS; nft list ruleset"
    ),
    "receive": _Cause(
        ("receive_errors", "accept_errors", "loop_errors"), "errors of sockets", "journalctl -u xdp-gossip -p warning"
    ),
    "withheld": _Cause(
        (
            *("documents_withheld", "entry_lists_withheld", "member_lists_withheld", "records_withheld"),
            *("members_withheld", "connections_refused", "connections_evicted", "fetches_dropped"),
        ),
        "answers withheld from members that asked for more than an agent ever does",
        "nothing, if a fleet has just been started; else journalctl -u xdp-gossip says who asks",
        "note",
    ),
    "corrupt": _Cause(
        ("fetches_corrupt",),
        "fetched documents differed from their announcement",
        "is a member's memory or disk faulty, or does one lie? journalctl -u xdp-gossip",
    ),
    "plane": _Cause(
        ("plane_stepped_down",),
        "times the agent stopped using the kernel data plane",
        "xdp-gossip dataplane status; `mode_reason` in xdp-gossip status",
    ),
    "seed_lookups": _Cause(
        ("seed_lookups_failed",), "lookups of seed names failed", "getent ahosts NAME; correct seeds", "note"
    ),
    "tokens": _Cause(
        ("api_unauthorized",),
        "requests with a token that is not this agent's",
        "journalctl -u xdp-gossip names the clients; a legitimate one may have a former token",
    ),
    "audit": _Cause(
        ("audit_lost",),
        "audit records that could not be written to `api.audit_file`",
        "journalctl -u xdp-gossip names the reason; it has these records, too",
    ),
    "api": _Cause(
        (
            *("api_refused_full", "api_refused_source", "api_evicted", "api_closed_flood", "api_accept_failed"),
            *("api_streams_refused", "api_uploads_refused"),
        ),
        "connections or requests to the API were refused because there were too many",
        "ss -tnp names the clients; spread them over the members",
    ),
    "tls": _Cause(
        ("api_tls_failed",),
        "TLS handshakes with the API failed",
        "do the clients have the CA (ca_file)? do they expect another service on this port?",
        "note",
    ),
    "counters": _Cause(
        ("counters_undeclared",), "events were counted under an undeclared name", "report it: that is a fault"
    ),
}

_SAYS = Subject("traffic", dials="warning", **{what: cause.level for what, cause in CAUSES.items()})
#: Failed connections to members are reported if they are at least this many and at least this fraction of all
#: connections. Fewer failures than that are normal when members leave.
_DIALS, _PART = 5, 0.5


def examine(look: Look) -> Iterator[Finding]:
    """Report the nonzero counters since the agent started, one finding per cause."""
    status, counters = look.status, look.counters
    if status is None:
        return
    since = f"in the {_time(status['uptime'])} since the agent started"
    wrong = []
    for what, cause in CAUSES.items():
        counted = {name: counters[name] for name in cause.counters if counters.get(name)}
        if counted:
            names = ", ".join(f"{name} {count}" for name, count in counted.items())
            wrong.append(_SAYS(what, f"{sum(counted.values())} {cause.text} {since} ({names})", cause.remedy))
    dials, failed = counters.get("dials", 0), counters.get("dials_failed", 0)
    if failed >= _DIALS and failed >= _PART * dials:
        text = f"{failed} of {dials} connections to other members failed {since}"
        wrong.append(_SAYS("dials", text, "open their port for tcp, too: large documents need it"))
    yield from wrong
    if not wrong:
        yield _SAYS.ok(f"nothing was dropped {since}")


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
