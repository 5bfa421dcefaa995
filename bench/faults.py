# SPDX-License-Identifier: MIT
"""Compares the removal of faulty members by this project's agents and by HashiCorp Serf, under the same faults.

On each host runs one agent of each system, at the same time, so both systems meet the same fault at the same moment and
on an equally busy machine. If the systems ran one after the other, the work of other processes on the machine could
hurt one system and spare the other. Both systems run with their default settings. Each fault starts with new agents,
so that no fault influences the figures of the next.

A healthy member is *removed* as soon as one other healthy member no longer counts it as present. The views are recorded
from the agents' event streams (:mod:`.views`). At the end of each fault, the benchmark compares the recorded view of
each healthy member with the member list that the agent reports.

Without the program ``serf``, the benchmark measures this project's agents only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tests.support.patience import patient

from . import agents, impair, plots, serf
from .agents import Agent
from .fleet import address_of
from .impair import Hub
from .netns import BenchError
from .netns import run as command
from .report import DIRECTORY, SHORT, Report
from .views import Lines, Removal, Views, Watcher, incomplete, removal

#: What --plane accepts -> name of the mode in the agent's status, protocol in its configuration, MTU of the links,
#: whether VLAN tags may lie beside the frame. A veth takes native XDP up to an MTU of about 3,500 bytes.
PLANES = {
    "udp": ("UDP", "UDP", 1500, True),
    "tc": ("TC", "TC", 1500, True),
    "xdp-generic": ("XDP (generic)", "XDP", 9000, False),
    "xdp-native": ("XDP (native)", "XDP", 1500, True),
}
_SIZES, _PLANES = (5, 10, 20), ("udp", "xdp-native")
_QUICK_SIZES, _QUICK_PLANES = (5,), ("udp",)
_SHORT_SIZES = (3,)
#: Maximum seconds for the start of all agents, and until a reported member list equals the recorded view.
_START, _AGREE = 120.0, 15.0
#: What a goal compares if the members never removed the faulty ones, in seconds. JSON has no infinity.
_NEVER = 1e9
SERF = "Serf"
#: The design of the agents' observers: K observers of each member, seconds between two probes, and the number of
#: missing answers and the number of probes in the window that decide.
_OBSERVERS, _PROBE_INTERVAL, _MISSED, _WINDOW = 10, 1.0, 4, 10
#: memberlist's configuration DefaultLANConfig: ProbeInterval in seconds, and SuspicionMult.
_SERF_INTERVAL, _SERF_SUSPICION = 1.0, 4


@dataclass(frozen=True)
class Plan:
    """How long each fault lasts, in seconds.

    ``rest``: the measurement at rest. ``limit``: maximum wait until crashed members are removed. ``switch``,
    ``rounds``: a one-way loss lasts ``switch`` and stops for ``switch``, ``rounds`` times. ``lossy``: 80 % loss and the
    blocked pair. ``frozen``: the stopped process. ``starved``: the busy processor. ``after``: the time for which views
    are recorded after the fault. ``settle``: the time for which all views are complete before the fault. ``loops``,
    ``nice``: number and nice value of the busy loops. ``fresh``: start new agents for each fault.
    """

    rest: float = 60.0
    limit: float = 60.0
    switch: float = 20.0
    rounds: int = 3
    lossy: float = 60.0
    frozen: float = 30.0
    starved: float = 45.0
    after: float = 15.0
    settle: float = 5.0
    loops: int = 4 * (os.cpu_count() or 1)
    nice: int = 0
    fresh: bool = True


_QUICK = Plan(rest=15, rounds=1, lossy=30, starved=15, after=10)
#: Too short to notice a fault: this plan only shows that the benchmark works. Its busy loop leaves the machine to
#: others.
_SHORT = Plan(1.5, 7, 1, 1, 1.5, 1.5, 1, 0.5, 0.5, loops=1, nice=19, fresh=False)


class Member(Protocol):
    """One agent of a system."""

    number: int

    @property
    def pid(self) -> int:
        """Process id of the agent."""

    @property
    def running(self) -> bool:
        """Whether the process exists."""

    def launch(self) -> None:
        """Start the agent."""

    def attach(self, watcher: Watcher, views: Views) -> None:
        """Record the agent's view in ``views``, from the agent's start on."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent, if it runs."""

    def end(self) -> None:
        """Kill the agent."""

    def present(self) -> set[int]:
        """Ask the agent which other members it counts as present."""


