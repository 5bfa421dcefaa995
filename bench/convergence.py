# SPDX-License-Identifier: MIT
"""How long a small document takes from one agent to all: into every kernel, and into every agent.

One agent after the other, chosen at random, is asked over its API to publish a few bytes. Two times are taken, both by
CLOCK_MONOTONIC, which all namespaces share: when the data plane of each host recorded the rumor (``last_seen`` of
its entry, read from the pinned maps as soon as the entry shows the new digest), and when each agent's core had taken
the document (noted by bench/probe.py). Both count from the request, so they contain the publisher's HTTP and disk.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence

from . import agents
from .agents import Agent, Pins
from .fleet import fleet, form
from .netns import BenchError
from .report import Report, Spread

_SIZES, _PUBLISHES = (10, 30, 50), 20
#: Seconds from one publish to the next: the heartbeats and syncs that follow it are over by then.
_PAUSE = 1.0
#: Seconds to wait for a publish to arrive everywhere, and between two looks at the maps.
_PATIENCE, _LOOK = 10.0, 0.002
KERNEL_GOAL, AGENT_GOAL = 0.005, 0.050


def run(quick: bool) -> Report:
    """Measure. Raises ``BenchError``."""
    sizes, publishes = ((4,), 2) if quick else (_SIZES, _PUBLISHES)
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
    for problem in problems:
        print(f"convergence: {problem}", flush=True)
    if not report.rows:
        raise BenchError("; ".join(problems))
    return report


def _one(report: Report, plane: str, size: int, publishes: int) -> None:
    with fleet(size, plane, cycle=1) as hosts:
        form(hosts, size, probed=True)
        pins = [Pins(host) for host in hosts] if plane != "UDP" else []
        try:
            found = [_publish(hosts, pins, number + 1) for number in range(publishes)]
        finally:
            for pin in pins:
                pin.close()
    complete = [times for times in found if len(times.agents) == size]
    if not complete:
        raise BenchError(f"of {publishes} publishes none reached all {size} agents within {_PATIENCE:g} s")
    agent = Spread.of([max(times.agents) for times in complete])
    middle = Spread.of([sorted(times.agents)[size // 2] for times in complete])
    kernels = [max(times.kernels) for times in found if len(times.kernels) == size - 1]
    kernel = Spread.of(kernels) if kernels else None
    missing = publishes - (min(len(complete), len(kernels)) if pins else len(complete))
    in_kernel = kernel.text(".1f") if kernel else "-"
    report.rows.append((f"{plane}, {size}", in_kernel, agent.text(".1f"), middle.text(".1f"), str(missing)))
    report.data.setdefault("planes", {}).setdefault(plane, {})[size] = {
        "kernel_ms": kernel.json() if kernel else None,
        "agent_ms": agent.json(),
        "median_agent_ms": middle.json(),
        "missing": missing,
    }
    if size == max(_SIZES) and plane == "XDP":
        report.most(f"{plane}, {size}: in every kernel, ms", kernel.median if kernel else 1e9, KERNEL_GOAL * 1e3)
        report.most(f"{plane}, {size}: in every agent, ms", agent.median, AGENT_GOAL * 1e3)


class _Times:
    """Milliseconds from the request, of each host reached."""

    def __init__(self) -> None:
        self.kernels: list[float] = []
        self.agents: list[float] = []


def _publish(hosts: Sequence[Agent], pins: Sequence[Pins], number: int) -> _Times:
    time.sleep(_PAUSE + random.uniform(0, 0.5))
    chosen = random.randrange(len(hosts))
    publisher = hosts[chosen]
    others = [pin for index, pin in enumerate(pins) if index != chosen]
    before = [pin.node(publisher.address) for pin in others]
    times = _Times()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(publisher.socket))
        body = str(number).encode()
        head = f"PUT /v1/documents/bench HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.monotonic_ns()
        connection.sendall(head.encode() + body)
        _watch(others, before, publisher, began, times)
        answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200") and not answer.startswith(b"HTTP/1.1 201"):
        raise BenchError(f"{publisher.name}: expected it to publish, got {answer[:200]!r}")
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        arrived = [host.arrivals().get(number) for host in hosts]
        if None not in arrived:
            break
        time.sleep(0.05)
    times.agents = [(when - began) / 1e6 for when in arrived if when is not None]
    return times


def _watch(
    pins: Sequence[Pins],
    before: Sequence[tuple[int, int, int] | None],
    publisher: Agent,
    began: int,
    times: _Times,
) -> None:
    """Look at the maps until each shows the publisher's new digest; its ``last_seen`` then is the kernel's time."""
    waiting = dict(enumerate(pins))
    deadline = time.monotonic() + 1.0
    while waiting and time.monotonic() < deadline:
        time.sleep(_LOOK)
        for index, pin in list(waiting.items()):
            now, old = pin.node(publisher.address), before[index]
            if now is not None and (old is None or now[2] != old[2]) and now[1] >= began:
                times.kernels.append((now[1] - began) / 1e6)
                del waiting[index]
