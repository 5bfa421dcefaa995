# SPDX-License-Identifier: MIT
"""Heartbeats that one node handles per second of processor time that it uses.

The node is a real agent in a namespace of its own, pinned to one processor with its interface; the load comes from the
other one, and what the load uses does not count. The heartbeats are those of N origins in turn, in three mixes:

- new: each comes once, and is verified, recorded and relayed to `amount` members;
- fleet: each comes `amount` times, as in a fleet where all relay to so many: one is new, the others are copies;
- last: each comes once and on its last hop: verified and recorded.

- UDP plane: the processor time is the agent's (schedstat: system calls included, softirqs of reception not). The load
  is offered at more than it can take, through an ordinary socket.
- XDP plane: the processor time is that of the interface's NAPI thread, which receives and relays, of ksoftirqd and of
  the agent. The load is live frames, as fast as one processor makes them.

PekoNode's figures were taken in the UDP way (13,300 and 5,330 heartbeats per core-second).
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import agents, lane, netns, packets
from .agents import Agent, Pins
from .netns import BenchError, inside
from .programs import Generator
from .report import Report, Spread

PEKONODE = {100: 13_300, 1000: 5_330}
_GOALS = {100: 30, 1000: 80}
_RUNS, _SECONDS = 5, 3.0
#: Packets a second offered to the UDP plane: more than it takes of each mix.
_OFFERED = {"new": 45_000, "fleet": 90_000, "last": 70_000}
#: Mix, members, amount.
_CASES = (("new", 100, 3), ("new", 1000, 3), ("new", 100, 4), ("fleet", 100, 4), ("last", 100, 4))
_FRAMES = 1 << 17
_WAIT = 20.0
#: Least share of the copies that have to leave.
_SOUND = 0.98


def run(quick: bool) -> Report:
    """Measure. Raises ``BenchError``."""
    runs = 2 if quick else _RUNS
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchError("expected two processors: one for the load, one for the node")
    report = Report(
        "planes",
        f"heartbeats handled per second of the node's processor time; median [least..most] of {runs} runs",
        ("mix, members, amount, plane", "per core-second", "ns each", "of the UDP plane", "of PekoNode"),
    )
    problems = []
    for case in _CASES:
        found = {}
        for plane in ("UDP", "XDP"):
            try:
                found[plane] = Spread.of(_one(plane, *case, runs))
            except BenchError as error:
                problems.append(f"planes: {plane}, {', '.join(map(str, case))}: {error}")
        _fill(report, *case, found)
    if problems:
        print("\n".join(problems), flush=True)
    if not report.rows:
        raise BenchError("nothing could be measured")
    return report


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
    """A lane with an agent at its end, and room for ``members`` origins. Raises ``BenchError``."""
    base = Path(tempfile.mkdtemp(prefix=f"{netns.PREFIX}-"))
    with lane.lane():
        lane.neighbours([packets.origin(number) for number in range(members)])
        settings: dict[str, Any] = {"amount": amount, "cycle": cycle, "timeout": 3600}
        node = Agent(base, "node", lane.NODE, lane.INSIDE, lane.LOCAL, plane, **settings)
        try:
            node.bring_plane_up()
            node.start(cpu)
            node.wait_ready()
            yield node
        finally:
            node.end()
            agents.clear(base)


class Load:
    """Heartbeats of ``members`` origins whose sequences go on where the last ones ended."""

    def __init__(self, members: int, *, copies: int = 1, ttl: int = packets.TTL, records: bool = False) -> None:
        self._members, self.copies = members, copies
        self._settings: dict[str, Any] = {"ttl": ttl, "records": records}
        self._first = 2  # node records have the first

    def skip(self) -> int:
        """A sequence that no heartbeat will have."""
        self._first += 1
        return self._first - 1

    def next(self, count: int) -> list[bytes]:
        """``count`` packets or somewhat more: whole rounds of all members, each with its copies after it."""
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
    """A socket at the generator's end, connected to the node."""
    with inside(lane.GENERATOR):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((lane.PEER.ip, lane.PEER.port))
    sock.connect((lane.LOCAL.ip, lane.LOCAL.port))
    return sock


