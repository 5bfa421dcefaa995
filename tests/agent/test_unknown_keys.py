# SPDX-License-Identifier: MIT
"""What an engine makes of packets that are signed with a key that it does not have."""

from __future__ import annotations

import random

import pytest

from tests.support.keys import KEY, OTHER_KEY, THIRD_KEY
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import MemberChanged, Warned
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, Node, Now, State
from xdp_gossip.core.unknown_keys import MOST
from xdp_gossip.wire.keys import Keyring, derive
from xdp_gossip.wire.native import NativeCodec

OTHERS = [Address(f"198.18.1.{number}", 8000) for number in range(1, 4)]


class Member:
    """An engine with a clock, which hears packets that are made with any key."""

    def __init__(self, *, knows: bool = True) -> None:
        self.mono = 100.0
        self.sequence = 0
        self.codec = NativeCodec(Keyring.single("default", KEY), bytes(4))
        self.engine = Engine(
            Node("198.18.0.1", 8000, "a"), Settings(cycle=1.0), self.codec, random.Random(1), incarnation=1
        )
        self.engine.start(self.now())
        self.warnings: list[str] = []
        for other in OTHERS if knows else ():
            self.hear(other, KEY)

    def now(self) -> Now:
        return Now(self.mono, 1_700_000_000 * 10**9 + int(self.mono * 1e9))

    def hear(self, origin: Address, secret: str, kind: PacketType = PacketType.HEARTBEAT) -> None:
        """A packet from ``origin``, signed with the key of ``secret``."""
        self.sequence += 1
        header = Header(kind, origin, 7, self.sequence, self.now().wall_ns, 0, 0, ttl=1)
        data = NativeCodec(Keyring.single("default", secret), bytes(4)).encode(header, None)
        self.engine.receive(data, origin, self.now())
        self._look()

    def run(self, seconds: float, secret: str = "", every: float = 0.5) -> None:
        """Let time pass; the others send, signed with ``secret``."""
        for _ in range(round(seconds / every)):
            self.mono += every
            self.engine.handle_timer(self.now())
            if secret:
                for other in OTHERS:
                    self.hear(other, secret)
            self._look()

    def _look(self) -> None:
        self.engine.take_transmits()
        for event in self.engine.take_events():
            if isinstance(event, Warned) and event.code == "unknown_key":
                self.warnings.append(event.text)

    @property
    def told(self) -> tuple[int, bool]:
        return self.engine.unknown_key_nodes, self.engine.missed_rotation


def test_a_member_that_missed_a_rotation_says_so_once_a_minute() -> None:
    member = Member()
    member.run(30, KEY)
    assert member.told == (0, False) and not member.warnings
    member.run(30, OTHER_KEY)
    assert member.told == (3, True)
    assert member.warnings == [
        "packets from 3 addresses are signed with a key that this member does not have; it may have missed a rotation: "
        "deploy again, or give it the keys of the other members"
    ]
    member.run(300, OTHER_KEY)
    assert len(member.warnings) == 6
    assert member.engine.counters["rx_unknown_key"] == 3 * 2 * 330
    member.engine.replace_keys(Keyring.single("default", OTHER_KEY), member.now())
    assert member.told == (0, False)
    member.run(60, OTHER_KEY)
    assert member.told == (0, False) and len(member.warnings) == 6
    assert {one.state for one in member.engine.members(member.now())} == {State.ALIVE}


def test_a_member_among_others_tells_of_the_one_that_signs_with_another_key() -> None:
    member = Member()
    for _ in range(40):
        member.run(1, KEY)
        member.hear(OTHERS[0], THIRD_KEY)
    assert member.told == (1, False)
    assert len(member.warnings) == 1
    assert member.warnings[0].startswith(
        "packets from 1 addresses are signed with a key that this member does not have"
    )
    assert "their nodes may have missed a rotation" in member.warnings[0]
    member.run(130, KEY)
    assert member.told == (0, False)


def test_strangers_store_and_log_nothing() -> None:
    """Whoever knows the name of the cluster can send such packets, from any address, without end."""
    member = Member()
    member.run(10, KEY)
    for number in range(5000):
        member.hear(Address(f"203.0.{number // 250}.{number % 250 + 1}", 8000), OTHER_KEY)
    member.run(120, KEY)
    assert member.engine.counters["rx_unknown_key"] == 5000
    assert member.told == (0, False) and not member.warnings


@pytest.mark.parametrize("kind", [PacketType.HEARTBEAT, PacketType.EDGE_PROBE])
def test_what_is_stored_is_bounded(kind: PacketType) -> None:
    """Even if all of them are seeds."""
    member = Member(knows=False)
    seeds = [Address(f"198.18.2.{number}", 8000) for number in range(1, 101)]
    for seed in seeds:
        member.engine.seed(Node(seed.ip, seed.port), member.now())
    for seed in seeds:
        member.hear(seed, OTHER_KEY, kind)
    assert member.engine.unknown_key_nodes == MOST
    member.run(130)
    assert member.engine.unknown_key_nodes == 0


def test_a_data_plane_that_drops_such_packets_is_enough_for_an_isolated_member() -> None:
    member = Member()
    member.run(5, KEY)
    for _ in range(60):
        member.engine.dropped_unknown_keys(member.now())
        member.run(1)
    assert member.told == (0, True)
    assert len(member.warnings) == 1 and member.warnings[0].startswith("packets are signed with a key")


def test_a_data_plane_that_drops_such_packets_is_not_enough_for_others() -> None:
    """A stranger who knocks at the port."""
    member = Member()
    for _ in range(60):
        member.engine.dropped_unknown_keys(member.now())
        member.run(1, KEY)
    assert member.told == (0, False) and not member.warnings


def test_other_keys_are_told_at_once() -> None:
    """By a record, which is a rumor that is signed with the new key."""
    member = Member()
    before = member.engine.local.record
    keyring = Keyring("default", [("retiring", KEY), ("active", OTHER_KEY)])
    member.engine.replace_keys(keyring, member.now())
    record = member.engine.local.record
    assert before is not None and record is not None and record.digest != before.digest
    assert record.keys == tuple(sorted(keyring.states))
    assert any(isinstance(event, MemberChanged) for event in member.engine.take_events())
    (rumor,) = [found for found in member.engine.take_transmits() if found.data[3] == PacketType.RECORD]
    assert rumor.data[8] == derive("default", OTHER_KEY).id
    member.engine.replace_keys(keyring, member.now())
    assert not member.engine.take_transmits(), "nothing has changed"


def test_packets_of_both_keys_are_taken_while_a_key_is_rotated() -> None:
    member = Member()
    for keys in (
        [("active", KEY), ("staged", OTHER_KEY)],
        [("retiring", KEY), ("active", OTHER_KEY)],
    ):
        member.engine.replace_keys(Keyring("default", keys), member.now())
        for secret in (KEY, OTHER_KEY):
            member.run(3, secret)
    assert member.engine.counters["rx_unknown_key"] == member.engine.counters["rx_duplicate"] == 0
    member.engine.replace_keys(Keyring.single("default", OTHER_KEY), member.now())
    member.run(1, KEY, every=1)
    assert member.engine.counters["rx_unknown_key"] == 3
    member.run(3, OTHER_KEY)
    assert member.engine.counters["rx_unknown_key"] == 3
