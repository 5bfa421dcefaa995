# SPDX-License-Identifier: MIT
"""Rumors through real stacks on a veth: what arrives was sent by the programs, and its checksums hold."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.bpf import scene
from tests.bpf.harness import Plane
from tests.bpf.scene import known, local, origin, packet, sized, source
from tests.bpf.stage import ALL_NODES, MEMBERS, MODES, Stage, network, stage
from tests.kernel_model import NEWS
from xdp_gossip.core.packets import PacketType
from xdp_gossip.core.types import Address

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and BPF")]

UNRESOLVED = 3


@pytest.fixture(scope="module")
def nets() -> Iterator[None]:
    with network():
        yield


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def far(nets: None, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with stage(request.param) as made:
        yield made


def expect(stage: Stage, data: bytes, members: list[Address]) -> None:
    """Each member has exactly one copy, right in every respect; the stack has checked its checksums."""
    found = stage.received(stage.everybody, len(members))
    assert Counter(datagram.to for datagram in found) == Counter(member.ip for member in members)
    for datagram in found:
        assert datagram.data == data
        assert (datagram.hops, datagram.source) == (64, local(stage.family))


def onward(data: bytes) -> bytes:
    return data[:80] + bytes([data[80] - 1, data[81] + 1, 0]) + data[83:]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [192, 197, 1231, 1232])
def test_a_rumor_goes_to_each_of_64(plane: Plane, far: Stage, mode: str, length: int) -> None:
    """Those it came from and its origin are in the ring, and get none."""
    ring = [source(far.family), *far.members, origin(far.family)]
    plane.reset(scene.config(far.family, amount=4, wide=MEMBERS), ring)
    plane.set_node(origin(far.family), known())
    with far.attach(plane, mode):
        far.teach(plane, far.members)
        data = sized(far.family, length)
        far.send(far.neighbour, data, local(far.family))
        expect(far, onward(data), far.members)
        time.sleep(0.05)
        assert not far.received(far.agent), "a rumor reached the stack"
        assert plane.counted() == {"take_metadata": 1, "news": 1, "relay": 1, "copy": MEMBERS}
        assert [(event.kind, event.packet) for event in plane.events()] == [(NEWS, data)]


@pytest.mark.parametrize("mode", MODES)
def test_many_heartbeats_to_four_each(plane: Plane, far: Stage, mode: str) -> None:
    """Bursts: many rumors in one go of the device's queue. The ring is used evenly."""
    plane.reset(scene.config(far.family, amount=4, wide=MEMBERS), far.members)
    plane.set_node(origin(far.family), known())
    rounds, burst = 16, 32
    with far.attach(plane, mode):
        far.teach(plane, far.members)
        copies: Counter[tuple[str, bytes]] = Counter()
        for number in range(rounds):
            scene.wait_for_budget(number, burst)
            sent = [packet(far.family, sequence=1000 + number * burst + i) for i in range(burst)]
            for data in sent:
                far.send(far.neighbour, data, local(far.family))
            found = far.received(far.everybody, 4 * burst)
            copies.update((datagram.to, datagram.data) for datagram in found)
            assert Counter(d.data for d in found) == {onward(data): 4 for data in sent}
        assert max(copies.values()) == 1, "a member got a rumor twice"
        counted = plane.counted()
        total = rounds * burst
        assert counted == {"take_heartbeat": total, "relay": total, "copy": 4 * total}
        shares = Counter(to for to, _ in copies)
        assert len(shares) == MEMBERS and max(shares.values()) <= 2 * min(shares.values())


@pytest.mark.parametrize("mode", MODES)
def test_the_agents_own_rumor_goes_to_each_of_64(plane: Plane, far: Stage, mode: str) -> None:
    """One send, to a multicast address that never sees it."""
    plane.reset(scene.config(far.family), far.members)
    with far.attach(plane, mode):
        far.teach(plane, far.members)
        for kind in (PacketType.HEARTBEAT, PacketType.METADATA):
            data = packet(far.family, kind, 600, origin=local(far.family), hops=0)
            carrier = data[:82] + bytes([MEMBERS]) + data[83:]
            far.send(far.agent, carrier, ALL_NODES[far.family])
            expect(far, data, far.members)
            assert plane.counted() == {"fanout": 1, "fanout_copy": MEMBERS}
        far.send(far.agent, carrier[:82] + bytes([3]) + carrier[83:], ALL_NODES[far.family])
        found = far.received(far.everybody, 3)
        time.sleep(0.05)
        assert len(found + far.received(far.everybody)) == 3
        assert plane.counted() == {"fanout": 1, "fanout_copy": 3}


@pytest.mark.parametrize("mode", MODES)
def test_members_without_a_next_hop(plane: Plane, far: Stage, mode: str) -> None:
    """Their copies come to the agent; what it then sends is learnt from, and the next rumor reaches them."""
    plane.reset(scene.config(far.family, amount=4, wide=MEMBERS), far.members[:3])
    plane.set_node(origin(far.family), known())
    with far.attach(plane, mode):
        data = packet(far.family)
        far.send(far.neighbour, data, local(far.family))
        time.sleep(0.1)
        counted = plane.counted()
        assert counted == {"take_heartbeat": 1, "relay": 1, "copy_unresolved": 3, "copy_surplus": 1}
        found = plane.events()
        assert {(event.kind, event.address, event.packet) for event in found} == {
            (UNRESOLVED, member, onward(data)) for member in far.members[:3]
        }
        for event in found:
            far.send(far.agent, event.packet, event.address)
        assert len(far.received(far.everybody, 3)) == 3
        assert plane.counted() == {"hop_learnt": 3}
        far.send(far.neighbour, packet(far.family, sequence=101), local(far.family))
        assert len(far.received(far.everybody, 3)) == 3
        assert plane.counted() == {"take_heartbeat": 1, "relay": 1, "copy": 3, "copy_surplus": 1}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_ours_passes(plane: Plane, far: Stage, mode: str) -> None:
    """Direct packets reach the socket; other ports are nobody's business, however odd."""
    plane.reset(scene.config(far.family), far.members)
    with far.attach(plane, mode):
        data = packet(far.family, PacketType.PROBE)
        far.send(far.neighbour, data, local(far.family))
        (found,) = far.received(far.agent, 1)
        assert (found.data, found.source) == (data, source(far.family))
        assert plane.counted() == {"pass_direct": 1}
        # Longer than the MTU: fragments, which the stack puts together again.
        far.send(far.neighbour, data + bytes(2000), local(far.family))
        (found,) = far.received(far.agent, 1)
        assert len(found.data) == len(data) + 2000
        assert plane.counted() == {"pass_odd": 1}
