# SPDX-License-Identifier: MIT
"""One copy at a time: who gets it, how it is addressed, what happens without a way; XDP's egress program and TC's."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import HOP_MAC, TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, Plane
from tests.bpf.scene import XDP, address, known, local, origin, packet, sized, source, targets
from tests.bpf.wire import NAMESPACE, NEAR, Wire, ip
from xdp_gossip.core.packets import PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane.libbpf import RunResult

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

EGRESS, TC_EGRESS = "test_xdp_egress", "xg_tc_egress"
UNRESOLVED = 3
#: The interface that a test run's frames come from unless told otherwise: lo.
LO = 1
HOLDS = 60.0
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


def prepared(plane: Plane, family: int, data: bytes, checksum: str = "full") -> bytes:
    """The frame that is broadcast for a packet."""
    plane.set_node(origin(family), known())
    frame = frames.frame(data, source(family), local(family), checksum)
    ran = plane.run(XDP, frame)
    assert ran.value == 4, plane.counted()
    plane.counted()
    plane.events()
    return ran.frame


def copies(plane: Plane, frame: bytes, count: int) -> list[RunResult]:
    """What becomes of ``count`` copies of a frame, one after the other as in a device's queue."""
    return [plane.run(EGRESS, frame) for _ in range(count)]


def ring_of(
    plane: Plane, family: int, ring: list[Address], hops: bool = True, generic: bool = False, **config: Any
) -> None:
    plane.reset(scene.config(family, **config), ring, generic)
    for target in ring if hops else ():
        plane.set_hop(target, LO)


@FAMILIES
@pytest.mark.parametrize("checksum", ["full", "partial", "none"])
@pytest.mark.parametrize("length", [88, 192, 193, 194, 195, 196, 197, 198, 199, 1001, 1231, 1232])
def test_a_copy_is_sound(plane: Plane, family: int, checksum: str, length: int) -> None:
    """Whatever the checksum was that came: veth leaves half of it."""
    ring_of(plane, family, targets(family, 4))
    data = packet(family) if length == 88 else sized(family, length)
    frame = prepared(plane, family, data, checksum)
    made = [frames.parse(ran.frame) for ran in copies(plane, frame, 4)]
    assert plane.counted() == {"copy": 4}
    assert sorted(copy.target for copy in made) == plane.targets
    for copy in made:
        assert copy.sound
        assert (copy.hops, copy.source, copy.mac_target) == (
            64,
            local(family),
            HOP_MAC,
        )
        assert copy.payload == data[:80] + bytes([data[80] - 1, data[81] + 1]) + data[82:]


@FAMILIES
@pytest.mark.parametrize("checksum", ["full", "partial", "none"])
@pytest.mark.parametrize("length", [88, 193, 1232])
def test_in_generic_mode_half_a_checksum_stays_half(plane: Plane, family: int, checksum: str, length: int) -> None:
    """The skb around such a frame has the device do the rest: a whole one would come out wrong. Others become whole."""
    ring_of(plane, family, targets(family, 2), generic=True)
    data = packet(family) if length == 88 else sized(family, length)
    if family == 6 and checksum == "none":
        checksum = "full"
    for ran in copies(plane, prepared(plane, family, data, checksum), 2):
        copy = frames.parse(ran.frame)
        assert copy.payload == data[:80] + bytes([data[80] - 1, data[81] + 1]) + data[82:]
        found = int.from_bytes(ran.frame[frames.HEADERS[family] - 2 : frames.HEADERS[family]], "big")
        if checksum == "partial":
            pseudo = frames.pseudo_header(copy.source, copy.target, 8 + length)
            assert found == frames.folded(pseudo)
        else:
            assert copy.sound
    assert plane.counted() == {"copy": 2}


