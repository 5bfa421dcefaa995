# SPDX-License-Identifier: MIT
"""Measures the processor time and memory of one agent with ten thousand simulated members, at a cycle of 6 s, and how
long the agent takes to list them.

Every simulated member has a node record. A thread sends the members' heartbeats through an ordinary socket, evenly
spread over time. The data plane records and relays the heartbeats. The benchmark reads the agent's processor time from
schedstat. The receiver's softirq runs in the context of the sending thread. The kernel's processor time is therefore
the time of the sending thread, minus the time that the sending thread needs for the same packets while an XDP program
drops all packets. In a first run the thread sends each heartbeat once. In a second run the thread sends each heartbeat
as many times as a node of a real fleet would receive it.
"""

from __future__ import annotations

import contextlib
import statistics
import time

from . import agents, lane, packets
from .agents import Agent, Pins
from .netns import BenchError
from .planes import Load, dropping, lane_agent, send, send_timed, sender
from .report import Report

_MEMBERS, _QUICK_MEMBERS, _CYCLE, _AMOUNT = 10_000, 1_000, 6.0, 4
_SECONDS, _QUICK_SECONDS = 60.0, 18.0
_INTRODUCE_RATE = 1_500
_LISTS = 5
CPU_GOAL, MEMORY_GOAL, LIST_GOAL = 2.0, 80.0, 2.0


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    seconds, members = (_QUICK_SECONDS, _QUICK_MEMBERS) if quick else (_SECONDS, _MEMBERS)
    report = Report(
        "members",
        f"{members:,} members held by one agent, cycle {_CYCLE:g} s, for {seconds:g} s: percent of a core",
        ("plane, copies of each heartbeat", "agent %", "kernel %", "in all %", "resident MB"),
    )
    plain = {copies: _sending(members, copies, seconds) for copies in (1, _AMOUNT)}
    with lane.pinned(0), lane_agent("XDP", members, _AMOUNT, 1, cycle=_CYCLE) as node:
        with contextlib.closing(Pins(node)) as pins:
            load = Load(members, records=True)
            _introduce(node, load, members)
            for copies in (1, _AMOUNT):
                load.copies = copies
                _hold(report, node, pins, load, members, copies, seconds, plain[copies])
            _list(report, node, members)
    return report


def _list(report: Report, node: Agent, members: int) -> None:
    """Measure how long ``xdp-gossip members`` takes to print all members."""
    took = []
    for _ in range(_LISTS):
        began = time.monotonic()
        lines = node.command("members").stdout.count(b"\n")
        took.append(time.monotonic() - began)
        if lines < members:
            raise BenchError(f"xdp-gossip members printed {lines} lines, expected {members} members")
    report.data["list_seconds"] = took
    report.most("seconds of xdp-gossip members, median", statistics.median(took), LIST_GOAL)


def _introduce(node: Agent, load: Load, members: int) -> None:
    """Send node records and heartbeats of all members, again and again until the agent lists all members."""
    with sender() as sock:

        def missing() -> str | None:
            send(sock, list(packets.record_rumors(members, load.skip())), _INTRODUCE_RATE)
            send(sock, load.next(members), _INTRODUCE_RATE)
            alive = int(node.status()["members"]["alive"])
            return None if alive > members else f"{node.name} lists {alive - 1} members, expected {members}"

        agents.until(missing, 90)


def _sending(members: int, copies: int, seconds: float) -> float:
    """Return how many processor seconds per second the sender uses while an XDP program drops all packets."""
    with lane.pinned(0), lane.lane(), dropping():
        load = Load(members, records=True, copies=copies)
        return send_timed(load, members / _CYCLE * copies, min(seconds, 30.0))


def _hold(
    report: Report, node: Agent, pins: Pins, load: Load, members: int, copies: int, seconds: float, plain: float
) -> None:
    before, began, own = pins.counters(), time.monotonic(), node.run_time()
    sending = send_timed(load, members / _CYCLE * copies, seconds)
    agent = (node.run_time() - own) / 1e9 / (time.monotonic() - began) * 100
    after = pins.counters()
    taken, copied = (after[name] - before[name] for name in ("take_heartbeat", "copy"))
    wanted = members / _CYCLE * seconds
    if taken < 0.98 * wanted or copied < 0.95 * _AMOUNT * taken:
        raise BenchError(f"only {taken} of {wanted:.0f} heartbeats were recorded, or only {copied} copies sent")
    kernel = max(0.0, sending - plain) * 100
    memory = node.resident_kib / 1024
    cells = (f"{agent:.2f}", f"{kernel:.2f}", f"{agent + kernel:.2f}", f"{memory:.1f}")
    report.rows.append((f"XDP, {copies}", *cells))
    row = {"agent_percent": agent, "kernel_percent": kernel, "resident_mib": memory, "heartbeats": taken}
    report.data.setdefault("copies", {})[copies] = row
    if copies == 1:
        report.most("percent of a core, kernel included", agent + kernel, CPU_GOAL)
        report.most("resident MB", memory, MEMORY_GOAL)
