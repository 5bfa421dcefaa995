# SPDX-License-Identifier: MIT
"""Measures how many heartbeats one node handles per second of processor time, in the modes XDP and UDP.

First the benchmark sends as many heartbeats as the node can handle, from N origins in turn, in these mixes:

- new: each heartbeat arrives once, and the node verifies, records and relays it to `amount` members.

- fleet: each heartbeat arrives `amount` times, as in a real fleet, so the first copy is new, and the other copies are
  duplicates.

- last: each heartbeat arrives once and on its last hop, so the node verifies and records it, but does not relay it.

- copies: each heartbeat arrives 32 times, so that nearly all heartbeats are duplicates, which are the most frequent
  packets of a fleet.

For UDP, a real agent is pinned to one processor. A process on another processor sends packets through a socket, faster
than the agent can handle them. The processor time for UDP is the agent's time in schedstat, which is also the measure
of PekoNode's figures. The time in schedstat includes the agent's system calls, but not the softirqs that receive
packets. For XDP, the data plane runs without an agent, because no heartbeat would reach an agent. The generator, the
node and the receiver of the copies share one processor. The figure for XDP is a lower bound, because this figure counts
the processor time of the generator, the node and the receiver.

Then the benchmark sends the mix `fleet` to a real agent at 1,000 heartbeats a second, once in mode XDP and once in mode
UDP. With the automatic cycle, a member receives at most 1,000 heartbeats a second. The figure of this
last measurement counts the sum of the agent's and the kernel's processor time. The softirqs that receive packets run in
the context of the sending thread. The kernel's time is therefore the time of the sending thread, minus the time that
the sending thread needs for the same packets while an XDP program drops all packets.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from . import agents, lane, packets, programs
from .agents import Agent
from .netns import BenchError, inside
from .plane import Plane
from .programs import Generator
from .report import Report, Spread, sound

PEKONODE = {100: 13_300, 1000: 5_330}
_GOALS = {100: 30, 1000: 80}
_RUNS, _SECONDS = 5, 3.0
#: Packets per second sent to the agent in mode UDP, by mix. Each rate is higher than the rate that the agent can
#: handle.
_OFFERED = {"new": 45_000, "fleet": 90_000, "last": 130_000, "copies": 160_000}
#: The cases, each as (mix, number of members, fan-out).
_CASES = (("new", 100, 3), ("new", 1000, 3), ("new", 100, 4), ("fleet", 100, 4), ("last", 100, 4), ("copies", 100, 4))
_AT_PACE = ("fleet at 1,000/s", 100, 4)
_PACE, _COPIES = 1_000, 32
_LOAD_CPU, _NODE_CPU = 0, 1
_FRAMES = 1 << 17
_WAIT = 20.0


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    runs = 1 if quick else _RUNS
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchError("expected two processors: one for the load, one for the node")
    report = Report(
        "planes",
        f"heartbeats handled per second of the node's processor time; median [least..most] of {runs} runs",
        ("mix, members, amount, plane", "per core-second", "ns each", "of the UDP plane", "of PekoNode"),
    )
    problems = []
    for case in (_CASES[0], _AT_PACE) if quick else (*_CASES, _AT_PACE):
        found = {}
        for plane in ("UDP", "XDP"):
            try:
                found[plane] = Spread.of(_measure(plane, *case, runs, quick))
            except BenchError as error:
                problems.append(f"planes: {plane}, {', '.join(map(str, case))}: {error}")
        _fill(report, *case, found)
    if problems:
        print("\n".join(problems), flush=True)
    if not report.rows:
        raise BenchError("nothing could be measured")
    return report


def _measure(plane: str, mix: str, members: int, amount: int, runs: int, quick: bool) -> list[float]:
    if mix == _AT_PACE[0]:
        return [_paced(plane, members, amount, 5.0 if quick else 20.0) for _ in range(1 if quick else 3)]
    return (_udp if plane == "UDP" else _xdp)(mix, members, amount, runs)


def _fill(report: Report, mix: str, members: int, amount: int, found: dict[str, Spread]) -> None:
    for plane, rate in found.items():
        name = f"{mix}, {members}, {amount}, {plane}"
        of_udp = rate.median / found["UDP"].median if "UDP" in found else 0.0
        of_peko = rate.median / PEKONODE[members] if (mix, amount) == ("new", 3) else 0.0
        report.rows.append(
            (
                name,
                rate.text(),
                f"{1e9 / rate.median:,.0f}",
                f"{of_udp:.1f}" if of_udp else "-",
                f"{of_peko:.1f}" if of_peko else "-",
            )
        )
        report.data.setdefault("rates", {})[name] = {**rate.json(), "of_udp": of_udp, "of_pekonode": of_peko}
        if plane == "XDP" and of_peko:
            report.least(f"of PekoNode, {members} members, amount {amount}", of_peko, _GOALS[members])
        if plane == "XDP" and mix == "fleet":
            report.least("of the agent's UDP plane, as in a fleet", of_udp, 50)


@contextlib.contextmanager
def lane_agent(plane: str, members: int, amount: int, cpu: int | None, cycle: float = 6) -> Iterator[Agent]:
    """Context manager: a benchmark link (:mod:`.lane`) with an agent at the node's end, and with neighbour entries for
    ``members`` origins.

    ``cpu``: processor to which the agent is pinned (None: any processor). Raises ``BenchError``.
    """
    with agents.workspace() as base, lane.lane():
        lane.neighbours([packets.origin(number) for number in range(members)])
        settings: dict[str, Any] = {"amount": amount, "cycle": cycle, "timeout": 3600}
        node = Agent(base, "node", lane.NODE, lane.INSIDE, lane.LOCAL, plane, **settings)
        try:
            node.bring_plane_up()
            node.launch(cpu)
            node.wait_ready()
            yield node
        finally:
            node.end()


class Load:
    """Generates heartbeats of ``members`` origins.

    Each call of :meth:`next` continues with the sequences that follow those of the previous call.
    """

    def __init__(self, members: int, *, copies: int = 1, ttl: int = packets.TTL, records: bool = False) -> None:
        self._members, self.copies = members, copies
        self._settings: dict[str, Any] = {"ttl": ttl, "records": records}
        self._first = 2  # the rumors with node records have sequence 1

    def skip(self) -> int:
        """Reserve a sequence number that no heartbeat will have, and return that number."""
        self._first += 1
        return self._first - 1

    def next(self, count: int) -> list[bytes]:
        """Generate at least ``count`` packets, in complete rounds.

        A round is one heartbeat from each member, and is repeated ``copies`` times.
        """
        rounds = -(-count // (self._members * self.copies))
        found = list(packets.heartbeats(self._members, rounds * self._members, first=self._first, **self._settings))
        self._first += rounds
        if self.copies == 1:
            return found
        return [
            packet
            for start in range(0, len(found), self._members)
            for _ in range(self.copies)
            for packet in found[start : start + self._members]
        ]


def sender() -> socket.socket:
    """A UDP socket at the generator's end of the lane, connected to the node."""
    with inside(lane.GENERATOR):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((lane.PEER.ip, lane.PEER.port))
    sock.connect((lane.LOCAL.ip, lane.LOCAL.port))
    return sock