@FAMILIES
def test_an_unresolved_copy_tells_nothing_of_its_checksum(plane: Plane, family: int) -> None:
    ring_of(plane, family, targets(family, 1), hops=False, generic=True)
    data = packet(family)
    copies(plane, prepared(plane, family, data, "partial"), 1)
    (event,) = plane.events()
    assert event.packet == data[:80] + bytes([data[80] - 1, data[81] + 1]) + data[82:]


@FAMILIES
def test_checksums_hold_for_all_sums(plane: Plane, family: int) -> None:
    """Among a few thousand random packets are those whose sums carry twice, and those that come out as 0."""
    ring_of(plane, family, targets(family, 1))
    for number in range(3000):
        data = packet(family, sequence=1000 + number, hops=number % 256, ttl=1 + number % 255)
        (ran,) = copies(plane, prepared(plane, family, data), 1)
        assert frames.parse(ran.frame).sound, ran.frame.hex()


@FAMILIES
def test_a_checksum_of_zero_is_written_as_ones(plane: Plane, family: int) -> None:
    """0 would mean that there is none (RFC 768)."""
    ring_of(plane, family, targets(family, 1))
    at = frames.HEADERS[family] - 2
    # ttl and hops are not signed. They go on as 0 and 1, one word of the sum: a word that is larger by what was the
    # checksum makes the sum 0xffff.
    for sequence in range(1000, 2000, 10):
        data = packet(family, sequence=sequence, ttl=1, hops=0)
        (ran,) = copies(plane, prepared(plane, family, data), 1)
        ttl, hops = divmod(int.from_bytes(ran.frame[at : at + 2], "big") + 1, 256)
        if ttl < 255 and hops:
            break
    filled = data[:80] + bytes([ttl + 1, hops - 1]) + data[82:]
    # Another rumor in between: of this one the only target has its copy.
    copies(plane, prepared(plane, family, packet(family, sequence=5000)), 1)
    (ran,) = copies(plane, prepared(plane, family, filled), 1)
    assert frames.parse(ran.frame).sound
    assert ran.frame[at : at + 2] == b"\xff\xff"


@FAMILIES
def test_origin_and_source_and_others_get_none(plane: Plane, family: int) -> None:
    other = address(10 - family, 9)
    ring = [origin(family), address(family, 10), source(family), other, address(family, 11)]
    ring_of(plane, family, ring)
    frame = prepared(plane, family, packet(family))
    made = copies(plane, frame, 4)
    assert [ran.value for ran in made] == [XDP_PASS, XDP_PASS, XDP_DROP, XDP_DROP]
    assert {frames.parse(ran.frame).target for ran in made[:2]} == {ring[1], ring[4]}
    assert plane.counted() == {"copy": 2, "copy_surplus": 2}


@FAMILIES
def test_same_address_other_port_is_another_member(plane: Plane, family: int) -> None:
    ring = [address(family, 2, 8001), address(family, 3, 8001)]
    ring_of(plane, family, ring)
    made = copies(plane, prepared(plane, family, packet(family)), 2)
    assert {frames.parse(ran.frame).target for ran in made} == set(ring)


def test_the_ring_is_used_evenly(plane: Plane) -> None:
    """Each rumor goes on where the last one stopped, and no member gets one twice."""
    ring_of(plane, 4, targets(4, 10))
    shares: Counter[Address] = Counter()
    for number in range(25):
        frame = prepared(plane, 4, packet(4, sequence=1000 + number))
        got = [frames.parse(ran.frame).target for ran in copies(plane, frame, 4)]
        assert len(set(got)) == 4
        shares.update(got)
    assert set(shares.values()) == {10}


def test_a_ring_that_shrinks(plane: Plane) -> None:
    """The cursor may lie beyond its end."""
    ring_of(plane, 4, targets(4, 200))
    for number in range(45):
        copies(plane, prepared(plane, 4, packet(4, sequence=1000 + number)), 4)
    ring_of(plane, 4, targets(4, 3))
    made = copies(plane, prepared(plane, 4, packet(4, sequence=5000)), 4)
    assert {frames.parse(ran.frame).target for ran in made[:3]} == set(plane.targets)
    assert plane.counted() == {"copy": 3, "copy_surplus": 1}


