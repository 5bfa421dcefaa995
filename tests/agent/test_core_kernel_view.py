# SPDX-License-Identifier: MIT
"""An engine above a data plane that screens, records and relays by itself."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.keys import KEY
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import MemberChanged, Rumor, Standing, Transmit
from xdp_gossip.core.kernel_view import Observation
from xdp_gossip.core.members.peer import key_of
from xdp_gossip.core.members.window import ReplayWindow
from xdp_gossip.core.messages import MemberInfo, MemberList
from xdp_gossip.core.packets import FLAG_PAUSED, Header, PacketType
from xdp_gossip.core.settings import Limits, Settings
from xdp_gossip.core.types import Address, Node, Now, State
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

CODEC = NativeCodec(Keyring.single("test", KEY))
WALL = 1_700_000_000 * 10**9
PEER = Address("198.18.0.2", 8000)
RELAY = Address("198.18.0.9", 8000)


def at(mono: float) -> Now:
    return Now(mono, WALL + int((mono - 100.0) * 1e9))


def engine(**settings: float) -> Engine:
    made = Engine(
        Node("198.18.0.1", 8000, "self"), Settings(cycle=1.0, **settings), CODEC, random.Random(1), incarnation=5
    )
    made.start(at(100.0))
    made._edges.run = made._edges.rest  # type: ignore[method-assign] # nobody answers here: silence alone decides
    made.take_events()
    made.take_transmits()
    return made


def row(
    last_seen: float, address: Address = PEER, sequence: int = 1, incarnation: int = 7, flags: int = 0
) -> Observation:
    return (key_of(address), incarnation, sequence, 1, last_seen, 0.0, 0, 0, flags)


def heartbeat(sequence: int, now: Now, incarnation: int = 7, ttl: int = 3) -> bytes:
    header = Header(PacketType.HEARTBEAT, PEER, incarnation, sequence, now.wall_ns, 0, 0, ttl=ttl)
    return CODEC.encode(header, None)


def state_of(made: Engine, address: Address, now: Now) -> State | None:
    return next((member.state for member in made.members(now) if member.address == address), None)


def standings(made: Engine) -> list[tuple[str, str]]:
    return [(str(e.address), e.standing) for e in made.take_events() if isinstance(e, Standing)]


def run(made: Engine, until: float, step: float = 0.1) -> list[Transmit | Rumor]:
    sent: list[Transmit | Rumor] = []
    now = until - step * int((until - 100.0) / step)
    while now <= until:
        made.handle_timer(at(now))
        sent += made.take_transmits()
        now += step
    return sent


def test_whoever_was_recorded_is_a_member() -> None:
    made = engine()
    made.observe([row(100.5)], at(101.0))
    assert state_of(made, PEER, at(101.0)) is State.ALIVE
    member = made.members(at(101.0))[1]
    assert member.last_heard == pytest.approx(0.5)
    assert standings(made) == [(str(PEER), "present")]


def test_a_paused_origin_is_no_sign_of_life() -> None:
    made = engine()
    made.observe([row(0.0, flags=FLAG_PAUSED)], at(101.0))
    assert state_of(made, PEER, at(101.0)) is not State.ALIVE


def test_an_earlier_run_is_left_aside() -> None:
    made = engine()
    made.observe([row(101.0, incarnation=7)], at(101.0))
    made.observe([row(103.0, incarnation=6)], at(103.0))
    assert made.members(at(103.0))[1].last_heard == pytest.approx(2.0)


def test_silence_counts_only_as_far_as_the_plane_was_read() -> None:
    made = engine()
    made.observe([row(101.0)], at(101.0))
    run(made, 130.0)
    assert state_of(made, PEER, at(130.0)) is State.ALIVE
    made.observe([row(129.5, sequence=20)], at(130.0))
    run(made, 132.0)
    assert state_of(made, PEER, at(132.0)) is State.ALIVE


def test_who_was_silent_until_the_last_look_is_probed_and_removed() -> None:
    made = engine()
    made.observe([row(101.0)], at(101.0))
    made.observe([row(101.0)], at(107.0))
    sent = run(made, 107.5)
    assert state_of(made, PEER, at(107.5)) is State.SUSPECT
    assert any(isinstance(item, Transmit) and item.to == PEER for item in sent)
    assert made.observation_due < 108.0
    for second in range(1, 8):
        made.observe([row(101.0)], at(107.5 + second))
        run(made, 107.5 + second)
    assert state_of(made, PEER, at(115.0)) is State.DEAD
    assert [standing for _, standing in standings(made)] == ["present", "suspect", "gone"]


def test_a_sign_of_life_in_the_table_clears_a_suspect() -> None:
    made = engine()
    made.observe([row(101.0)], at(101.0))
    made.observe([row(101.0)], at(107.0))
    run(made, 107.2)
    made.observe([row(107.3, sequence=2)], at(107.4))
    assert state_of(made, PEER, at(107.4)) is State.ALIVE


def test_without_a_plane_again_silence_counts_by_the_clock() -> None:
    made = engine()
    made.observe([row(101.0)], at(101.0))
    made.stop_observing()
    run(made, 107.0)
    assert state_of(made, PEER, at(107.0)) is State.SUSPECT


def test_the_table_is_wanted_once_a_cycle_and_not_after_leaving() -> None:
    made = engine()
    assert made.observation_due <= 100.0
    made.observe([], at(101.0))
    assert made.observation_due == pytest.approx(102.0)
    made.leave(at(101.5))
    assert made.observation_due == float("inf")


def test_newcomers_beyond_the_limit_are_given_back() -> None:
    made = engine(limits=Limits(nodes=1))
    other = Address("198.18.0.3", 8000)
    made.observe([row(101.0), row(101.0, other)], at(101.0))
    assert state_of(made, other, at(101.0)) is None
    assert (str(other), "forgotten") in standings(made)


def test_a_screened_rumor_is_taken_though_the_table_knows_it_already() -> None:
    made = engine()
    made.observe([row(101.0, sequence=1)], at(101.0))
    made.take_events()
    made.receive(heartbeat(1, at(101.0)), RELAY, at(101.1), screened=True)
    assert made.counters["rx_duplicate"] == 0
    assert made.take_transmits() == []


def test_an_unscreened_rumor_is_relayed_and_the_plane_told() -> None:
    made = engine()
    made.observe([row(101.0), row(101.0, RELAY), row(101.0, Address("198.18.0.4", 8000))], at(101.0))
    made.take_events()
    made.receive(heartbeat(5, at(101.2)), RELAY, at(101.2))
    assert [item.to for item in made.take_transmits() if isinstance(item, Transmit)] == [Address("198.18.0.4", 8000)]
    assert standings(made) == [(str(PEER), "present")]


def test_own_rumors_come_as_one_for_several() -> None:
    made = engine(amount=2)
    others = [Address(f"198.18.0.{number}", 8000) for number in range(2, 12)]
    made.observe([row(101.0, address) for address in others], at(101.0))
    made.documents.publish("k", b"v", at(101.1))
    (rumor,) = [item for item in made.take_transmits() if isinstance(item, Rumor)]
    assert len(set(rumor.targets)) == 6, "a document goes to three times amount"


def test_members_that_the_plane_lost_are_told_as_changed() -> None:
    made = engine()
    made.observe([row(101.0)], at(101.0))
    assert [e.member.address for e in made.take_events() if isinstance(e, MemberChanged)] == [PEER]


def test_the_ring_holds_everybody_or_a_sample_that_moves_on() -> None:
    made = engine()
    others = [Address(f"198.18.1.{number}", 8000) for number in range(1, 101)]
    made.observe([row(101.0, address) for address in others], at(101.0))
    assert sorted(made.relay_targets(256)) == sorted(others)
    first = made.relay_targets(40)
    assert len(set(first)) == 40
    second = made.relay_targets(40)
    assert len(set(second)) == 40
    assert len(set(first) & set(second)) == 35
    seen = set(first)
    for _ in range(60):
        seen |= set(made.relay_targets(40))
    assert len(seen) > 90, "everybody's turn comes"


@pytest.mark.slow
@given(st.lists(st.integers(1, 200), max_size=40), st.lists(st.integers(1, 200), max_size=40))
def test_merged_windows_know_what_either_saw(ours: list[int], theirs: list[int]) -> None:
    left, right = ReplayWindow(64), ReplayWindow(64)
    for sequence in ours:
        left.commit(sequence)
    for sequence in theirs:
        right.commit(sequence)
    highest = max([0, *ours, *theirs])
    left.merge(right.highest, right.bits)
    assert left.highest == highest
    for sequence in range(1, highest + 2):
        known = highest - sequence < 64 and sequence in {*ours, *theirs}
        assert left.fresh(sequence) == (sequence > highest or (highest - sequence < 64 and not known))


def test_the_tally_counts_what_the_members_are() -> None:
    made = engine()
    others = [Address(f"198.18.1.{number}", 8000) for number in range(1, 6)]
    made.observe([row(101.0, address) for address in others], at(101.0))
    for second in range(2, 12):
        made.observe([row(100.0 + second, address, second) for address in others[:3]], at(100.0 + second))
        run(made, 100.0 + second)
        states = [member.state for member in made.members(at(100.0 + second))]
        assert made.tally() == {state: states.count(state) for state in State}
    assert made.tally()[State.DEAD] == 2
    made.leave(at(112.0))
    assert made.tally()[State.LEFT] == 1


def test_who_died_while_no_agent_looked_is_gone_at_once() -> None:
    made = engine()
    made.observe([row(90.0)], at(101.0))
    assert state_of(made, PEER, at(101.0)) is State.DEAD
    assert (str(PEER), "gone") in standings(made)
    made.observe([row(101.5, sequence=9)], at(102.0))
    assert state_of(made, PEER, at(102.0)) is State.ALIVE


def test_an_old_sign_of_life_does_not_bring_a_dead_node_back() -> None:
    made = engine()
    made.observe([row(101.0)], at(101.0))
    for second in range(2, 14):
        made.observe([row(101.0)], at(100.0 + second))
        run(made, 100.0 + second)
    assert state_of(made, PEER, at(113.0)) is State.DEAD
    made.observe([row(106.0, sequence=3)], at(113.0))
    assert state_of(made, PEER, at(113.0)) is State.DEAD


def hearsay(made: Engine, sequence: int, incarnation: int = 7, digest: int = 0) -> None:
    """RELAY tells of PEER; 0 is the digest of ``made``, which holds no documents."""
    info = MemberInfo(PEER, incarnation, sequence, State.ALIVE, 0, 0, digest)
    header = Header(PacketType.SWAP_RESPONSE, RELAY, 7, 100 * incarnation + sequence, at(101.0).wall_ns, 0, 0)
    made.receive(CODEC.encode(header, MemberList((info,))), RELAY, at(101.0))


def on_disk(made: Engine) -> tuple[int, bool]:
    """The digest that PEER is known by, and whether all that this stands for is on its disk."""
    member = next(member for member in made.members(at(101.0)) if member.address == PEER)
    return member.digest, member.stored


def test_what_is_on_a_members_disk_only_it_can_tell() -> None:
    made = engine()
    hearsay(made, 1)
    assert on_disk(made) == (0, False), "nobody heard it itself"
    told = Header(PacketType.HEARTBEAT, PEER, 7, 2, at(101.0).wall_ns, documents_digest=5, record_digest=0, ttl=3)
    made.receive(CODEC.encode(told, None), PEER, at(101.0))
    assert on_disk(made) == (5, True)
    hearsay(made, 3, digest=5)
    assert on_disk(made) == (5, True), "nothing new"
    hearsay(made, 4)
    assert on_disk(made) == (0, False)
    made.receive(heartbeat(5, at(101.0)), PEER, at(101.0))
    assert on_disk(made) == (0, True)
    hearsay(made, 1, incarnation=8)
    assert on_disk(made) == (0, False), "what a new run has on its disk is not known"


def test_a_row_that_brings_nothing_new_does_not_confirm_hearsay() -> None:
    made = engine()
    key, incarnation, sequence, window, seen, ahead, _digest, record, flags = row(101.0)
    recorded = (key, incarnation, sequence, window, seen, ahead, 5, record, flags)
    made.observe([recorded], at(101.0))
    assert on_disk(made) == (5, True)
    hearsay(made, 2)
    made.observe([recorded], at(101.0))
    assert on_disk(made) == (0, False)
    made.observe([row(101.0, sequence=3)], at(101.0))
    assert on_disk(made) == (0, True)
