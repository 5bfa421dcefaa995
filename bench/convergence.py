# SPDX-License-Identifier: MIT
"""Measures how long a small document takes from one agent to the data planes and to the agents of all hosts.

The benchmark repeatedly publishes a document of a few bytes through the API of a random agent. The benchmark records
two times for each host, a kernel time and an agent time, by CLOCK_MONOTONIC, which all namespaces share. The kernel
time is the time at which the host's data plane recorded the rumor. The benchmark reads the kernel time from
``last_seen`` of the publisher's entry in the pinned maps, as soon as the entry has the new digest. The agent time is
the time at which the host's agent had applied the document. The script bench/probe.py writes the agent time to a file.
The report shows the milliseconds from the publish request to the kernel time and to the agent time of each host,
including the HTTP request and the publisher's write to its disk.

With the most hosts and XDP, a Serf agent runs on each host, too, and each publish is followed by a Serf user event from
the same host. The time of an event runs from the line in which the sending agent logs the request until the line in
which the last agent logs the first copy. Handlers of Serf would get the event later, because Serf collects events.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import time
from collections.abc import Sequence

from . import agents, serf
from .agents import Agent, Pins
from .fleet import fleet, form
from .netns import BenchError
from .report import Report, Spread
from .views import Watcher

_SIZES, _PUBLISHES = (10, 30, 50), 20
#: Number of publishes beside Serf.
_BESIDE = 50
#: Minimum seconds between two publishes, so that the heartbeats and syncs that the first publish causes end before the
#: second publish.
_PAUSE = 1.0
#: Maximum seconds to wait until a publish has reached all hosts, and seconds between two reads of the maps.
_PATIENCE, _LOOK = 10.0, 0.002
KERNEL_GOAL, AGENT_GOAL = 0.005, 0.050
#: How many times sooner than a Serf event a document is in every kernel, and in every agent.
SERF_KERNEL_GOAL, SERF_AGENT_GOAL = 80.0, 20.0


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    sizes, publishes, beside = ((4,), 2, 2) if quick else (_SIZES, _PUBLISHES, _BESIDE)
    report = Report(
        "convergence",
        f"ms from the request to publish until the last of n agents has it, cycle 1 s, {publishes} publishes each",
        ("plane, n", "in every kernel", "in every agent", "at the median agent", "not everywhere"),
    )
    problems = []
    for plane in agents.PLANES:
        for size in sizes:
            try:
                _one(report, plane, size, publishes)
            except BenchError as error:
                problems.append(f"{plane}, {size}: {error}")
    program = serf.binary()
    if program is None:
        print("convergence: this machine has no program serf: measuring only this project's agents", file=sys.stderr)
    else:
        try:
            _one(report, "XDP", sizes[-1], beside, program)
        except BenchError as error:
            problems.append(f"XDP, {sizes[-1]}, beside Serf: {error}")
    for problem in problems:
        print(f"convergence: {problem}", flush=True)
    if not report.rows:
        raise BenchError("; ".join(problems))
    return report


def _one(report: Report, plane: str, size: int, publishes: int, program: str | None = None) -> None:
    """Measure one fleet. ``program``: the path of the program ``serf``, if Serf agents run beside."""
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(fleet(size, plane, cycle=1))
        beside = _Serf(program, hosts, stack) if program is not None else None
        form(hosts, size, probed=True)
        pins = [stack.enter_context(contextlib.closing(Pins(host))) for host in hosts] if plane != "UDP" else []
        found = []
        for number in range(publishes):
            chosen = random.randrange(size)
            found.append(publish(hosts, chosen, pins, number + 1))
            if beside is not None:
                beside.send(chosen, number + 1)
    complete = [times for times in found if len(times.agents) == size]
    if not complete:
        raise BenchError(f"none of {publishes} publishes reached all {size} agents within {_PATIENCE:g} s")
    agent = Spread.of([max(times.agents) for times in complete])
    middle = Spread.of([sorted(times.agents)[size // 2] for times in complete])
    kernels = [max(times.kernels) for times in found if len(times.kernels) == size - 1]
    kernel = Spread.of(kernels) if kernels else None
    missing = publishes - (min(len(complete), len(kernels)) if pins else len(complete))
    in_kernel = kernel.text(".1f") if kernel else "-"
    name = f"{plane}, {size}" + (", beside Serf" if beside else "")
    report.rows.append((name, in_kernel, agent.text(".1f"), middle.text(".1f"), str(missing)))
    measured = {
        "kernel_ms": kernel.json() if kernel else None,
        "agent_ms": agent.json(),
        "median_agent_ms": middle.json(),
        "missing": missing,
    }
    if beside is not None:
        measured["serf_ms"] = _compare(report, beside, size, publishes, kernel, agent, missing)
        report.data["beside_serf"] = measured
        return
    report.data.setdefault("planes", {}).setdefault(plane, {})[size] = measured
    if size == max(_SIZES) and plane == "XDP":
        report.most(f"{plane}, {size}: in every kernel, ms", kernel.median if kernel else 1e9, KERNEL_GOAL * 1e3)
        report.most(f"{plane}, {size}: in every agent, ms", agent.median, AGENT_GOAL * 1e3)


def _compare(
    report: Report, beside: _Serf, size: int, publishes: int, kernel: Spread | None, agent: Spread, missing: int
) -> dict[str, float]:
    """Add the row of Serf's events, and the goals. Raises ``BenchError`` if no event reached all Serf agents."""
    took = beside.milliseconds
    if not took:
        raise BenchError(f"none of {publishes} Serf events reached all {size} Serf agents within {_PATIENCE:g} s")
    theirs = Spread.of(took)
    report.rows.append((f"Serf event, {size}", "-", theirs.text(".1f"), "-", str(publishes - len(took))))
    report.most("publishes that did not reach everybody", missing, 0)
    report.least("a Serf event's time / that of every agent", theirs.median / agent.median, SERF_AGENT_GOAL)
    ratio = theirs.median / kernel.median if kernel else 0.0
    report.least("a Serf event's time / that of every kernel", ratio, SERF_KERNEL_GOAL)
    return theirs.json()