def test_a_full_ring_with_one_eligible_member(plane: Plane) -> None:
    """The whole ring is walked for it, and only once."""
    ring = [address(6, 1 + number) for number in range(255)] + [address(4, 9)]
    ring_of(plane, 4, ring)
    made = copies(plane, prepared(plane, 4, packet(4)), 2)
    assert [ran.value for ran in made] == [XDP_PASS, XDP_DROP]
    assert frames.parse(made[0].frame).target == address(4, 9)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (PacketType.HEARTBEAT, 2),
        (PacketType.RECORD, 2),
        (PacketType.METADATA, 5),
        (PacketType.LEAVE, 5),
        (PacketType.ALERT, 5),
    ],
)
def test_how_many_get_one(plane: Plane, kind: PacketType, limit: int) -> None:
    ring_of(plane, 4, targets(4, 20), amount=2, wide=5)
    made = copies(plane, prepared(plane, 4, packet(4, kind)), 12)
    assert [ran.value for ran in made] == [XDP_PASS] * limit + [XDP_DROP] * (12 - limit)
    assert plane.counted() == {"copy": limit, "copy_surplus": 12 - limit}


@FAMILIES
@pytest.mark.parametrize("age", [None, HOLDS + 1])
def test_without_a_next_hop(plane: Plane, family: int, age: float | None) -> None:
    """None was learnt, or too long ago: the agent is handed the copy and whom it is for."""
    ring_of(plane, family, targets(family, 1), hops=False)
    if age is not None:
        plane.set_hop(plane.targets[0], LO, age)
    data = sized(family, 333)
    (ran,) = copies(plane, prepared(plane, family, data), 1)
    assert ran.value == XDP_DROP
    assert plane.counted() == {"copy_unresolved": 1}
    (event,) = plane.events()
    assert (event.kind, event.address) == (UNRESOLVED, plane.targets[0])
    assert event.packet == data[:80] + bytes([data[80] - 1, data[81] + 1]) + data[82:]


def test_a_next_hop_that_is_about_to_expire(plane: Plane) -> None:
    ring_of(plane, 4, targets(4, 1), hops=False)
    plane.set_hop(plane.targets[0], LO, HOLDS - 1)
    (ran,) = copies(plane, prepared(plane, 4, packet(4)), 1)
    assert ran.value == XDP_PASS


def test_a_next_hop_by_another_interface(plane: Plane) -> None:
    """A devmap has one interface only."""
    ring_of(plane, 4, targets(4, 1), hops=False)
    plane.set_hop(plane.targets[0], 77)
    (ran,) = copies(plane, prepared(plane, 4, packet(4)), 1)
    assert (ran.value, plane.counted()) == (XDP_DROP, {"copy_unresolved": 1})


@FAMILIES
def test_next_hops_from_the_fib(plane: Plane, link: Wire, family: int) -> None:
    """Where forwarding is on, the kernel knows; what it says is kept."""
    kind = f"ipv{family}"
    subnet = f"{scene.local(family).ip}/{24 if family == 4 else 64}"
    neighbour = address(family, 10)
    try:
        ip("-n", NAMESPACE, "addr", "add", subnet, "dev", NEAR, *(["nodad"] if family == 6 else []))
        words = ("neigh", "replace", neighbour.ip, "lladdr", "02:00:00:00:00:99", "dev", NEAR, "nud", "permanent")
        ip("-n", NAMESPACE, *words)
        for forwarding in (1, 0):
            ip("netns", "exec", NAMESPACE, "sysctl", "-qw", f"net.{kind}.conf.{NEAR}.forwarding={forwarding}")
            plane.reset(scene.config(family), [neighbour])
            rumor = packet(family, PacketType.HEARTBEAT, origin=local(family))
            carrier = frames.frame(rumor[:82] + b"\x01" + rumor[83:], local(family), source(family))
            link.frames()
            start = scene.earliest_ns()
            scene.run(plane, TC_EGRESS, carrier, link)
            counted = plane.counted()
            if not forwarding:
                assert counted == {"fanout": 1, "fanout_unresolved": 1}
                continue
            assert counted == {"fanout": 1, "fanout_copy": 1, "hop_fib": 1}
            (frame,) = link.frames(1)
            assert frames.parse(frame).mac_target == bytes.fromhex("020000000099")
            hop = plane.hop(neighbour)
            assert hop and hop[2] == link.ifindex and start <= hop[3] <= time.monotonic_ns()
    finally:
        ip("-n", NAMESPACE, "addr", "flush", "dev", NEAR)


