# SPDX-License-Identifier: MIT
"""What a packet costs does not grow with the number of nodes: no packet makes a member search all nodes."""

from __future__ import annotations

import random
from collections.abc import ValuesView
from typing import Any

import pytest

from tests.support.keys import KEY
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.messages import Ack, MemberInfo, MemberList, SyncRequest
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.registry import Message
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, Node, Now, State
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

CODEC = NativeCodec(Keyring.single("test", KEY))
KNOWN, PACKETS = 1000, 200


class Searched(dict[Address, Any]):
    """The known nodes, and how often somebody looked at all of them."""

    searches = 0

    def values(self) -> ValuesView[Any]:
        self.searches += 1
        return super().values()


class World:
    """A member of a large fleet."""

    def __init__(self) -> None:
        self.mono = 1000.0
        self.engine = Engine(Node("198.18.0.1", 8000), Settings(cycle=600.0), CODEC, random.Random(1), 1)
        self.engine.start(self.now)
        known = (Address(f"198.18.{1 + n // 200}.{1 + n % 200}", 8000) for n in range(KNOWN))
        infos = tuple(MemberInfo(address, 1, 1, State.ALIVE, 0, 1, 0) for address in known)
        self.send(Address("198.19.0.1", 8000), PacketType.SWAP_RESPONSE, MemberList(infos))
        for info in infos:
            self.send(info.address, PacketType.HEARTBEAT, sequence=2)
        self.engine.handle_timer(self.now)
        self.known = self.engine._membership._peers = Searched(self.engine._membership._peers)

    @property
    def now(self) -> Now:
        return Now(self.mono, int(self.mono * 1e9))

    def send(
        self, origin: Address, kind: PacketType, message: Message | None = None, sequence: int = 1, record: int = 0
    ) -> None:
        header = Header(kind, origin, 1, sequence, self.now.wall_ns, 0, record)
        self.engine.receive(CODEC.encode(header, message), origin, self.now)


@pytest.fixture
def world() -> World:
    return World()


def accepted(world: World, name: str, before: int) -> None:
    assert world.engine.counters[name] - before == PACKETS


def test_the_first_packets_of_newcomers(world: World) -> None:
    """They are compared with the median of all clocks, which is computed again for every sixteenth only."""
    known = len(world.known)
    for number in range(PACKETS):
        world.send(Address(f"198.19.1.{1 + number}", 8000), PacketType.HEARTBEAT)
    assert len(world.known) - known == PACKETS
    assert world.known.searches < PACKETS / 10


def test_acknowledgements(world: World) -> None:
    before = world.engine.counters["rx_probe"]
    for number in range(PACKETS):
        world.send(Address(f"198.18.1.{1 + number}", 8000), PacketType.PROBE, Ack(number))
    accepted(world, "rx_probe", before)
    assert world.known.searches == 0


def test_requests_of_members_with_the_same_nodelist(world: World) -> None:
    before = world.engine.counters["tx_swap_response"]
    for number in range(PACKETS):
        request = SyncRequest(number, world.engine._lists.digest)
        world.send(Address(f"198.18.1.{1 + number}", 8000), PacketType.SWAP_REQUEST, request)
    accepted(world, "tx_swap_response", before)
    assert world.known.searches == 0


def test_requests_of_this_node(world: World) -> None:
    """That nobody is overdue is known after one look."""
    before = world.engine.counters["tx_swap_request"]
    for number in range(PACKETS):
        world.engine._anti_entropy.request(Address(f"198.18.1.{1 + number}", 8000), world.now)
    accepted(world, "tx_swap_request", before)
    assert world.known.searches <= 1


def test_heartbeats_of_members_whose_records_change(world: World) -> None:
    before = world.engine.counters["rx_heartbeat"]
    for number in range(PACKETS):
        world.send(Address(f"198.18.1.{1 + number}", 8000), PacketType.HEARTBEAT, sequence=3, record=7)
    accepted(world, "rx_heartbeat", before)
    assert world.known.searches == 0