class GossipAgent:
    """One agent of this project."""

    def __init__(self, agent: Agent, number: int, mode: str) -> None:
        self.agent, self.number, self._mode = agent, number, mode

    @property
    def pid(self) -> int:
        """Process id of the agent."""
        return self.agent.pid

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self.agent.running

    def launch(self) -> None:
        """Start the agent without the state of an earlier run."""
        shutil.rmtree(self.agent.state_dir, ignore_errors=True)
        self.agent.launch()

    def attach(self, watcher: Watcher, views: Views) -> None:
        """Wait until the agent serves its API, and record the agent's view from the event stream of its API.

        Raises :class:`BenchError` if the agent does not serve, or runs in another mode than the expected one.
        """
        self.agent.wait_ready(patient(_START))
        mode = self.agent.status()["mode"]
        if mode != self._mode:
            raise BenchError(f"{self.agent.name}: expected the mode {self._mode}, got {mode}")
        listed = self.agent.call("GET", "/v1/nodes")
        for number in self._present_in(listed):
            views.record(time.monotonic(), self.number, number, True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self.agent.socket))
            # HTTP/1.0 has no chunks, so that the stream consists of lines.
            path = f"/v1/watch?kind=node&since={listed['revision']}"
            head = (f"GET {path} HTTP/1.0", "Host: bench", "Accept: text/event-stream")
            connection.sendall("\r\n".join((*head, "", "")).encode())
            watcher.add(connection.fileno(), views, self.number, Lines(parse))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent, if it runs."""
        self.agent.signal(number)

    def end(self) -> None:
        """Kill the agent. Raises :class:`BenchError` if its log contains internal errors."""
        self.agent.end()
        self.agent.expect_no_internal_errors()

    def present(self) -> set[int]:
        """Ask the agent which other members are alive or suspect."""
        return self._present_in(self.agent.call("GET", "/v1/nodes"))

    def _present_in(self, listed: dict[str, Any]) -> set[int]:
        return {_NUMBERS[node["addr"]] for node in listed["nodes"] if node["state"] in _PRESENT} - {self.number}


_PRESENT = ("alive", "suspect")
_NUMBERS = {address_of(number).ip: number for number in range(2048)}


def parse(line: bytes) -> Iterator[tuple[int, bool]]:
    """Yield the change of a member's presence in one line of an agent's event stream.

    Raises ``ValueError`` if the agent reports that the stream lost changes.
    """
    if line.startswith(b"event: resync"):
        raise ValueError("the event stream lost changes")
    if line.startswith(b"data: ") and b'"node"' in line:
        change = json.loads(line[len(b"data: ") :])
        if node := change.get("node"):
            yield _NUMBERS[node["addr"]], node["state"] in _PRESENT


@dataclass
class System:
    """All agents of one system. ``counters``: name of the system's counter in :meth:`Hub.sent`."""

    name: str
    counter: str
    members: Sequence[Member]
    views: Views