# The agent's own packets, at TC egress.


def own(family: int, fanout: int, kind: PacketType = PacketType.HEARTBEAT, size: int = 0) -> bytes:
    data = packet(family, kind, size, origin=local(family), hops=0)
    return data[:82] + bytes([fanout]) + data[83:]


def carrier(family: int, data: bytes, checksum: str = "full", **changes: Any) -> bytes:
    group = Address("224.0.0.1" if family == 4 else "ff02::1", 8000)
    mac = bytes.fromhex("01005e000001") if family == 4 else bytes.fromhex("333300000001")
    return frames.frame(data, changes.get("sender", local(family)), group, checksum, mac_target=mac)


@FAMILIES
@pytest.mark.parametrize("count", [1, 4, 63, 64])
@pytest.mark.parametrize("size", [0, 900])
def test_fan_out(plane: Plane, link: Wire, family: int, count: int, size: int) -> None:
    plane.reset(scene.config(family), targets(family, 64))
    for target in plane.targets:
        plane.set_hop(target, link.ifindex)
    data = own(family, count, PacketType.METADATA if size else PacketType.HEARTBEAT, size)
    link.frames()
    ran = scene.run(plane, TC_EGRESS, carrier(family, data), link)
    assert ran.value == TC_REDIRECT, "the carrier goes nowhere, and the stack hears of no loss"
    made = [frames.parse(frame) for frame in link.frames(count, rumor=data)]
    assert plane.counted() == {"fanout": 1, "fanout_copy": count}
    assert len({copy.target for copy in made}) == len(made) == count
    for copy in made:
        assert copy.sound and copy.target in plane.targets
        assert (copy.source, copy.hops, copy.mac_target) == (local(family), 64, HOP_MAC)
        assert copy.payload == data[:82] + b"\0" + data[83:]


@FAMILIES
def test_fan_out_to_more_than_there_are(plane: Plane, link: Wire, family: int) -> None:
    """Also 255 is a number that may stand there. Members without a way go to the agent."""
    plane.reset(scene.config(family), [*targets(family, 3), address(10 - family, 3)])
    for target in plane.targets[:2]:
        plane.set_hop(target, link.ifindex)
    link.frames()
    data = own(family, 255)
    scene.run(plane, TC_EGRESS, carrier(family, data), link)
    assert len(link.frames(2, rumor=data)) == 2
    assert plane.counted() == {"fanout": 1, "fanout_copy": 2, "fanout_unresolved": 1, "fanout_surplus": 61}
    (event,) = plane.events()
    assert (event.kind, event.address) == (UNRESOLVED, plane.targets[2])
    assert event.packet == data[:82] + b"\0" + data[83:]


def test_copies_that_the_kernel_refuses(plane: Plane, link: Wire) -> None:
    """The interface is down: every copy's return code is looked at."""
    plane.reset(scene.config(4), targets(4, 5))
    plane.set_node(origin(4), known())
    for target in plane.targets:
        plane.set_hop(target, link.ifindex)
    ip("-n", NAMESPACE, "link", "set", NEAR, "down")
    try:
        scene.run(plane, TC_EGRESS, carrier(4, own(4, 5)), link)
        assert plane.counted() == {"fanout": 1, "fanout_failed": 5}
        scene.deliver(plane, scene.TC, packet(4), 4, link)
        assert plane.counted() == {"take_heartbeat": 1, "relay": 1, "relay_failed": 4}
    finally:
        ip("-n", NAMESPACE, "link", "set", NEAR, "up")
        time.sleep(0.1)


