# SPDX-License-Identifier: MIT
"""What two members tell each other when their NodeLists differ, and what that costs."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.keys import KEY
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import Rumor
from xdp_gossip.core.messages import MemberInfo, MemberList, NodeListRequest, SyncRequest
from xdp_gossip.core.packets import FLAG_CATCHING_UP, Header, PacketType
from xdp_gossip.core.registry import Message
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.sync.allowance import WINDOW
from xdp_gossip.core.sync.nodelists import FEW_NODES, KNOWN
from xdp_gossip.core.types import Address, Node, Now, State
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

CODEC = NativeCodec(Keyring.single("test", KEY))
#: A cycle so long that nobody is missed meanwhile.
SETTINGS = Settings(cycle=600.0)
FEW = 40


def address(number: int) -> Address:
    return Address(f"198.18.{1 + number // 200}.{1 + number % 200}", 8000)


def info(number: int, incarnation: int = 1, state: State = State.ALIVE, sequence: int = 1) -> MemberInfo:
    return MemberInfo(address(number), incarnation, sequence, state, 0, incarnation, 0)


class World:
    """Two members, A and B, that get what others tell them, and what they send each other."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.mono = 1000.0
        self.engines = {
            Address(f"198.18.0.{last}", 8000): Engine(
                Node(f"198.18.0.{last}", 8000, f"node{last}"), settings, CODEC, random.Random(last), 1
            )
            for last in (1, 2)
        }
        self.a, self.b = self.engines.values()
        self.sequences: Counter[Address] = Counter()
        #: Bytes of direct packets between the two, and the messages.
        self.bytes = self.longest = 0
        self.sent: Counter[str] = Counter()
        for engine in self.engines.values():
            engine.start(self.now)
        self.sync(self.a)
        self.sync(self.b)

    @property
    def now(self) -> Now:
        return Now(self.mono, int(self.mono * 1e9))

    def tell(self, engine: Engine, infos: list[MemberInfo], friends: int = 0) -> None:
        """Let others tell ``engine`` of members. ``friends``: which others."""
        for start in range(0, len(infos), 1000):
            origin = Address(f"198.19.{friends}.{1 + start // 1000}", 8000)
            self.receive(engine, origin, MemberList(tuple(infos[start : start + 1000])), PacketType.SWAP_RESPONSE)

    def receive(self, engine: Engine, origin: Address, message: Message, kind: PacketType) -> None:
        self.sequences[origin] += 1
        header = Header(
            kind, origin, 1, 10_000 + self.sequences[origin], self.now.wall_ns, 0, 0, flags=FLAG_CATCHING_UP
        )
        engine.receive(CODEC.encode(header, message), origin, self.now)

    def deliver(self) -> None:
        """Deliver what the two send each other, until they are silent."""
        waiting = True
        while waiting:
            waiting = False
            for own, engine in self.engines.items():
                engine.take_events()
                for transmit in engine.take_transmits():
                    other = None if isinstance(transmit, Rumor) else self.engines.get(transmit.to)
                    if other is None:
                        continue
                    header = CODEC.parse(transmit.data)
                    message = CODEC.open(transmit.data, header)
                    waiting = True
                    self.bytes += len(transmit.data)
                    self.longest = max(self.longest, len(transmit.data))
                    self.sent[type(message).__name__] += 1
                    other.receive(transmit.data, own, self.now)

    def grow_up(self) -> None:
        """Let the two run for longer than a fleet takes to form."""
        for engine in self.engines.values():
            engine._identity.tick(self.now)
        self.mono += 700.0
        self.deliver()

    def outgoing(self, engine: Engine) -> list[Message | None]:
        """What ``engine`` sends to single nodes now; nobody gets it."""
        direct = [each for each in engine.take_transmits() if not isinstance(each, Rumor)]
        return [CODEC.open(each.data, CODEC.parse(each.data)) for each in direct]

    def sync(self, engine: Engine, times: int = 1) -> None:
        """Let ``engine`` open syncs with the other one."""
        (other,) = (each for each in self.engines.values() if each is not engine)
        for _ in range(times):
            engine._anti_entropy.request(other.node.address, self.now)
            self.deliver()
        assert self.a.counters["member_lists_withheld"] == self.b.counters["member_lists_withheld"] == 0

    def known(self, engine: Engine) -> dict[Address, tuple[int, State]]:
        """What ``engine`` knows of the members that the two were told of."""
        return {
            member.address: (member.incarnation, member.state)
            for member in engine.members(self.now)
            if member.address.ip.split(".")[2] != "0"
        }

    def equal(self) -> bool:
        return self.a._lists.digest == self.b._lists.digest


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.slow
def test_one_new_member_among_ten_thousand_costs_two_members_less_than_4_kb(world: World) -> None:
    everybody = [info(number) for number in range(10_000)]
    for engine, infos in ((world.a, everybody), (world.b, everybody[:-1])):
        world.tell(engine, infos)
    world.deliver()
    world.bytes = 0
    world.sync(world.a)
    print(f"{world.bytes} bytes: {dict(world.sent)}")
    assert len(world.known(world.b)) == 10_000
    assert world.equal()
    assert world.bytes < 4000
    world.bytes = 0
    world.tell(world.a, [info(4711, incarnation=2)])
    world.sync(world.b)
    assert world.known(world.b)[address(4711)] == (2, State.ALIVE)
    assert world.equal()
    assert world.bytes < 4000


