# SPDX-License-Identifier: MIT
"""Prometheus metrics, made from the status at the moment of the scrape: nothing is counted twice or kept in step.

Written out here in the text format 0.0.4: the client library, made for counting, costs each agent a megabyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .core.types import Member

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STATES = ("running", "paused", "left")
#: In a label's value; a metric's description has none of these characters.
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def render(status: Mapping[str, Any], members: Sequence[Member]) -> tuple[bytes, str]:
    """The exposition text for ``status`` (GET /v1/status) and the present ``members``, and its content type."""
    return "".join(_lines(status, members)).encode(), CONTENT_TYPE


def _lines(status: Mapping[str, Any], members: Sequence[Member]) -> Iterator[str]:
    build = {name: str(status[name]) for name in ("version", "cluster", "wire", "protocol", "mode")}
    yield _head("xdp_gossip_build_info", "gauge", "Version, cluster, wire and data plane of the agent.")
    yield _sample("xdp_gossip_build_info", 1, **build)
    yield _head("xdp_gossip_members", "gauge", "Nodes known, by state.")
    for state, count in status["members"].items():
        yield _sample("xdp_gossip_members", count, state=state)
    yield _head("xdp_gossip_state", "gauge", "1 for the state the agent is in.")
    for state in _STATES:
        yield _sample("xdp_gossip_state", int(status["state"] == state), state=state)
    for name, text, value in _gauges(status, members):
        yield _head(name, "gauge", text)
        yield _sample(name, value)
    yield _head("xdp_gossip_events_total", "counter", "What the agent counted, by name.")
    for name, count in sorted(status["counters"].items()):
        yield _sample("xdp_gossip_events_total", count, name=name)


def _gauges(status: Mapping[str, Any], members: Sequence[Member]) -> Iterator[tuple[str, str, float]]:
    yield "xdp_gossip_documents", "Documents held.", status["documents"]
    yield "xdp_gossip_uptime_seconds", "Seconds since the agent started.", status["uptime"]
    yield "xdp_gossip_cycle_seconds", "Seconds between two heartbeats.", status["cycle"]
    yield "xdp_gossip_timeout_seconds", "Seconds of silence until a node is suspected.", status["timeout"]
    yield "xdp_gossip_incarnation", "Incarnation of the local node.", status["node"]["incarnation"]
    yield (
        "xdp_gossip_clock_offset_seconds",
        "Seconds that the cluster's clock is ahead of the local one.",
        status["clock_offset"],
    )
    yield (
        "xdp_gossip_members_in_sync",
        "Present nodes (with this one) whose last heartbeat showed the documents that this one holds.",
        sum(f"{member.digest:016x}" == status["digest"] for member in members),
    )


def _head(metric: str, kind: str, text: str) -> str:
    return f"# HELP {metric} {text}\n# TYPE {metric} {kind}\n"


def _sample(metric: str, value: float, /, **labels: str) -> str:
    pairs = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
    return f"{metric}{{{pairs}}} {value!r}\n" if pairs else f"{metric} {value!r}\n"