def send(sock: socket.socket, load: list[bytes], rate: float) -> None:
    """Send the packets of ``load`` at ``rate`` packets per second, in one burst every millisecond."""
    step = max(1, round(rate / 1000))
    due = time.perf_counter()
    for start in range(0, len(load), step):
        for packet in load[start : start + step]:
            sock.send(packet)
        due += step / rate
        if (left := due - time.perf_counter()) > 0:
            time.sleep(left)


def introduce(node: Agent, load: Load, members: int) -> None:
    """Send a heartbeat of every origin to the node, and wait until the node lists all origins."""
    with sender() as sock:
        send(sock, load.next(members), 2000)

        def missing() -> str | None:
            alive = node.status()["members"]["alive"]
            if alive > members:
                return None
            send(sock, load.next(members), 2000)
            return f"{node.name} lists {alive - 1} members, expected {members}"

        agents.until(missing, _WAIT, 1.0)


def _load(mix: str, members: int, amount: int) -> Load:
    copies = {"copies": _COPIES, "fleet": amount, _AT_PACE[0]: amount}.get(mix, 1)
    return Load(members, copies=copies, ttl=0 if mix == "last" else packets.TTL)


def _udp(mix: str, members: int, amount: int, runs: int) -> list[float]:
    """Return, for each run, the heartbeats that an agent in mode UDP handles per second of processor time."""
    load, offered, found = _load(mix, members, amount), _OFFERED[mix], []
    with lane.pinned(_LOAD_CPU), lane_agent("UDP", members, amount, _NODE_CPU) as node:
        introduce(node, load, members)
        for _ in range(runs):
            batch = load.next(int(offered * _SECONDS))
            before, began = _handled_by_agent(node), node.run_time()
            with sender() as sock:
                send(sock, batch, offered)
            spent = node.run_time() - began
            found.append((_handled_by_agent(node) - before) / (spent / 1e9))
    return found