@pytest.mark.slow
def test_who_joins_ten_thousand_is_told_of_each_once(world: World) -> None:
    """As many as one member may report in a window, of random buckets, again and again."""
    world.tell(world.b, [info(number) for number in range(10_000)])
    world.bytes = 0
    syncs = 0
    while not world.equal():
        assert syncs < 100, f"{len(world.known(world.a))} members are known"
        world.sync(world.a)
        world.mono += WINDOW / 4
        syncs += 1
    print(f"{world.bytes} bytes in {syncs} syncs")
    assert len(world.known(world.a)) == 10_000
    assert world.a.counters["members_withheld"] < 500
    assert world.bytes < 1_000_000


def test_few_members_are_told_at_once(world: World) -> None:
    world.tell(world.a, [info(number) for number in range(FEW)])
    world.tell(world.b, [info(number) for number in range(FEW // 2, FEW + 10)])
    world.sent.clear()
    world.sync(world.a)
    assert FEW + 10 + 3 <= FEW_NODES
    assert world.sent == {"SyncRequest": 1, "SyncResponse": 1, "MemberList": 2}
    assert world.known(world.a) == world.known(world.b)
    assert world.equal()


def test_a_member_that_left_is_told_by_whoever_knows(world: World) -> None:
    everybody = [info(number) for number in range(500)]
    world.tell(world.a, everybody)
    world.tell(world.b, everybody)
    left = info(7, state=State.LEFT, sequence=2)
    for knows, asks in ((world.a, world.a), (world.b, world.a)):
        world.tell(knows, [left])
        world.sync(asks)
        assert world.known(world.a)[left.address] == world.known(world.b)[left.address] == (1, State.LEFT)
        assert world.equal()
        left = info(8, state=State.LEFT, sequence=2)


lists = st.dictionaries(st.integers(0, 399), st.integers(1, 3), max_size=400)


@settings(max_examples=30)
@given(lists, lists, st.sampled_from([0, 100, 300]))
def test_after_a_sync_both_know_the_newest_of_all(one: dict[int, int], two: dict[int, int], shared: int) -> None:
    world = World()
    common = dict.fromkeys(range(1000, 1000 + shared), 1)
    for engine, told in ((world.a, one), (world.b, two)):
        world.tell(engine, [info(number, incarnation) for number, incarnation in {**common, **told}.items()])
    # A half of a bucket's digest may be equal by chance; then the next sync has the other half.
    world.sync(world.a, times=3)
    newest = {n: max(one.get(n, 0), two.get(n, 0), common.get(n, 0)) for n in {*one, *two, *common}}
    expected = {address(number): (incarnation, State.ALIVE) for number, incarnation in newest.items()}
    assert world.known(world.a) == world.known(world.b) == expected
    assert world.equal()


@pytest.mark.slow
def test_long_lists_fit_the_smallest_frames() -> None:
    world = World(Settings(cycle=600.0, size=4096))
    world.tell(world.a, [info(number) for number in range(3000)])
    world.tell(world.b, [info(number, incarnation=2) for number in range(3000)])
    world.sync(world.a)
    assert world.sent["NodeListRequest"] > 1
    assert world.equal()
    assert world.longest <= 4096


def test_a_member_that_asks_all_the_time_is_told_within_its_allowance(world: World) -> None:
    world.tell(world.a, [info(number) for number in range(1000)])
    for _ in range(50):
        asks = NodeListRequest(tuple(range(128)), ())
        world.receive(world.a, world.b.node.address, asks, PacketType.SWAP_REQUEST)
    assert world.a.counters["member_lists_withheld"] >= 40
    told = sum(len(message.members) for message in world.outgoing(world.a) if isinstance(message, MemberList))
    assert 0 < told <= 10 * 1003


def test_a_member_that_says_not_to_know_anybody_gets_what_it_was_asked_for_and_no_more(world: World) -> None:
    for engine in (world.a, world.b):
        world.tell(engine, [info(number) for number in range(200)])
        world.tell(engine, [info(number, state=State.LEFT) for number in range(200, 400)])
    hashes = tuple(peer.state_hash for peer in world.a._membership if peer.state_hash)
    world.sent.clear()
    unknown = MemberList((), True, (0, *hashes, 99))
    world.receive(world.a, world.b.node.address, unknown, PacketType.SWAP_RESPONSE)
    world.deliver()
    assert world.sent == {}, "it was not asked for anything"
    assert world.a.counters["rx_unasked_response"] == 1
    bucket = world.a._membership.get(address(3)).bucket  # type: ignore[union-attr]
    world.a._lists._ask([bucket], 200, world.b.node.address, world.now)
    world.a.take_transmits()
    for _ in range(3):
        world.receive(world.a, world.b.node.address, unknown, PacketType.SWAP_RESPONSE)
    answers = [message for message in world.outgoing(world.a) if isinstance(message, MemberList)]
    assert len(answers) == 1
    present = {peer.address for peer in world.a._membership.in_bucket(bucket) if peer.state_hash}
    assert {told.address for told in answers[0].members} == present


@pytest.mark.slow
def test_a_node_has_caught_up_when_all_buckets_were_told(world: World) -> None:
    """Not when a part of them was, nor by a list that somebody else asked for."""
    caught: list[int] = []
    world.a._catch_up.members_told = lambda peer, now: caught.append(1)  # type: ignore[method-assign]
    world.tell(world.b, [info(number) for number in range(5000)])
    world.sync(world.b)
    assert not caught
    before = 0
    while not world.equal():
        assert not caught
        before = len(world.known(world.a))
        world.mono += WINDOW
        world.sync(world.a)
    assert before < 5000
    assert caught


def test_known_hashes_beyond_the_bound_are_not_looked_at(world: World) -> None:
    world.tell(world.a, [info(number) for number in range(100)])
    known = NodeListRequest((0,), tuple(range(1, KNOWN + 500)))
    world.receive(world.a, world.b.node.address, known, PacketType.SWAP_REQUEST)
    (answer,) = (message for message in world.outgoing(world.a) if isinstance(message, MemberList))
    assert len(answer.unknown) == KNOWN


@pytest.mark.parametrize("asks", [0, 1])
def test_newcomers_of_a_long_list_are_no_other_fleet(world: World, asks: int) -> None:
    everybody = [info(number) for number in range(200)]
    world.tell(world.a, everybody)
    world.tell(world.b, everybody)
    world.grow_up()
    for number in (300, 301):
        world.tell(world.a, [info(number)])
    world.sync((world.a, world.b)[asks])
    assert world.known(world.b).keys() >= {address(300), address(301)}
    assert world.a.counters["fleets_met"] == world.b.counters["fleets_met"] == 0


@pytest.mark.parametrize("asks", [0, 1])
def test_two_large_fleets_that_meet_are_told_apart(world: World, asks: int) -> None:
    world.tell(world.a, [info(number) for number in range(150)], friends=1)
    world.tell(world.b, [info(number) for number in range(1000, 1150)], friends=2)
    world.grow_up()
    world.sync((world.a, world.b)[asks])
    assert world.a.counters["fleets_met"] == world.b.counters["fleets_met"] == 1


def test_nothing_stays_of_a_member_that_is_forgotten(world: World) -> None:
    for engine in world.engines.values():
        world.tell(engine, [info(number) for number in range(200)])
    world.tell(world.a, [info(300)])
    world.sync(world.b)
    lists = world.b._lists
    lists._withheld.add(world.a.node.address)
    lists._ask([0], 200, world.a.node.address, world.now)
    assert lists.shares_nodes(world.a.node.address)
    peer = world.b._membership.get(world.a.node.address)
    assert peer is not None
    world.b._membership.forget(peer)
    assert (lists._sharing, lists._withheld, lists._awaited) == (set(), set(), {})


def test_a_wrong_digest_costs_bucket_digests_only(world: World) -> None:
    world.tell(world.a, [info(number) for number in range(5000)])
    world.deliver()
    world.bytes = 0
    world.sent.clear()
    world.receive(world.a, world.b.node.address, SyncRequest(2, 12345, ()), PacketType.SWAP_REQUEST)
    world.deliver()
    assert world.sent["SyncResponse"] == 1
    assert world.bytes < 1300