def send(sock: socket.socket, load: list[bytes], rate: float) -> None:
    """Send the packets at ``rate`` a second, in steps of a millisecond."""
    step = max(1, round(rate / 1000))
    due = time.perf_counter()
    for start in range(0, len(load), step):
        for packet in load[start : start + step]:
            sock.send(packet)
        due += step / rate
        if (left := due - time.perf_counter()) > 0:
            time.sleep(left)


def introduce(node: Agent, load: Load, members: int) -> None:
    """Let the node hear of every origin once, and wait until it lists them."""
    with sender() as sock:
        send(sock, load.next(members), 2000)

        def missing() -> str | None:
            alive = node.status()["members"]["alive"]
            if alive > members:
                return None
            send(sock, load.next(members), 2000)
            return f"{node.name} lists {alive - 1} members, expected {members}"

        agents.until(missing, _WAIT, 1.0)


def _one(plane: str, mix: str, members: int, amount: int, runs: int) -> list[float]:
    """Heartbeats per core-second in each run."""
    cpu, other = 1, 0
    load = Load(members, copies=amount if mix == "fleet" else 1, ttl=0 if mix == "last" else packets.TTL)
    with lane.pinned(other), lane_agent(plane, members, amount, cpu) as node:
        introduce(node, load, members)
        if plane == "UDP":
            return _udp(node, load, runs, _OFFERED[mix])
        poll = _threaded(lane.NODE, lane.INSIDE, cpu)
        _threaded(lane.GENERATOR, lane.OUTSIDE, other)
        return _xdp(node, load, runs, (poll, lane.kernel_thread(f"ksoftirqd/{cpu}")), 0 if mix == "last" else amount)


def _udp(node: Agent, load: Load, runs: int, offered: int) -> list[float]:
    found = []
    with sender() as sock:
        for _ in range(runs):
            batch = load.next(int(offered * _SECONDS))
            before, began = _handled_by_agent(node), node.run_time()
            send(sock, batch, offered)
            spent = node.run_time() - began
            found.append((_handled_by_agent(node) - before) / (spent / 1e9))
    return found


def _handled_by_agent(node: Agent) -> int:
    return int(node.status()["counters"]["rx_heartbeat"])


def _xdp(node: Agent, load: Load, runs: int, threads: tuple[int, ...], amount: int) -> list[float]:
    framer, found = lane.framer(), []
    generator: Generator | None = None

    def spent() -> int:
        return sum(lane.run_time(thread) for thread in threads) + node.run_time()

    with contextlib.closing(Pins(node)) as pins:
        for _ in range(runs):
            frames = [framer.frame(packet) for packet in load.next(_FRAMES)][:_FRAMES]
            if generator is None:
                generator = Generator(lane.GENERATOR, lane.OUTSIDE, frames)
            else:
                generator.fill(frames)
            before, began = pins.counters(), spent()
            generator.send(generator.count)
            time.sleep(0.1)
            used, after = spent() - began, pins.counters()
            taken, copies, seen = (after[n] - before[n] for n in ("take_heartbeat", "copy", "drop_duplicate"))
            if not taken or copies < _SOUND * amount * taken:
                raise BenchError(f"{taken} heartbeats taken and {copies} copies sent, expected {amount} each")
            found.append((taken + seen) / (used / 1e9))
    return found


def _threaded(namespace: str, interface: str, cpu: int) -> int:
    """Let a kernel thread of its own poll the interface, on one processor; its process id."""
    # Not netns.run(..., namespace=namespace): sysfs shows the links of the namespace it was mounted in.
    netns.run("ip", "netns", "exec", namespace, "sh", "-c", f"echo 1 >/sys/class/net/{interface}/threaded")
    deadline = time.monotonic() + 5
    while True:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if (entry / "comm").read_text().startswith(f"napi/{interface}-"):
                        os.sched_setaffinity(int(entry.name), {cpu})
                        return int(entry.name)
        if time.monotonic() > deadline:
            raise BenchError(f"{interface}: expected a kernel thread napi/{interface}-*, found none")
        time.sleep(0.05)