@dataclass
class Scene:
    """What the script of a fault works with.

    ``faulty``: the members that the script makes faulty. ``since``: the time of the fault's start.
    """

    plan: Plan
    hub: Hub
    systems: Sequence[System]
    faulty: Sequence[int]
    since: float = math.inf

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all agents on the faulty hosts."""
        for system in self.systems:
            for member in self.faulty:
                system.members[member].signal(number)

    def removal(self, system: System) -> Removal:
        """The figures of a system so far."""
        return removal(list(system.views.changes), len(system.members), self.faulty, self.since)


def _crash(scene: Scene) -> None:
    for number in scene.faulty:
        scene.hub.cut(number)
    scene.signal(signal.SIGKILL)
    deadline = time.monotonic() + scene.plan.limit
    while time.monotonic() < deadline and any(scene.removal(system).last is None for system in scene.systems):
        time.sleep(0.2)


def _come_and_go(scene: Scene, rules: Sequence[str]) -> None:
    for _ in range(scene.plan.rounds):
        scene.hub.lose(*rules)
        time.sleep(scene.plan.switch)
        scene.hub.lose()
        time.sleep(scene.plan.switch)


def _deaf(scene: Scene) -> None:
    _come_and_go(scene, [impair.incoming(number) for number in scene.faulty])


def _mute(scene: Scene) -> None:
    _come_and_go(scene, [impair.outgoing(number) for number in scene.faulty])


def _lossy(scene: Scene) -> None:
    scene.hub.lose(*(impair.outgoing(number, 80) for number in scene.faulty))
    time.sleep(scene.plan.lossy)
    scene.hub.lose()


def _blocked(scene: Scene) -> None:
    count = len(scene.systems[0].members)
    scene.hub.lose(*impair.between(count - 2, count - 1))
    time.sleep(scene.plan.lossy)
    scene.hub.lose()


def _frozen(scene: Scene) -> None:
    scene.signal(signal.SIGSTOP)
    try:
        time.sleep(scene.plan.frozen)
    finally:
        scene.signal(signal.SIGCONT)


def _starved(scene: Scene) -> None:
    with impair.busy(scene.plan.loops, scene.plan.nice):
        time.sleep(scene.plan.starved)


def _rest(scene: Scene) -> None:
    time.sleep(scene.plan.rest)


@dataclass(frozen=True)
class Fault:
    """One fault. ``faulty``: the number of faulty members among so many hosts. ``run``: the script."""

    name: str
    faulty: Callable[[int], int]
    run: Callable[[Scene], None]


def _none(hosts: int) -> int:
    return 0


def _one(hosts: int) -> int:
    return 1


def _several(hosts: int) -> int:
    """A tenth of the hosts, but at least two if the others are a majority."""
    return min(max(2, hosts // 10), (hosts - 1) // 2)


def _some(hosts: int) -> int:
    return max(1, hosts // 10)


REST, CRASH = "at rest", "several crash at once"
#: The crash is the last fault, because its hosts are cut off.
FAULTS = (
    Fault(REST, _none, _rest),
    Fault("one host receives nothing, on and off", _one, _deaf),
    Fault("one host sends nothing, on and off", _one, _mute),
    Fault("80 % loss out of some hosts", _some, _lossy),
    Fault("a blocked pair", _none, _blocked),
    Fault("a frozen process", _one, _frozen),
    Fault("a starved processor", _none, _starved),
    Fault(CRASH, _several, _crash),
)


def run(quick: bool, hosts: Sequence[int] = (), planes: Sequence[str] = ()) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``.

    ``hosts``: numbers of hosts to measure with. ``planes``: data planes of the agents, from :data:`PLANES`.
    """
    short = bool(os.environ.get(SHORT))
    plan = _SHORT if short else _QUICK if quick else Plan()
    sizes = hosts or (_SHORT_SIZES if short else _QUICK_SIZES if quick else _SIZES)
    program = serf.binary()
    if program is None:
        print("faults: this machine has no program serf: measuring only this project's agents", file=sys.stderr)
    report = Report(
        "faults",
        f"members removed under the same faults; one-way loss on and off for {plan.switch:g} s, {plan.rounds} times; "
        f"a process stopped for {plan.frozen:g} s; {plan.loops} busy loops",
        (
            *("plane, n: fault", "system", "removed by first, s", "by last, s", "in views"),
            *("healthy removed", "in views", "flaps", "packets/s", "probes/s", "s/min"),
        ),
    )
    report.data["plan"] = plan.__dict__
    # The program of Debian's package 0.9.4 reports 0.8.2-dev.
    report.data["serf"] = command(program, "version").splitlines()[0] if program else None
    problems = []
    for plane in planes or (_QUICK_PLANES if quick else _PLANES):
        for size in sizes:
            try:
                _measure(report, plan, plane, size, program)
            except BenchError as error:
                problems.append(f"{plane}, {size}: {error}")
                print(f"faults: {problems[-1]}", file=sys.stderr, flush=True)
    if not report.rows:
        raise BenchError("; ".join(problems))
    report.data["problems"] = problems
    report.data["theory"] = {name: {size: formula(size) for size in sizes} for name, formula in THEORY.items()}
    _judge(report)
    for path in _write(report):
        print(f"written: {path}")
    if problems and short:
        raise BenchError("; ".join(problems))
    return report


