# SPDX-License-Identifier: MIT
"""Measures the cost of a packet in the data plane, as a ratio to the cost in XDP programs that drop or copy every
packet.

The generator, the link and the program under test share one pinned processor, so the measured packets per second
include the work of all three. Each case runs once in every round, and the benchmark computes each ratio from two rates
of the same round. The frames are the same heartbeats in all cases, except that forged heartbeats have a wrong MAC, and
that heartbeats which the data plane must not relay have the ttl 0. The packets of maximum length have a wrong MAC, so
the data plane drops them after the check of the MAC. The cases with packets of maximum length show the cost of checking
the MAC of a long body.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import lane, packets, programs
from .netns import BenchError, inside, link
from .plane import Plane
from .programs import Generator
from .report import Report, Spread, sound

#: Number of origins, large enough that no origin exceeds its rate limit (XG_RUMOR_LIMIT) within a pass.
ORIGINS = 1000
FRAMES = 1 << 17
#: Number of packets of maximum length in a pass.
LONG_FRAMES = 1 << 15
_ROUNDS, _PASSES = 5, 4
#: Goals for each case: the minimum ratio of the case's rate to the rate of XDP_DROP, and to the rate of the bare twin
#: (a program without the protocol).
_GOALS = {
    "XDP: duplicate": (0.6, 0.0),
    "XDP: new heartbeat, recorded": (0.3, 0.0),
    "XDP: forged": (0.35, 0.0),
    "XDP: new heartbeat, relayed to 4": (0.0, 0.6),
}


#: Names of the cases in which a program drops every frame: the first with heartbeats, the second with packets of
#: maximum length.
DROP, DROP_LONG = "XDP_DROP", "XDP_DROP, longest"
#: Prefix of the names of cases with the programs of the option --former.
FORMER = "former "
#: Goal: minimum ratio of a case's rate to the rate of the same case with the programs of the option --former. Two runs
#: with the same programs usually differ by less than 3 %, so they meet the goal.
_NO_SLOWER = 0.97


@dataclass(frozen=True)
class Case:
    """One case of the benchmark, which is one row of the report's table.

    ``prepare``: a function that the benchmark calls before each pass, without timing it. ``handled``: a function that
    returns how many frames have had the expected verdict so far. ``copies``: expected number of copies of each frame.
    ``twin``: name of the bare case (a program without the protocol) with which the benchmark compares this case.
    """

    name: str
    generator: Generator
    attached: Callable[[], contextlib.AbstractContextManager[None]]
    prepare: Callable[[], None]
    handled: Callable[[], int]
    copies: int = 0
    twin: str = ""


def run(quick: bool, former: Path | None = None) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs.

    ``former``: directory with the sources (``bpf/``) of an earlier data plane with the same wire format and maps. If
    ``former`` is set, the benchmark also measures the earlier data plane. Raises ``BenchError``.
    """
    rounds, passes = (1, 1) if quick else (_ROUNDS, _PASSES)
    cpu = max(os.sched_getaffinity(0))
    with lane.lane():
        cases = [*_bare(), *_product()]
        if former is not None:
            cases += _product(former.resolve(), FORMER)
        rates: dict[str, list[float]] = {case.name: [] for case in cases}
        with lane.pinned(cpu):
            for _ in range(rounds):
                for case in cases:
                    rates[case.name].append(_measure(case, passes))
    return _report(cases, rates, rounds, passes)


def _measure(case: Case, passes: int) -> float:
    """Make ``passes`` passes of a case, and return the packets per second."""
    seconds, handled = 0.0, 0
    with case.attached():
        case.generator.rewind()
        for _ in range(passes):
            case.prepare()
            found = lane.burst(case.generator, case.generator.count, case.handled)
            if found.handled < sound() * case.generator.count:
                wanted = f"{case.name}: expected its verdict for {case.generator.count} frames"
                raise BenchError(f"{wanted}, got it for {found.handled}")
            if found.copies < sound() * case.copies * found.handled:
                raise BenchError(
                    f"{case.name}: expected {case.copies} copies of {found.handled} frames, got {found.copies} in all"
                )
            seconds += found.seconds
            handled += found.handled
    return handled / seconds