def _handled_by_agent(node: Agent) -> int:
    return int(node.status()["counters"]["rx_heartbeat"])


def _xdp(mix: str, members: int, amount: int, runs: int) -> list[float]:
    """Return, for each run, the heartbeats that the XDP data plane handles per second of processor time, without an
    agent.
    """
    framer, load = lane.framer(), _load(mix, members, amount)
    found = []
    with lane.pinned(_NODE_CPU), lane.lane():
        plane = Plane(amount, [packets.origin(number) for number in range(members)])
        frames = [framer.frame(packet) for packet in load.next(_FRAMES)]
        generator = Generator(lane.GENERATOR, lane.OUTSIDE, frames)
        with programs.attached(plane.ingress, lane.NODE, lane.INSIDE):
            for _ in range(runs):
                plane.admit(members)
                generator.rewind()
                before = plane.counters()
                burst = lane.burst(generator, generator.count)
                after = plane.counters()
                taken, seen, copies = (after[n] - before[n] for n in ("take_heartbeat", "drop_duplicate", "copy"))
                wanted = 0 if mix == "last" else amount * taken
                if taken + seen < sound() * generator.count or copies < sound() * wanted:
                    raise BenchError(
                        f"of {generator.count} frames {taken} were new and {seen} duplicates, {copies} copies were sent"
                    )
                found.append((taken + seen) / burst.seconds)
    return found


def _paced(plane: str, members: int, amount: int, seconds: float) -> float:
    """Return the heartbeats handled per second of processor time of agent and kernel, while ``_PACE`` heartbeats arrive
    per second.
    """
    plain = _sending(members, amount, seconds)
    load = _load(_AT_PACE[0], members, amount)
    with lane.pinned(_LOAD_CPU), lane_agent(plane, members, amount, _NODE_CPU) as node:
        introduce(node, load, members)
        time.sleep(2)
        own = node.run_time()
        share = send_timed(load, _PACE, seconds)
        return seconds * _PACE / ((node.run_time() - own) / 1e9 + (share - plain) * seconds)


def _sending(members: int, amount: int, seconds: float) -> float:
    """Return how many processor seconds per second the sender uses while an XDP program drops all packets."""
    with lane.pinned(_LOAD_CPU), lane.lane(), dropping():
        return send_timed(_load(_AT_PACE[0], members, amount), _PACE, seconds)


@contextlib.contextmanager
def dropping() -> Iterator[None]:
    """Context manager: an XDP program at the node's end of the lane drops every frame."""
    module = programs.compile_source(programs.HERE / "baseline.c", {})
    with programs.attached(programs.load(module, "drop", "XDP"), lane.NODE, lane.INSIDE):
        yield


def send_timed(load: Load, rate: float, seconds: float) -> float:
    """Send heartbeats at ``rate`` per second for ``seconds``.

    Returns how many processor seconds per second the calling thread and its processor's ksoftirqd used while the thread
    sent.
    """
    (cpu,) = os.sched_getaffinity(0)
    helper = lane.kernel_thread(f"ksoftirqd/{cpu}")
    batch = load.next(int(rate * seconds))
    with sender() as sock:
        before, helped = time.thread_time_ns(), lane.run_time(helper)
        send(sock, batch, rate)
        spent = time.thread_time_ns() - before + lane.run_time(helper) - helped
    return spent / 1e9 / (len(batch) / rate)
