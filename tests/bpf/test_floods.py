# SPDX-License-Identifier: MIT
"""What one sender can cost: recordings of direct packets, floods of them and of rumors, frames that are odd."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import TC_NEXT, TC_SHOT, XDP_DROP, XDP_PASS, Plane, inside, skb
from tests.bpf.scene import TC, XDP, known, local, origin, packet, source
from tests.bpf.test_frames import CASES, ODD, Case
from tests.bpf.wire import NAMESPACE
from tests.kernel_model import GONE
from xdp_gossip.core.packets import PacketType
from xdp_gossip.dataplane import headers, layout

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF"),
    pytest.mark.usefixtures("link"),
]
PROGRAMS = pytest.mark.parametrize("program", [XDP, TC])
DIRECT = [PacketType.SWAP_REQUEST, PacketType.SWAP_RESPONSE, PacketType.PROBE]
LIMITS = headers.constants()
#: Of time as the programs count it: one that is not over while a test runs.
LATER = (time.monotonic_ns() >> LIMITS["XG_SLOT_BITS"]) + 100_000


def verdict(plane: Plane, program: str, data: bytes, family: int = 4) -> Mapping[str, int]:
    """What one packet came to; a packet that is passed on is what it was, one that is dropped is gone."""
    ran = scene.deliver(plane, program, data, family)
    counted = plane.counted()
    passed = any(name.startswith("pass_") for name in counted)
    assert ran.value == {XDP: (XDP_DROP, XDP_PASS), TC: (TC_SHOT, TC_NEXT)}[program][passed]
    assert not plane.events()
    return counted


def repeat(plane: Plane, program: str, frame: bytes) -> None:
    """Let a program take a frame 100,000 times over."""
    with inside(NAMESPACE):
        plane.run(program, frame, skb(0) if program == TC else b"", 100_000)


def allowed_since(began: int) -> int:
    """How many packets may have asked, or been odd: each slot of time, the first and this one included, on each CPU."""
    slots = ((time.monotonic_ns() - began) >> LIMITS["XG_SLOT_BITS"]) + 2
    return slots * len(os.sched_getaffinity(0)) * LIMITS["XG_ASK_LIMIT"]


@PROGRAMS
@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("family", [4, 6])
def test_a_recording_of_a_direct_packet_does_not_come_up(
    plane: Plane, program: str, kind: PacketType, family: int
) -> None:
    plane.reset(scene.config(family))
    data = packet(family, kind, sequence=500)
    assert verdict(plane, program, data, family) == {"pass_direct": 1}
    for _ in range(3):
        assert verdict(plane, program, data, family) == {"drop_replayed": 1}
    assert plane.refusals(), "who sends them can be told"


@PROGRAMS
def test_direct_packets_may_come_late_and_jump(plane: Plane, program: str) -> None:
    """The agent's own window is 1,024 wide (docs/protocol.md): the kernel's must not be narrower."""
    plane.reset(scene.config(4))
    seen: set[int] = set()
    for sequence in (1, 3, 2, 64, 63, 65, 5000, 5000 - 1984, 4999, 5000 - 1024, 2**33, 2**33 - 1900, 2**64 - 1):
        data = packet(4, PacketType.PROBE, sequence=sequence)
        assert verdict(plane, program, data) == {"pass_direct": 1}, sequence
        seen.add(sequence)
    for sequence in (*seen, 2**64 - 2**33):
        data = packet(4, PacketType.PROBE, sequence=sequence)
        assert verdict(plane, program, data) == {"drop_replayed": 1}, sequence


@PROGRAMS
def test_a_later_run_starts_afresh_and_a_former_one_is_for_the_agent(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    former = packet(4, PacketType.PROBE, sequence=9, incarnation=6)
    assert verdict(plane, program, packet(4, PacketType.PROBE, sequence=9)) == {"pass_direct": 1}
    assert verdict(plane, program, former) == {"pass_direct": 1}, "its sender may have lost its state"
    assert verdict(plane, program, packet(4, PacketType.PROBE, sequence=9, incarnation=8)) == {"pass_direct": 1}
    assert verdict(plane, program, packet(4, PacketType.PROBE, sequence=9)) == {"pass_direct": 1}, "a former one now"
    frame = frames.frame(former, source(4), local(4))
    plane.counted()
    repeat(plane, program, frame)
    counted = plane.counted()
    assert counted["drop_direct_flood"] > 0
    assert counted["pass_direct"] + counted["drop_direct_flood"] == 100_000


@PROGRAMS
def test_one_node_sends_so_many_direct_packets_and_no_more(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    limit = LIMITS["XG_DIRECT_LIMIT"]
    words = [0] * LIMITS["XG_DIRECT_WORDS"]
    plane.write("directs", layout.node_key(origin(4)), layout.DIRECT.pack(7, LATER, limit - 1, 1, *words))
    assert verdict(plane, program, packet(4, PacketType.PROBE, sequence=2)) == {"pass_direct": 1}
    assert verdict(plane, program, packet(4, PacketType.PROBE, sequence=3)) == {"drop_direct_flood": 1}
    other = packet(4, PacketType.PROBE, origin=scene.address(4, 77), sequence=3)
    assert verdict(plane, program, other) == {"pass_direct": 1}, "others are not held back"


@PROGRAMS
def test_one_origin_has_so_many_rumors_relayed_and_no_more(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    plane.set_node(origin(4), known(), rumors=LIMITS["XG_RUMOR_LIMIT"] - 1, slot=LATER)
    counted = verdict(plane, program, packet(4))
    assert counted["take_heartbeat"] == 1
    over = packet(4, sequence=101)
    assert verdict(plane, program, over) == {"drop_rumor_flood": 1}
    node = plane.node(origin(4))
    assert node is not None and node.window.highest == 100, "what was not taken may come again"
    # Its time comes.
    plane.set_node(origin(4), known(window=node.window), rumors=LIMITS["XG_RUMOR_LIMIT"], slot=1)
    assert verdict(plane, program, over)["take_heartbeat"] == 1


@PROGRAMS
def test_asking_is_limited(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    plane.set_node(origin(4), known(standing=GONE))
    frame = frames.frame(packet(4), source(4), local(4))
    began = time.monotonic_ns()
    repeat(plane, program, frame)
    most = allowed_since(began)
    counted = plane.counted()
    assert 0 < counted["ask_gone"] <= most and counted["ask_limited"] > 0
    assert counted["ask_gone"] + counted["ask_limited"] == 100_000
    assert len(plane.events()) == counted["ask_gone"] - counted.get("news_lost", 0)
    plane.reset(scene.config(4))
    plane.set_node(origin(4), known(standing=GONE))
    scene.run(plane, program, frame)
    assert plane.counted() == {"ask_gone": 1}, "its time comes"


TOO_LONG = Case("too long", 4, lambda: frames.frame(packet(4) + bytes(1300), source(4), local(4)), ODD)
ALL_ODD = [TOO_LONG, *(case for case in CASES if case.counter == ODD)]


@PROGRAMS
@pytest.mark.parametrize("case", ALL_ODD, ids=lambda case: case.name)
def test_odd_frames_are_bounded(plane: Plane, program: str, case: Case) -> None:
    plane.reset(scene.config(case.family))
    began = time.monotonic_ns()
    repeat(plane, program, case.frame())
    most = allowed_since(began)
    counted = plane.counted()
    assert counted["drop_odd"] > 0
    assert 0 < counted["pass_odd"] <= most
    assert counted["pass_odd"] + counted["drop_odd"] == 100_000


@PROGRAMS
def test_without_an_agent_everything_passes(plane: Plane, program: str) -> None:
    """Nobody's packets are dropped by a data plane that nobody uses."""
    plane.reset(scene.config(4, running=False))
    repeat(plane, program, TOO_LONG.frame())
    assert plane.counted() == {"pass_no_agent": 100_000}