def _nothing() -> None:
    pass


def _through_stack() -> int:
    """Number of frames that the network stack received at the node's end of the link."""
    return int(link(lane.NODE, lane.INSIDE)["stats64"]["rx"]["packets"])


class _Frames:
    """The generators of the frames for all cases."""

    def __init__(self) -> None:
        framer = lane.framer()
        genuine = list(packets.heartbeats(ORIGINS, FRAMES))
        self.genuine = _generator([framer.frame(packet) for packet in genuine])
        last = [packet[:80] + b"\0" + packet[81:] for packet in genuine]
        self.last_hop = _generator([framer.frame(packet) for packet in last])
        self.forged = _generator([framer.frame(packets.forged(p, n)) for n, p in enumerate(genuine)])
        long = packets.documents(ORIGINS, LONG_FRAMES)
        self.forged_long = _generator([framer.frame(packets.forged(p, n)) for n, p in enumerate(long)])


def _generator(frames: list[bytes]) -> Generator:
    return Generator(lane.GENERATOR, lane.OUTSIDE, frames)


_frames: _Frames | None = None


def frames() -> _Frames:
    """Return the frame generators, which the first call of this function creates."""
    global _frames
    if _frames is None:
        _frames = _Frames()
    return _frames


def _bare() -> list[Case]:
    """The bare cases: programs without the protocol, which drop or copy every frame."""
    load = frames().genuine
    module = programs.compile_source(programs.HERE / "baseline.c", {})
    hop = lane.PEER_MAC + lane.LOCAL_MAC
    with inside(lane.NODE):
        interface = programs.index_of(lane.INSIDE)
    source = ipaddress.IPv4Address(lane.LOCAL.ip).packed
    for number in range(256):
        target = packets.origin(number % ORIGINS)
        value = hop + ipaddress.IPv4Address(target.ip).packed + source + target.port.to_bytes(2, "big") + bytes(2)
        programs.write(module["targets"], struct.pack("=I", number), value)
    readdress = programs.load(module, "readdress", "XDP", programs.DEVMAP)

    def spreading(count: int, kind: str) -> Callable[[], None]:
        def prepare() -> None:
            if kind == "TC":
                programs.write(module["settings"], struct.pack("=I", 0), struct.pack("=I", interface))
                programs.write(module["settings"], struct.pack("=I", 1), struct.pack("=I", count))
                return
            with inside(lane.NODE):
                programs.set_devmap(module["copies"], [(interface, readdress.fd)] * count)

        return prepare

    drop, spread = programs.load(module, "drop", "XDP"), programs.load(module, "spread", "XDP")
    drop_tc = programs.load(module, "drop_tc", "SCHED_CLS")
    spread_tc = programs.load(module, "spread_tc", "SCHED_CLS")

    def at(function: Any, kind: int = programs.XDP) -> Callable[[], contextlib.AbstractContextManager[None]]:
        return lambda: programs.attached(function, lane.NODE, lane.INSIDE, kind)

    tc = programs.TC_INGRESS
    return [
        Case(DROP, load, at(drop), _nothing, lane.received),
        Case(DROP_LONG, frames().forged_long, at(drop), _nothing, lane.received),
        Case("bare XDP broadcast to 3", load, at(spread), spreading(3, "XDP"), lane.received, 3),
        Case("bare XDP broadcast to 4", load, at(spread), spreading(4, "XDP"), lane.received, 4),
        Case("TC drop", load, at(drop_tc, tc), _nothing, _through_stack),
        Case("TC drop, longest", frames().forged_long, at(drop_tc, tc), _nothing, _through_stack),
        Case("bare TC clones to 4", load, at(spread_tc, tc), spreading(4, "TC"), _through_stack, 4),
    ]


