# SPDX-License-Identifier: MIT
"""Addresses that no other node can have, told by a member: refused, counted, and never sent to."""

from __future__ import annotations

import random

import pytest

from tests.agent.pekonode_net import Net
from tests.support.keys import KEY
from xdp_gossip.core import messages as m
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import Rumor, Standing, Transmit, Warned
from xdp_gossip.core.interface import Known
from xdp_gossip.core.members.peer import key_of
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, Node, Now, State
from xdp_gossip.pekonode import codec
from xdp_gossip.pekonode.packet import Packet, PekoNodeId, Swap
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

CODEC = NativeCodec(Keyring.single("test", KEY))
WALL = 1_700_000_000 * 10**9
MEMBER = Address("198.18.0.2", 8000)
#: Many hosts, none, or the very host that uses it.
BAD = ["224.0.0.1", "239.1.2.3", "255.255.255.255", "0.0.0.0", "127.0.0.1", "127.0.1.1", "ff02::1", "::", "::1"]
every = pytest.mark.parametrize("ip", BAD)


def at(mono: float) -> Now:
    return Now(mono, WALL + int((mono - 100.0) * 1e9))


def engine(ip: str = "198.18.0.1", known: list[Known] | None = None) -> Engine:
    """A running engine that one member has found."""
    made = Engine(Node(ip, 8000, "self"), Settings(cycle=1.0), CODEC, random.Random(1), incarnation=5)
    made.start(at(100.0), known or [])
    tell(made, None, PacketType.HEARTBEAT, 1)
    assert len(made.members(at(100.1))) == 2
    made.take_events()
    made.take_transmits()
    return made


def tell(
    made: Engine,
    message: m.Message | None,
    kind: PacketType,
    sequence: int = 9,
    origin: Address = MEMBER,
    wall_ns: int = WALL,
) -> bool | None:
    header = Header(kind, origin, 7, sequence, wall_ns, 0, 0, ttl=3)
    return made.receive(CODEC.encode(header, message), origin, at(100.1))


def run(made: Engine, until: float) -> set[str]:
    """Where it sends until then."""
    sent: list[Transmit | Rumor] = made.take_transmits()
    now = 100.1
    while now < until:
        made.handle_timer(at(now))
        sent += made.take_transmits()
        now += 0.1
    return {to.ip for item in sent for to in (item.targets if isinstance(item, Rumor) else [item.to])}


def refused(made: Engine, ip: str, times: int = 1) -> None:
    assert made.counters["rx_bad_address"] == times
    assert str(Address.of(ip, 9000)) not in {str(member.address) for member in made.members(at(100.2))}
    assert ip not in run(made, 115.0)


def test_the_counters_are_there_from_the_start() -> None:
    made = Engine(Node("198.18.0.1", 8000), Settings(), CODEC, random.Random(1), incarnation=5)
    assert {"rx_bad_address", "rx_table_full"} <= set(made.counters)


@every
def test_no_list_of_members_brings_one_in(ip: str) -> None:
    made = engine()
    info = m.MemberInfo(Address.of(ip, 9000), 5, 1, State.ALIVE, 0, 1, 1)
    tell(made, m.MemberList((info,)), PacketType.SWAP_RESPONSE)
    refused(made, ip)


@every
def test_no_packet_has_one_for_its_origin(ip: str) -> None:
    made = engine()
    assert tell(made, None, PacketType.HEARTBEAT, 1, Address.of(ip, 9000)) is False
    assert [e.code for e in made.take_events() if isinstance(e, Warned)] == ["bad_address"]
    refused(made, ip)


@every
def test_no_stale_packet_has_a_question_sent_there(ip: str) -> None:
    made = engine()
    request = m.SyncRequest(4, 5, ())
    origin, long_ago = Address.of(ip, 9000), WALL - 10**15
    assert tell(made, request, PacketType.SWAP_REQUEST, 1, origin, long_ago) is False
    refused(made, ip)


@every
def test_nobody_is_asked_to_probe_one(ip: str) -> None:
    made = engine()
    tell(made, m.PingRequest(3, Address.of(ip, 9000), 5), PacketType.PROBE)
    refused(made, ip)


def test_nobody_is_asked_to_probe_itself() -> None:
    made = engine()
    tell(made, m.PingRequest(3, made.node.address, 5), PacketType.PROBE)
    assert made.counters["rx_bad_address"] == 1
    assert "198.18.0.1" not in run(made, 115.0)


@every
def test_no_data_plane_brings_one_in(ip: str) -> None:
    made = engine()
    address = Address.of(ip, 9000)
    made.observe([(key_of(address), 7, 1, 1, 100.0, 0.0, 0, 0, 0)], at(100.1))
    told = [(e.address, e.standing) for e in made.take_events() if isinstance(e, Standing)]
    assert (address, "forgotten") in told
    refused(made, ip)


@every
def test_no_state_file_brings_one_in(ip: str) -> None:
    made = engine(known=[Known(Address.of(ip, 9000), 5, 1, WALL)])
    refused(made, ip)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_nodes_on_loopback_have_members_there(ip: str) -> None:
    made = engine("127.0.0.1")
    tell(made, None, PacketType.HEARTBEAT, 1, Address.of(ip, 9000))
    assert len(made.members(at(100.2))) == 3
    assert made.counters["rx_bad_address"] == 0


@every
def test_pekonode_refuses_them_too(ip: str) -> None:
    net = Net()
    stored = net.add(0)
    stored.start(net.now, [Known(Address.of(ip, 9000), 0, 0, net.now.wall_ns)])
    secret = codec.secret_digest("k")
    node = PekoNodeId(ip, 9000, "x")
    for packet in (
        Packet(node, frozenset({node.label}), secret=secret),
        Packet(node, frozenset(), b"v", 1, is_update=True, secret=secret),
        Packet(node, frozenset(), b"v", 1, swap=Swap.REQUEST, secret=secret),
        Packet(node, frozenset(), b"v", 1, swap=Swap.RESPONSE, secret=secret),
    ):
        net.inject(stored.node.address, codec.encode(packet))
    net.run(30)
    assert stored.counters["rx_bad_address"] == 5
    assert len(stored.members(net.now)) == 1
    assert ip not in {transmit.to.ip for _, _, transmit in net.sent}
    assert stored.documents.get("default") is None
