# SPDX-License-Identifier: MIT
"""Probes of observers are answered and acknowledgements are recorded by the programs, without the agent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import CODEC, TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, XDP_REDIRECT, Plane
from tests.bpf.scene import ASKED, TC, XDP, known, local, origin, packet, source
from tests.bpf.stage import MODES, Stage, network, stage
from tests.kernel_model import Acknowledged, Config, KernelModel
from tests.support.keys import KEY, with_id
from xdp_gossip.core.allowlist import AllowList, parse_network
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.libbpf import RunResult
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF"),
    pytest.mark.usefixtures("link"),
]
PROGRAMS = pytest.mark.parametrize("program", [XDP, TC])
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
LIMITS = headers.constants()
#: A slot of time that is not over while a test runs, as the programs count it.
LATER = (time.monotonic_ns() >> LIMITS["XG_SLOT_BITS"]) + 100_000
PASSED, DROPPED = {XDP: XDP_PASS, TC: TC_NEXT}, {XDP: XDP_DROP, TC: TC_SHOT}
ANSWERED = {XDP: XDP_REDIRECT, TC: TC_REDIRECT}


def probe(family: int = 4, **changes: Any) -> bytes:
    """A probe as an observer sends it."""
    return packet(family, PacketType.EDGE_PROBE, **{"ttl": 0, "hops": 0, "sequence": 1 << 60, **changes})


def acknowledgement(family: int = 4, **changes: Any) -> bytes:
    """An acknowledgement of the newest round."""
    fields: dict[str, Any] = {"ttl": 0, "hops": 0, "sequence": ASKED, "lease_age_ms": 77}
    return packet(family, PacketType.EDGE_ACK, **{**fields, **changes})


def read(answer: bytes, codec: NativeCodec = CODEC) -> Header:
    """What an answer says, once it has been verified."""
    header = codec.parse(answer)
    codec.verify(answer, header)
    return header


def answered(ran: RunResult, family: int) -> Header:
    """What the answer in a frame says; the frame is right in every respect."""
    parsed = frames.parse(ran.frame)
    assert parsed.sound, ran.frame.hex()
    assert (parsed.source, parsed.target, parsed.hops) == (local(family), source(family), 64)
    assert (parsed.mac_source, parsed.mac_target) == (frames.HOST_MAC, frames.PEER_MAC)
    return read(parsed.payload)


def expect_answer(header: Header, config: Config, question: bytes, began: int) -> None:
    """The answer of a node with this configuration to a question that was asked at ``began`` (ns)."""
    asked = CODEC.parse(question)
    assert replace(header, wall_ns=0, lease_age_ms=0) == Header(
        PacketType.EDGE_ACK,
        config.local,
        config.incarnation,
        asked.sequence,
        0,
        config.documents_digest,
        config.record_digest,
        config.packet_flags,
        config.key_id,
    )
    now = time.monotonic_ns()
    assert began <= header.wall_ns - config.wall <= now
    assert (began - config.renewed) // 1_000_000 <= header.lease_age_ms <= (now - config.renewed) // 1_000_000


@PROGRAMS
@FAMILIES
@pytest.mark.parametrize("checksum", ["full", "partial", "none"])
def test_a_probe_is_answered(plane: Plane, program: str, family: int, checksum: str) -> None:
    """Whatever the checksum was that came: TC keeps half a one half, and none none, as the skb around it says."""
    config = scene.config(family)
    plane.reset(config)
    data, began = probe(family), time.monotonic_ns()
    ran = scene.deliver(plane, program, data, family, checksum=checksum)
    assert plane.counted() == {"answer": 1}
    assert ran.value == ANSWERED[program]
    assert len(ran.frame) == frames.HEADERS[family] + len(data), "the answer is as long as the question"
    if program == TC and checksum != "full":
        # A test run has no skb whose checksum is half done: the difference is applied to what stands there.
        expect_answer(read(ran.frame[frames.HEADERS[family] :]), config, data, began)
    else:
        expect_answer(answered(ran, family), config, data, began)
    assert not plane.events(), "the agent is not woken"
    assert plane.asker(origin(family)) == (7, 1 << 60)
    assert plane.node(origin(family)) is None, "a probe is no rumor"


@FAMILIES
def test_in_generic_mode_half_a_checksum_stays_half(plane: Plane, family: int) -> None:
    plane.reset(scene.config(family), generic=True)
    ran = scene.deliver(plane, XDP, probe(family), family, checksum="partial")
    found = int.from_bytes(ran.frame[frames.HEADERS[family] - 2 : frames.HEADERS[family]], "big")
    assert found == frames.folded(frames.pseudo_header(local(family), source(family), 8 + 88))
    read(ran.frame[frames.HEADERS[family] :])
    ran = scene.deliver(plane, XDP, probe(family, sequence=1 << 61), family)
    answered(ran, family)
    assert plane.counted() == {"answer": 2}


@FAMILIES
def test_checksums_hold_for_all_sums(plane: Plane, family: int) -> None:
    """Among a few thousand answers are those whose sums carry twice, and those that come out as 0."""
    for program in (XDP, TC):
        for number in range(2000):
            plane.reset(scene.config(family, record_digest=number)) if number % 100 == 0 else None
            asker = scene.address(family, 100 + number % 100)
            ran = scene.deliver(plane, program, probe(family, origin=asker, sequence=1 + number), family)
            assert answered(ran, family).sequence == 1 + number


@PROGRAMS
def test_a_probe_is_answered_once(plane: Plane, program: str) -> None:
    """A recording, a round that is over and an earlier run of the asker are not answered."""
    plane.reset(scene.config(4))
    first = probe(sequence=1000)
    assert scene.deliver(plane, program, first, 4).value == ANSWERED[program]
    assert plane.counted() == {"answer": 1}
    for data in (first, first, probe(sequence=999), probe(sequence=5000, incarnation=6)):
        assert scene.deliver(plane, program, data, 4).value == DROPPED[program]
        assert plane.counted() == {"drop_probe_replayed": 1}
    assert plane.refusals(), "who sends them can be told"
    # Other nodes, the next round and the next run are answered; a run begins anywhere.
    for data in (probe(sequence=1001), probe(sequence=3, incarnation=8), probe(origin=scene.address(6, 9))):
        assert scene.deliver(plane, program, data, 4).value == ANSWERED[program]
        assert plane.counted() == {"answer": 1}
    assert plane.asker(origin(4)) == (8, 3)


@PROGRAMS
def test_what_is_forged_or_not_for_answering_is_dropped(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    good = probe()
    bad = {
        "drop_bad_mac": good[:64] + bytes(16) + good[80:],
        "drop_unknown_key": good[:8] + b"\x09" + good[9:],
        "drop_foreign_cluster": good[:4] + bytes(4) + good[8:],
        "drop_malformed": good + bytes(1),
        "drop_truncated": good[:87],
        "drop_own": probe(origin=local(4), incarnation=9),
    }
    for counter, data in bad.items():
        assert scene.deliver(plane, program, data, 4).value == DROPPED[program], counter
        assert plane.counted() == {counter: 1}
    sealed = good[:84] + b"\1" + good[85:]
    scene.deliver(plane, program, sealed, 4)
    assert plane.counted() == {"drop_bad_mac": 1}, "the salt is authenticated, too"
    assert plane.asker(origin(4)) is None, "a forgery takes no round"
    scene.deliver(plane, program, good[:80] + b"\7\7\0\0" + good[84:], 4)
    assert plane.counted() == {"answer": 1}, "the relay area is not"


@PROGRAMS
@FAMILIES
def test_no_answer_goes_to_a_group_or_to_the_node_itself(plane: Plane, program: str, family: int) -> None:
    """A recording with a forged source would reach many hosts."""
    plane.reset(scene.config(family))
    data = probe(family)
    names = {4: ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.1"], 6: ["ff02::1"]}[family]
    askers = [*(Address(name, 8000) for name in names), local(family)]
    made = [frames.frame(data, asker, local(family)) for asker in askers]
    made.append(frames.frame(data, source(family), local(family), mac_source=b"\x33\x33\0\0\0\1"))
    without_port = bytearray(frames.frame(data, source(family), local(family), "none"))
    without_port[frames.HEADERS[family] - 8 : frames.HEADERS[family] - 6] = bytes(2)
    made.append(bytes(without_port))
    for frame in made:
        assert scene.run(plane, program, frame).value == DROPPED[program], frame.hex()
        assert plane.counted() == {"drop_probe_source": 1}
    assert plane.asker(origin(family)) is None


@PROGRAMS
def test_an_asker_is_answered_so_often_and_no_more(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    limit = LIMITS["XG_PROBE_LIMIT"]
    plane.set_asker(origin(4), 7, 1, limit - 1, LATER)
    scene.deliver(plane, program, probe(sequence=2), 4)
    assert plane.counted() == {"answer": 1}
    assert scene.deliver(plane, program, probe(sequence=3), 4).value == DROPPED[program]
    assert plane.counted() == {"drop_probe_flood": 1}
    assert plane.asker(origin(4)) == (7, 2), "what was not answered may come again"
    scene.deliver(plane, program, probe(sequence=3, origin=scene.address(4, 77)), 4)
    assert plane.counted() == {"answer": 1}, "others are not held back"
    plane.set_asker(origin(4), 7, 2, limit, 1)
    scene.deliver(plane, program, probe(sequence=3), 4)
    assert plane.counted() == {"answer": 1}, "its time comes"


@PROGRAMS
@FAMILIES
def test_without_the_agent_probes_are_answered_and_all_else_passes(plane: Plane, program: str, family: int) -> None:
    """The lease is over: its age goes on growing, and tells the fleet that the agent is gone and the host is not."""
    ages = []
    for seconds in (-100, 3, 30):
        now = time.monotonic_ns()
        config = scene.config(family, lease=now - 1_000_000_000, renewed=now - seconds * 1_000_000_000)
        plane.reset(config)
        data, began = probe(family), time.monotonic_ns()
        ran = scene.deliver(plane, program, data, family)
        assert plane.counted() == {"answer": 1}
        ages.append(answered(ran, family).lease_age_ms)
        if seconds > 0:
            expect_answer(answered(ran, family), config, data, began)
    assert ages[0] == 0 < 3000 <= ages[1] < 30_000 <= ages[2], "one from the future, by a clock read before, is new"
    others = [packet(family, kind) for kind in (PacketType.HEARTBEAT, PacketType.LEAVE, PacketType.PROBE)]
    others += [bytes(88), bytes(1300), acknowledgement(family), packet(family, origin=local(family))]
    others.append(data[:4] + bytes(4) + data[8:])
    for other in others:
        frame = frames.frame(other, source(family), local(family))
        ran = scene.run(plane, program, frame)
        assert (ran.value, ran.frame) == (PASSED[program], frame)
        assert plane.counted() == {"pass_no_agent": 1}
    scene.deliver(plane, program, data, family)
    assert plane.counted() == {"drop_probe_replayed": 1}, "no recording is answered, whoever is gone"


@PROGRAMS
def test_a_plane_that_was_given_up_answers_nothing(plane: Plane, program: str) -> None:
    """The agent stepped down, or its node has left: the socket gets the probes."""
    plane.reset(scene.config(4, running=False))
    frame = frames.frame(probe(), source(4), local(4))
    ran = scene.run(plane, program, frame)
    assert (ran.value, ran.frame) == (PASSED[program], frame)
    assert plane.counted() == {"pass_no_agent": 1}


@PROGRAMS
@pytest.mark.parametrize("lease", [1 << 62, 1], ids=["agent", "no agent"])
def test_only_allowed_networks_get_answers(plane: Plane, program: str, lease: int) -> None:
    config = scene.config(4, lease=lease)
    plane.reset(config)
    plane.configure(config, allow=AllowList([parse_network("10.0.0.0/8")]))
    assert scene.deliver(plane, program, probe(), 4).value == DROPPED[program]
    assert plane.counted() == {"drop_not_allowed": 1}
    plane.configure(config, allow=AllowList([parse_network(f"{source(4).ip}/32")]))
    assert scene.deliver(plane, program, probe(), 4).value == ANSWERED[program]
    assert plane.counted() == {"answer": 1}


@PROGRAMS
def test_answers_are_signed_with_the_active_key(plane: Plane, program: str) -> None:
    """While keys are rotated, that is not the key of the question."""
    plane.reset(scene.config(4, key_id=3))
    assert scene.deliver(plane, program, probe(), 4).value == DROPPED[program]
    assert plane.counted() == {"answer": 1, "answer_failed": 1}, "there is no such key yet"
    other = with_id("default", 3, KEY)
    plane.add_key(other)
    ran = scene.deliver(plane, program, probe(sequence=(1 << 60) + 1), 4)
    codec = NativeCodec(Keyring.single("default", other))
    assert read(frames.parse(ran.frame).payload, codec).key_id == 3
    plane.remove_key(3)


@PROGRAMS
@FAMILIES
def test_acknowledgements_are_recorded_for_the_agent(plane: Plane, program: str, family: int) -> None:
    plane.reset(scene.config(family))
    began = time.monotonic_ns()
    wall = time.time_ns()
    said = {"documents_digest": 3, "record_digest": 4, "flags": 1, "wall_ns": wall, "lease_age_ms": 7_000}
    ran = scene.deliver(plane, program, acknowledgement(family, sequence=ASKED - 3, **said), family)
    assert ran.value == DROPPED[program] and plane.counted() == {"take_ack": 1}
    found = plane.ack(origin(family))
    assert found is not None
    assert began <= found.last_seen <= time.monotonic_ns()
    assert found.clock == wall - found.last_seen
    assert replace(found, last_seen=0, clock=0) == Acknowledged(7, 7_000, ASKED - 3, 1, 0, 0, 3, 4, 1)
    assert plane.node(origin(family)) is None, "it enters no replay window of rumors"
    # The window: one late, one of them twice, the newest.
    for back, counter in ((5, "take_ack"), (5, "drop_ack_stray"), (3, "drop_ack_stray"), (0, "take_ack")):
        scene.deliver(plane, program, acknowledgement(family, sequence=ASKED - back), family)
        assert plane.counted() == {counter: 1}
    found = plane.ack(origin(family))
    assert found is not None and (found.newest, found.window, found.lease_age_ms) == (ASKED, 0b101001, 77)
    assert not plane.events(), "the agent is not woken"


@PROGRAMS
def test_only_the_last_rounds_of_this_run_count(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    for number, counter in {
        ASKED + 1: "drop_ack_stray",
        ASKED - 64: "drop_ack_stray",
        ASKED - 63: "take_ack",
        ASKED: "take_ack",
    }.items():
        scene.deliver(plane, program, acknowledgement(sequence=number), 4)
        assert plane.counted() == {counter: 1}
    found = plane.ack(origin(4))
    assert found is not None and found.window == 1 << 63 | 1
    # The agent starts anew, at a smaller number: what was recorded before is nothing to it.
    plane.configure(scene.config(4, asked=1000))
    scene.deliver(plane, program, acknowledgement(sequence=999), 4)
    found = plane.ack(origin(4))
    assert found is not None and (found.newest, found.window) == (999, 1)
    # Another run of the other node begins a window of its own; what the former run acknowledged late is of no use.
    scene.deliver(plane, program, acknowledgement(sequence=1000, incarnation=8), 4)
    scene.deliver(plane, program, acknowledgement(sequence=998), 4)
    found = plane.ack(origin(4))
    assert found is not None and (found.incarnation, found.newest, found.window) == (8, 1000, 1)
    assert plane.counted() == {"take_ack": 2, "drop_ack_stray": 1}
    # Nothing was asked yet.
    plane.reset(scene.config(4, asked=0))
    scene.deliver(plane, program, acknowledgement(sequence=1), 4)
    assert plane.counted() == {"drop_ack_stray": 1}


@PROGRAMS
def test_a_forged_acknowledgement_records_nothing(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    good = acknowledgement()
    for at in (3, 20, 30, 70, 87):
        data = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        assert scene.deliver(plane, program, data, 4).value == DROPPED[program]
    assert sum(plane.counted().values()) == 5
    assert plane.ack(origin(4)) is None
    scene.deliver(plane, program, acknowledgement(origin=local(4)), 4)
    assert plane.counted() == {"drop_own": 1}


def test_the_model_counts_the_age_of_a_lease_as_the_programs_do() -> None:
    config = scene.config(4, renewed=1_000_000_000)
    for time_ns, age in ((0, 0), (1_000_999_999, 0), (3_500_000_000, 2500), (1 << 62, (1 << 32) - 1)):
        outcome = KernelModel(CODEC, config).process(probe(), source(4), time_ns)
        assert (outcome.action, read(outcome.onward).lease_age_ms) == ("answer", age)


@pytest.fixture(scope="module")
def nets() -> Iterator[None]:
    with network():
        yield


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def far(nets: None, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with stage(request.param) as made:
        yield made


@pytest.mark.parametrize("mode", MODES)
def test_through_real_stacks(plane: Plane, far: Stage, mode: str) -> None:
    """The asker's socket gets the answer, whose checksums its stack has checked; the agent's socket gets nothing."""
    config = scene.config(far.family)
    plane.reset(config, generic="generic" in mode)
    with far.attach(plane, mode):
        for number in range(20):
            data, began = probe(far.family, sequence=(1 << 60) + number), time.monotonic_ns()
            far.send(far.neighbour, data, local(far.family))
            (found,) = far.received(far.neighbour, 1)
            assert (found.source, found.hops, len(found.data)) == (local(far.family), 64, len(data))
            expect_answer(read(found.data), config, data, began)
            far.send(far.neighbour, data, local(far.family))
            far.send(far.neighbour, data[:64] + bytes(16) + data[80:], local(far.family))
        # The node's own question is answered on the way back, and ends there.
        far.send(far.neighbour, acknowledgement(far.family), local(far.family))
        time.sleep(0.1)
        assert not far.received(far.neighbour) and not far.received(far.agent)
        assert plane.counted() == {"answer": 20, "drop_probe_replayed": 20, "drop_bad_mac": 20, "take_ack": 1}
        assert not plane.events()


@pytest.mark.parametrize("mode", MODES)
def test_answers_and_copies_share_the_way_out(plane: Plane, far: Stage, mode: str) -> None:
    """They come in one burst, and may be in one queue of the device. Only copies are readdressed."""
    plane.reset(scene.config(far.family), far.members, "generic" in mode)
    plane.set_node(origin(far.family), known())
    rounds, burst = 10, 16
    with far.attach(plane, mode):
        far.teach(plane, far.members)
        for number in range(rounds):
            first = 1000 + number * burst
            asked = [scene.address(far.family, 100 + i) for i in range(burst)]
            for i, asker in enumerate(asked):
                far.send(far.neighbour, probe(far.family, origin=asker, sequence=first + i), local(far.family))
                far.send(far.neighbour, packet(far.family, sequence=first + i), local(far.family))
            answers = far.received(far.neighbour, burst)
            assert sorted(read(found.data).sequence for found in answers) == list(range(first, first + burst))
            copies = far.received(far.everybody, 4 * burst)
            assert len(copies) == 4 * burst
            assert all(CODEC.parse(found.data).type is PacketType.HEARTBEAT for found in copies)
        total = rounds * burst
        assert plane.counted() == {"answer": total, "take_heartbeat": total, "relay": total, "copy": 4 * total}
