# SPDX-License-Identifier: MIT
"""Computes the Prometheus metrics from the agent's status at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..core.types import PRESENT, PROBLEMS, Member, State
from ..dataplane import headers

#: Key of the status' ``process`` -> name and description of the metric.
_PROCESS = {
    "descriptors": ("descriptors", "Number of open file descriptors."),
    "descriptors_limit": ("descriptors_limit", "Maximum number of open file descriptors; 0 for no limit."),
    "memory": ("memory_bytes", "Bytes of memory in use."),
    "memory_limit": ("memory_limit_bytes", "Maximum bytes of memory; 0 for no limit."),
}
_STATES = ("running", "paused", "left")
#: Maximum number of zones with a series of their own: the first ones by name. A node chooses the name of its zone, so
#: without a maximum, members could fill the database of Prometheus.
MOST_ZONES = 256


class StatusCollector:
    """A Prometheus collector: computes metrics from one status (GET /v1/status, docs/api.md) and all known nodes."""

    def __init__(
        self, status: Mapping[str, Any], members: Sequence[Member], rendered: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._status = status
        self._rendered = rendered
        self._problems: Counter[str] = Counter()
        self._digests: Counter[int] = Counter()
        self._zones: dict[str, Counter[State]] = {}
        self._count(members)

    def _count(self, members: Sequence[Member]) -> None:
        """Count in one pass over the nodes, because a fleet may have 10,000 of them."""
        for member in members:
            counts = self._zones.get(member.zone)
            if counts is None:
                counts = self._zones[member.zone] = Counter()
            counts[member.state] += 1
            if member.state in PRESENT or member.local:
                self._digests[member.digest] += 1
                if member.problems:
                    self._problems.update(member.problems)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        status = self._status
        yield InfoMetricFamily(
            "xdp_gossip_build",
            "Version, cluster, wire and data plane of the agent.",
            value={name: str(status[name]) for name in ("version", "cluster", "wire", "protocol", "mode")},
        )
        members = GaugeMetricFamily("xdp_gossip_members", "Number of known nodes, by state.", labels=["state"])
        for state, count in status["members"].items():
            members.add_metric([state], count)
        yield members
        local = GaugeMetricFamily(
            "xdp_gossip_state", "1 for the current state of the agent, 0 for the other states.", labels=["state"]
        )
        for state in _STATES:
            local.add_metric([state], int(status["state"] == state))
        yield local
        problems = GaugeMetricFamily(
            "xdp_gossip_problems", "Number of present nodes with a problem, by kind of problem.", labels=["problem"]
        )
        for problem in PROBLEMS:
            problems.add_metric([problem], self._problems[problem])
        yield problems
        yield from self._of_zones()
        for name, text, value in self._gauges():
            yield GaugeMetricFamily(name, text, value=value)
        counters = CounterMetricFamily("xdp_gossip_events", "The counters of the agent, by name.", labels=["name"])
        for name, count in sorted(status["counters"].items()):
            counters.add_metric([name], count)
        yield counters
        verdicts = _verdicts(status)
        if verdicts:
            packets = CounterMetricFamily(
                "xdp_gossip_dataplane_packets",
                "Packets that the kernel data plane handled, by verdict (docs/operations.md).",
                labels=["verdict"],
            )
            for name, count in verdicts.items():
                packets.add_metric([name], count)
            yield packets

        if self._rendered:
            outcome = GaugeMetricFamily(
                "xdp_gossip_template_state",
                "1 for the current state of a rendered file, 0 for the other states.",
                labels=["template", "state"],
            )
            for entry in self._rendered:
                for state in ("applied", "failed", "pending"):
                    outcome.add_metric([entry["name"], state], int(entry["state"] == state))
            yield outcome
            drifted = GaugeMetricFamily(
                "xdp_gossip_template_drifted",
                "1 while a rendered file differs after a manual change.",
                labels=["template"],
            )
            drifts = CounterMetricFamily(
                "xdp_gossip_template_drifts",
                "Number of times that a rendered file was changed by hand.",
                labels=["template"],
            )
            for entry in self._rendered:
                drifted.add_metric([entry["name"]], int(bool(entry["drift"])))
                drifts.add_metric([entry["name"]], entry["drifts"])
            yield drifted
            yield drifts
            renderings = CounterMetricFamily(
                "xdp_gossip_template_renderings", "Number of times that a template was rendered.", labels=["template"]
            )
            for entry in self._rendered:
                renderings.add_metric([entry["name"]], entry["renderings"])
            yield renderings

    def _of_zones(self) -> Iterator[Metric]:
        """Yield the metrics of a fleet with zones; nothing if no known node has a zone."""
        names = sorted(name for name in self._zones if name)
        if not names:
            return
        zones = GaugeMetricFamily(
            "xdp_gossip_zones",
            "Number of zones: present, or lost, which means that no node is present and a node is dead or agent_down.",
            labels=["state"],
        )
        states = Counter(_state_of_zone(self._zones[name]) for name in names)
        zones.add_metric(["present"], states["present"])
        zones.add_metric(["lost"], states["lost"])
        yield zones
        nodes = GaugeMetricFamily(
            "xdp_gossip_zone_nodes",
            f"Number of known nodes, by zone and state. The empty zone counts the nodes without a zone, and the nodes "
            f"of all zones after the first {MOST_ZONES} by name.",
            labels=["zone", "state"],
        )
        rest: Counter[State] = Counter()
        for name in ("", *names[MOST_ZONES:]):
            rest.update(self._zones.get(name, {}))
        shown = {**({"": rest} if rest else {}), **{name: self._zones[name] for name in names[:MOST_ZONES]}}
        for name, counts in shown.items():
            for state in State:
                nodes.add_metric([name, state.value], counts[state])
        yield nodes

    def _gauges(self) -> Iterator[tuple[str, str, float]]:
        status = self._status
        yield (
            "xdp_gossip_isolated",
            "1 while no other member answers this node, although it knows several.",
            int(status["isolated"]),
        )
        yield "xdp_gossip_documents", "Number of documents that the agent has stored.", status["documents"]
        yield "xdp_gossip_document_bytes", "Total size of the documents' values, in bytes.", status["document_bytes"]
        yield (
            "xdp_gossip_document_limit_bytes",
            "Maximum total size of the documents' values, in bytes.",
            status["document_bytes_limit"],
        )
        for key, value in status.get("process", {}).items():
            name, text = _PROCESS[key]
            yield f"xdp_gossip_process_{name}", text, value
        yield "xdp_gossip_uptime_seconds", "Seconds since the agent started.", status["uptime"]
        yield "xdp_gossip_cycle_seconds", "Seconds between two heartbeats.", status["cycle"]
        yield (
            "xdp_gossip_timeout_seconds",
            "Seconds without a sign of life until a node is suspected.",
            status["timeout"],
        )
        yield "xdp_gossip_incarnation", "Incarnation of the local node.", status["node"]["incarnation"]
        yield (
            "xdp_gossip_clock_offset_seconds",
            "Seconds by which the cluster's clock is ahead of the local clock.",
            status["clock_offset"],
        )
        yield (
            "xdp_gossip_caught_up",
            "1 once the agent has caught up with the cluster after its start, otherwise 0.",
            int(status["caught_up"]),
        )
        yield (
            "xdp_gossip_members_in_sync",
            "Number of present nodes, including this node, whose last heartbeat showed this node's documents.",
            sum(count for digest, count in self._digests.items() if f"{digest:016x}" == status["digest"]),
        )


def _state_of_zone(counts: Counter[State]) -> str:
    """Return present, lost or left. A zone whose nodes have all left was closed down on purpose, so it is not lost."""
    if any(counts[state] for state in PRESENT):
        return "present"
    return "lost" if counts[State.DEAD] or counts[State.AGENT_DOWN] else "left"


def _verdicts(status: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the counters of the kernel data plane; all are 0 if no data plane is loaded yet.

    Returns no counters if a data plane is loaded but its counters cannot be read. If the counters were 0 instead, the
    next values that can be read would look like new traffic.
    """
    plane = status.get("dataplane")
    if plane is not None:
        return dict(plane["counters"])
    if status["protocol"] not in ("auto", "XDP", "TC") or status["mode"] not in ("UDP", "TCP"):
        return {}
    try:
        return dict.fromkeys(headers.counters(), 0)
    except headers.HeaderError:
        return {}  # an agent without the BPF sources cannot load a data plane


def render(
    status: Mapping[str, Any], members: Sequence[Member], rendered: Sequence[Mapping[str, Any]] = ()
) -> tuple[bytes, str]:
    """Return the Prometheus text for ``status`` and ``members`` (all known nodes), and the content type of the text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status, members, rendered))  # type: ignore[arg-type]  # a base class only since 0.15
    return generate_latest(registry), CONTENT_TYPE_LATEST