def _product(sources: Path = programs.BPF_SOURCES, prefix: str = "") -> list[Case]:
    """The cases that run the data plane compiled from ``sources``, in XDP and in TC.

    ``prefix``: prefix of the names of these cases.
    """
    found = []
    members = [packets.origin(number) for number in range(ORIGINS)]
    for way, tc in (("XDP", False), ("TC", True)):
        planes = {amount: Plane(amount, members, tc, sources) for amount in ((4,) if tc else (3, 4))}
        found += _verdicts(way, planes[4])
        for amount, plane in planes.items():
            twin = "bare TC clones to 4" if tc else f"bare XDP broadcast to {amount}"
            name = f"{way}: new heartbeat, relayed to {amount}"
            found.append(Case(name, frames().genuine, _at(plane), _fresh(plane), _count(plane, "relay"), amount, twin))
    return [replace(case, name=prefix + case.name) for case in found]


def _verdicts(way: str, plane: Plane) -> list[Case]:
    """The cases with packets that the data plane does not relay."""
    twin, long_twin = ("TC drop", "TC drop, longest") if way == "TC" else ("", DROP_LONG)
    load = frames()

    def seen() -> None:
        """Set the replay window of every origin so that all frames count as duplicates."""
        plane.admit(ORIGINS, highest=1 << 40)

    duplicates, taken = _count(plane, "drop_duplicate"), _count(plane, "take_heartbeat")
    bad = _count(plane, "drop_bad_mac")
    return [
        Case(f"{way}: duplicate", load.genuine, _at(plane), seen, duplicates, 0, twin),
        Case(f"{way}: new heartbeat, recorded", load.last_hop, _at(plane), _fresh(plane), taken, 0, twin),
        Case(f"{way}: forged", load.forged, _at(plane), _fresh(plane), bad, 0, twin),
        Case(f"{way}: forged, longest", load.forged_long, _at(plane), _fresh(plane), bad, 0, long_twin),
    ]


def _at(plane: Plane) -> Callable[[], contextlib.AbstractContextManager[None]]:
    return lambda: programs.attached(plane.ingress, lane.NODE, lane.INSIDE, plane.kind)


def _fresh(plane: Plane) -> Callable[[], None]:
    return lambda: plane.admit(ORIGINS)


def _count(plane: Plane, name: str) -> Callable[[], int]:
    return lambda: plane.counters()[name]


def _report(cases: list[Case], rates: dict[str, list[float]], rounds: int, passes: int) -> Report:
    report = Report(
        "dataplane",
        f"packets of {ORIGINS} origins through one pinned core, generator and link included; "
        f"median [least..most] of {rounds} rounds, {passes * FRAMES:,} packets each, of the longest "
        f"{passes * LONG_FRAMES:,}",
        ("case", "packets/s", "ns each", "of XDP_DROP", "of its bare twin"),
    )
    base = rates[DROP]
    for case in cases:
        own = Spread.of(rates[case.name])
        ratio = Spread.of([rate / empty for rate, empty in zip(rates[case.name], base)])
        twin = Spread.of([rate / other for rate, other in zip(rates[case.name], rates[case.twin or case.name])])
        report.rows.append(
            (
                case.name,
                own.text(),
                f"{1e9 / own.median:.0f}",
                ratio.text(".2f"),
                twin.text(".2f") if case.twin else "",
            )
        )
        figures = {"rate": own.json(), "to_drop": ratio.json(), "to_twin": twin.json() if case.twin else None}
        report.data.setdefault("cases", {})[case.name] = figures
        if FORMER + case.name in rates:
            beside = Spread.of([rate / other for rate, other in zip(rates[case.name], rates[FORMER + case.name])])
            figures["to_former"] = beside.json()
            report.least(f"{case.name}, of the former", beside.median, _NO_SLOWER)
        to_drop, to_twin = _GOALS.get(case.name, (0.0, 0.0))
        if to_drop:
            report.least(f"{case.name}, of XDP_DROP", ratio.median, to_drop)
        if to_twin:
            report.least(f"{case.name}, of {case.twin}", twin.median, to_twin)
    return report