def _measure(report: Report, plan: Plan, plane: str, size: int, program: str | None) -> None:
    """Run all faults with ``size`` hosts, and add the figures to ``report``."""
    mode, _, mtu, tags = PLANES[plane]
    with agents.workspace(impair.PREFIX) as base, impair.hosts(size, mtu, tags) as hub, contextlib.ExitStack() as stack:
        watcher = Watcher()
        stack.callback(watcher.close)
        systems = _systems(base, plane, size, program)
        for system in systems:
            for member in system.members:
                stack.callback(member.end)
        for member in systems[0].members:
            assert isinstance(member, GossipAgent)
            member.agent.bring_plane_up()
        for order, fault in enumerate(FAULTS):
            if order == 0 or plan.fresh:
                _start(watcher, hub, systems)
            # The seeds, hosts 0 and 1, are faulty only if there are no other hosts left.
            rest = list(range(size))
            random.Random(order).shuffle(rest)
            rest.sort(key=lambda number: number < 2)
            scene = Scene(plan, hub, systems, rest[: fault.faulty(size)])
            _play(report, scene, plane, fault)
    print(f"faults: {mode}, {size} hosts: done", file=sys.stderr, flush=True)


def _systems(base: Path, plane: str, size: int, program: str | None) -> list[System]:
    mode, protocol, _, _ = PLANES[plane]
    ours: list[Member] = []
    theirs: list[Member] = []
    addresses = [address_of(number) for number in range(size)]
    for number, address in enumerate(addresses):
        seeds = [str(seed) for seed in addresses[:2]]
        agent = Agent(base, f"host{number}", impair.host(number), "eth0", address, protocol, seeds=seeds)
        ours.append(GossipAgent(agent, number, mode))
        if program is not None:
            ips = [seed.ip for seed in addresses[:2]]
            theirs.append(serf.SerfAgent(program, impair.host(number), number, address.ip, ips))
    systems = [System("XDP Gossip", "gossip", ours, Views())]
    return [*systems, System(SERF, "serf", theirs, Views())] if theirs else systems


def _start(watcher: Watcher, hub: Hub, systems: Sequence[System]) -> None:
    """Start new agents of all systems on intact hosts, and wait until each agent counts all others as present."""
    watcher.clear()
    hub.lose()
    for system in systems:
        system.views.forget()
        for member in system.members:
            member.end()
            hub.join(member.number)
    for system in systems:
        for member in system.members:
            member.launch()
    for system in systems:
        for member in system.members:
            member.attach(watcher, system.views)


def _whole(system: System) -> str | None:
    """Say what is missing until all members count each other as present; None if nothing is missing."""
    if system.views.problems:
        number, problem = next(iter(system.views.problems.items()))
        raise BenchError(f"{system.name}, host{number}: {problem}")
    missing = incomplete(system.views, range(len(system.members)))
    return f"{system.name}: {missing}" if missing else None


def _settle(systems: Sequence[System], seconds: float) -> None:
    """Wait until all views have been complete for ``seconds``. Raises :class:`BenchError` if this takes too long."""
    deadline = time.monotonic() + patient(_START)
    since: float | None = None
    while since is None or time.monotonic() - since < seconds:
        missing = next((text for system in systems if (text := _whole(system))), None)
        since = None if missing else since or time.monotonic()
        if time.monotonic() > deadline:
            raise BenchError(f"expected all views complete for {seconds:g} s: {missing or 'they changed again'}")
        time.sleep(0.1)