class _Serf:
    """A Serf agent on each of ``hosts``, and the times of its events. ``milliseconds``: of those that reached all."""

    def __init__(self, program: str, hosts: Sequence[Agent], stack: contextlib.ExitStack) -> None:
        self.problems: dict[int, str] = {}
        self.milliseconds: list[float] = []
        self._arrived: dict[int, dict[int, float]] = {}
        watcher = Watcher()
        stack.callback(watcher.close)
        seeds = [host.address.ip for host in hosts[:2]]
        self._members = [
            serf.SerfAgent(program, host.namespace, number, host.address.ip, seeds, level="debug")
            for number, host in enumerate(hosts)
        ]
        for member in self._members:
            stack.callback(member.end)
            member.launch()
            member.attach(watcher, self, serf.parse_events)
        agents.until(self._missing, 120.0, 1.0)

    def _missing(self) -> str | None:
        for member in self._members:
            try:
                others = len(member.present())
            except BenchError as error:
                return str(error)
            if others != len(self._members) - 1:
                return f"host{member.number} lists {others} other Serf agents, expected {len(self._members) - 1}"
        return None

    def record(self, when: float, observer: int, subject: int, present: bool) -> None:
        """Note when an agent sent an event, or received its first copy."""
        self._arrived.setdefault(subject, {}).setdefault(observer, when)

    def send(self, sender: int, number: int) -> None:
        """Send an event, and wait until all agents have it."""
        time.sleep(_PAUSE)
        self._members[sender].event(number)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            arrived = self._arrived.get(number, {})
            if len(arrived) == len(self._members):
                self.milliseconds.append((max(arrived.values()) - arrived[sender]) * 1e3)
                return
            time.sleep(0.05)


class Times:
    """Milliseconds from the publish request until the document reached the kernel of each host, and until it reached
    the agent of each host.
    """

    def __init__(self) -> None:
        self.kernels: list[float] = []
        self.agents: list[float] = []


def publish(
    hosts: Sequence[Agent], chosen: int, pins: Sequence[Pins], number: int, request: bytes | None = None
) -> Times:
    """Publish the document whose value is ``number`` through the API of ``hosts[chosen]``.

    ``pins``: the data planes of all hosts, or nothing. ``request``: the HTTP request that publishes the document; None:
    a PUT of the document ``bench``. Returns the times at which the document arrived. Raises ``BenchError`` if the API
    refuses the document.
    """
    time.sleep(_PAUSE + random.uniform(0, 0.5))
    publisher = hosts[chosen]
    others = [pin for index, pin in enumerate(pins) if index != chosen]
    before = [pin.node(publisher.address) for pin in others]
    times = Times()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(publisher.socket))
        began = time.monotonic_ns()
        connection.sendall(request or http("PUT", "/v1/documents/bench", str(number).encode()))
        _watch(others, before, publisher, began, times)
        answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200") and not answer.startswith(b"HTTP/1.1 201"):
        raise BenchError(f"{publisher.name}: expected the API to publish the document, got {answer[:200]!r}")
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        arrived = [host.arrivals().get(number) for host in hosts]
        if None not in arrived:
            break
        time.sleep(0.05)
    times.agents = [(when - began) / 1e6 for when in arrived if when is not None]
    return times


def http(method: str, path: str, body: bytes) -> bytes:
    """An HTTP request."""
    kind = "application/json" if method == "POST" else "application/octet-stream"
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _watch(
    pins: Sequence[Pins],
    before: Sequence[tuple[int, int, int] | None],
    publisher: Agent,
    began: int,
    times: Times,
) -> None:
    """Read the maps of all hosts until the map of each host contains the publisher's new digest, and add the kernels'
    times to ``times``.

    The time at which the document reached a kernel is ``last_seen`` of the publisher's entry in the kernel's node map.
    """
    waiting = dict(enumerate(pins))
    deadline = time.monotonic() + 1.0
    while waiting and time.monotonic() < deadline:
        time.sleep(_LOOK)
        for index, pin in list(waiting.items()):
            now, old = pin.node(publisher.address), before[index]
            if now is not None and (old is None or now[2] != old[2]) and now[1] >= began:
                times.kernels.append((now[1] - began) / 1e6)
                del waiting[index]