@FAMILIES
def test_a_carrier_of_another_process(plane: Plane, link: Wire, family: int) -> None:
    """It does not know the key: nothing is multiplied for it."""
    plane.reset(scene.config(family), targets(family, 3))
    for target in plane.targets:
        plane.set_hop(target, link.ifindex)
    link.frames()
    data = own(family, 3)
    ran = scene.run(plane, TC_EGRESS, carrier(family, data[:64] + bytes(16) + data[80:]), link)
    assert (ran.value, plane.counted()) == (TC_SHOT, {"fanout_forged": 1})
    assert not link.frames(0, 0.05)


NOT_OWN_RUMORS = {
    "no fanout": lambda f: carrier(f, own(f, 0)),
    "another origin": lambda f: carrier(f, packet(f)[:82] + b"\x05" + packet(f)[83:]),
    "no packet": lambda f: carrier(f, b"\0\0" + own(f, 5)[2:]),
    "too short": lambda f: carrier(f, own(f, 5)[:87]),
    "too long": lambda f: carrier(f, own(f, 5) + bytes(1200)),
    "another port": lambda f: carrier(f, own(f, 5), sender=address(f, 1, 8001)),
    "another address": lambda f: carrier(f, own(f, 5), sender=address(f, 2)),
}


@FAMILIES
@pytest.mark.parametrize("name", NOT_OWN_RUMORS)
def test_what_is_no_own_rumor_is_left_alone(plane: Plane, link: Wire, family: int, name: str) -> None:
    plane.reset(scene.config(family), targets(family, 3))
    frame = NOT_OWN_RUMORS[name](family)
    link.frames()
    ran = scene.run(plane, TC_EGRESS, frame, link)
    assert (ran.value, ran.frame, plane.counted()) == (TC_NEXT, frame, {})
    assert not link.frames(0, 0.05)


@FAMILIES
def test_next_hops_are_learnt(plane: Plane, link: Wire, family: int) -> None:
    """From what the agent sends to one node: once, until it changes; a sight of it makes it young again."""
    plane.reset(scene.config(family))
    member = address(family, 10)

    def send(to: bytes, **context: int) -> dict[str, int]:
        frame = frames.frame(packet(family), local(family), member, mac_target=to, mac_source=b"\x02\0\0\0\0\x01")
        assert scene.run(plane, TC_EGRESS, frame, link, **context).frame == frame
        return dict(plane.counted())

    first, second = b"\x02\0\0\0\0\x51", b"\x02\0\0\0\0\x52"
    assert send(first) == {"hop_learnt": 1}
    hop = plane.hop(member)
    assert hop and hop[:3] == (first, b"\x02\0\0\0\0\x01", link.ifindex)
    time.sleep(0.05)
    assert send(first) == {}
    younger = plane.hop(member)
    assert younger and younger[3] > hop[3]
    assert send(second) == {"hop_learnt": 1}
    assert (plane.hop(member) or [None])[0] == second
    # Not from the copies that the programs make, which would keep an outdated hop alive forever.
    assert send(first, mark=0x58470001) == {}
    assert (plane.hop(member) or [None])[0] == second


def test_nothing_is_learnt_from_multicast_nor_from_others(plane: Plane, link: Wire) -> None:
    plane.reset(scene.config(4))
    group = Address("224.0.0.1", 8000)
    scene.run(plane, TC_EGRESS, carrier(4, own(4, 0)), link)
    assert plane.hop(group) is None
    for sender in (address(4, 1, 8001), address(4, 2)):
        scene.run(plane, TC_EGRESS, frames.frame(packet(4), sender, address(4, 10)), link)
        assert plane.hop(address(4, 10)) is None
    assert plane.counted() == {}