def _play(report: Report, scene: Scene, plane: str, fault: Fault) -> None:
    """Run the script of a fault, and add a row for each system to ``report``."""
    _settle(scene.systems, scene.plan.settle)
    began, before, used = time.monotonic(), scene.hub.sent(), [_run_time(system) for system in scene.systems]
    scene.since = began
    fault.run(scene)
    took, after = time.monotonic() - began, scene.hub.sent()
    now = [_run_time(system) for system in scene.systems] if fault.name == REST else used
    time.sleep(scene.plan.after)
    for number, system in enumerate(scene.systems):
        _expect_recorded(scene, system)
        found = scene.removal(system)
        size = len(system.members)
        run: dict[str, Any] = {"plane": plane, "n": size, "fault": fault.name, "system": system.name}
        run |= {"faulty": len(scene.faulty), **found.__dict__}
        if fault.name == REST:
            run["packets"] = (after[system.counter] - before[system.counter]) / took / size
            if system.counter == "gossip":
                run["probes"] = (after["edges"] - before["edges"]) / took / size
            run["processor"] = (now[number] - used[number]) / 1e9 / took * 60 / size
        report.data.setdefault("runs", []).append(run)
        report.rows.append(_cells(run))


def _run_time(system: System) -> int:
    return sum(agents.run_time(member.pid) for member in system.members if member.running)


def _expect_recorded(scene: Scene, system: System) -> None:
    """Raise :class:`BenchError` if a healthy member ended, or reports another member list than the recorded view."""
    for member in system.members:
        if member.number in scene.faulty:
            continue
        if not member.running:
            raise BenchError(f"{system.name}, host{member.number}: expected the agent to run, but it has ended")
        if problem := system.views.problems.get(member.number):
            raise BenchError(f"{system.name}, host{member.number}: {problem}")

        def differs(member: Member = member) -> str | None:
            listed, recorded = member.present(), system.views.present(member.number)
            if listed == recorded:
                return None
            return f"{system.name}, host{member.number} lists {sorted(listed)}, recorded were {sorted(recorded)}"

        agents.until(differs, patient(_AGREE))


def _cells(run: dict[str, Any]) -> tuple[str, ...]:
    def number(name: str, form: str) -> str:
        return "" if run.get(name) is None else f"{run[name]:{form}}"

    faulty = bool(run["faulty"])
    return (
        f"{PLANES[run['plane']][0]}, {run['n']}: {run['fault']}",
        run["system"],
        (number("first", ".1f") or "never") if faulty else "",
        (number("last", ".1f") or "never") if faulty else "",
        f"{run['removed_in']} of {run['views']}" if faulty else "",
        *(str(run[name]) for name in ("healthy_removed", "healthy_views", "flaps")),
        *(number(name, form) for name, form in (("packets", ".1f"), ("probes", ".1f"), ("processor", ".3f"))),
    )


def _judge(report: Report) -> None:
    """Add the goals: no more healthy members removed than by Serf, and a crash not noticed later than by Serf."""
    runs = report.data["runs"]
    theirs = {(run["plane"], run["n"], run["fault"]): run for run in runs if run["system"] == SERF}
    for run in runs:
        other = theirs.get((run["plane"], run["n"], run["fault"]))
        if other is None or run is other:
            continue
        name = f"{PLANES[run['plane']][0]}, {run['n']}: {run['fault']}"
        report.most(f"{name}: healthy members removed", run["healthy_removed"], other["healthy_removed"])
        if run["fault"] == CRASH and other["last"] is not None:
            got = _NEVER if run["last"] is None else run["last"]
            report.most(f"{name}: removed by all after, s", got, other["last"])


def observers_packets(hosts: int) -> float:
    """Design: the most packets that the observers of one member and this member as an observer send each second.

    A member sends one probe to each of min(K, hosts - 1) subjects, one answer to each of as many observers, and two
    other packets of detection.
    """
    return 2 * min(_OBSERVERS, hosts - 1) / _PROBE_INTERVAL + 2


def serf_packets(hosts: int) -> float:
    """SWIM (Das, Gupta, Motivala 2002): one probe and, on average, one answer in each probe interval."""
    return 2 / _SERF_INTERVAL


def serf_detection(hosts: int) -> float:
    """Mean seconds until the first Serf agent declares a crashed member dead, without the time for its spread.

    SWIM's mean until the first probe of the crashed member, e/(e-1) intervals, and memberlist's shortest suspicion,
    SuspicionMult x max(1, log10(hosts)) intervals.
    """
    suspicion = _SERF_SUSPICION * max(1.0, math.log10(hosts))
    return (math.e / (math.e - 1) + suspicion) * _SERF_INTERVAL


def design_earliest(hosts: int) -> float:
    """Design: seconds until an observer's window can have a verdict, if it was full of answers before the crash."""
    return _MISSED * _PROBE_INTERVAL


def design_latest(hosts: int) -> float:
    """Design: seconds until an observer's window contains no answer from before the crash."""
    return _WINDOW * _PROBE_INTERVAL


#: What the charts draw as theory, and the JSON file contains: name -> formula.
THEORY: dict[str, Callable[[int], float]] = {
    "earliest_verdict_s": design_earliest,
    "latest_verdict_s": design_latest,
    "serf_first_s": serf_detection,
    "observers_packets_per_s": observers_packets,
    "serf_packets_per_s": serf_packets,
}


def charts(runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The charts of ``runs`` against the number of hosts: name -> SVG document. A chart without a point is left out.

    Lines of this project's agents have the names of their modes.
    """
    most = max(int(run["n"]) for run in runs)

    def measured(fault: str, key: str) -> list[plots.Line]:
        found: dict[str, dict[int, list[float]]] = {}
        for run in runs:
            if run["fault"] == fault and run.get(key) is not None:
                name = SERF if run["system"] == SERF else PLANES[run["plane"]][0]
                found.setdefault(name, {}).setdefault(run["n"], []).append(run[key])
        # Serf ran once beside each plane.
        return [
            plots.Line(name, [(size, sum(values) / len(values)) for size, values in by_size.items()])
            for name, by_size in sorted(found.items())
        ]

    def theory(name: str, formula: Callable[[int], float]) -> plots.Line:
        return plots.Line(name, [(size, formula(size)) for size in range(2, most + 1)], theory=True)

    detection = [
        theory("design: earliest verdict", design_earliest),
        theory("design: latest verdict", design_latest),
        theory("Serf: first, mean", serf_detection),
    ]
    packets = [theory("design: detection", observers_packets), theory("Serf: probes", serf_packets)]
    probes = [replace(line, name=f"{line.name}, probes") for line in measured(REST, "probes")]
    hosts, rest = "hosts", "at rest"
    wanted = {
        "detection": ("Time until all have removed crashed members", "seconds", measured(CRASH, "last"), detection),
        "packets": (f"Packets {rest}", "packets/s sent by a member", [*measured(REST, "packets"), *probes], packets),
        "processor": (f"Processor {rest}", "processor s/min and agent", measured(REST, "processor"), []),
    }
    return {
        name: plots.chart(title, hosts, y, [*lines, *computed])
        for name, (title, y, lines, computed) in wanted.items()
        if lines
    }


def _write(report: Report) -> list[Path]:
    """Write the table as Markdown, and the charts as SVG, beside the benchmark's JSON file. Returns the paths."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    texts = {"faults.md": report.markdown()}
    texts |= {f"faults-{name}.svg": text for name, text in charts(report.data["runs"]).items()}
    for name, text in texts.items():
        (DIRECTORY / name).write_text(text)
    return [DIRECTORY / name for name in texts]
