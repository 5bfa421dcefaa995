# SPDX-License-Identifier: MIT
"""Observers in their parts: rings, edges, cuts, answers and readmission. ``tests/sim/test_detection.py`` has fleets."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.keys import KEY
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import Rumor, Transmit
from xdp_gossip.core.messages import Alert, Alerts, MemberInfo, MemberList, Removed
from xdp_gossip.core.observers.edges import REPEATED_AT_LAST, REPEATED_FIRST, ROUNDS_KEPT
from xdp_gossip.core.observers.readmission import CLEAN_FOR, Readmission
from xdp_gossip.core.observers.rings import NEIGHBOURS, K, Rings, watermarks
from xdp_gossip.core.packets import FLAG_PAUSED, Header, PacketType
from xdp_gossip.core.registry import Message
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, EdgeState, Node, Now, State
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

CODEC = NativeCodec(Keyring.single("test", KEY))
WALL = 1_700_000_000 * 10**9


def address(number: int) -> Address:
    return Address(f"198.18.{number // 250}.{number % 250 + 1}", 8000)


def rings(members: list[Address]) -> Rings:
    made = Rings()
    made.update(members)
    return made


# -- rings -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.sets(st.integers(0, 5000), min_size=2, max_size=60), st.randoms())
def test_all_members_compute_the_same_rings_in_whatever_order_they_learn_of_each_other(
    numbers: set[int], order: random.Random
) -> None:
    members = [address(number) for number in sorted(numbers)]
    grown = Rings()
    shuffled = list(members)
    order.shuffle(shuffled)
    for end in range(1, len(shuffled) + 1):
        grown.update(shuffled[:end] + [address(9000)])
    grown.update(shuffled)
    whole = rings(members)
    for member in members:
        assert grown.observers(member) == whole.observers(member)
        assert member not in whole.observers(member)
        for subject in whole.subjects(member):
            assert member in whole.observers(subject)
        for observer in whole.observers(member):
            assert member in whole.subjects(observer)


def test_up_to_eleven_members_all_observe_each_other() -> None:
    members = [address(number) for number in range(K + 1)]
    made = rings(members)
    assert all(made.observers(member) == made.subjects(member) == set(members) - {member} for member in members)


@pytest.mark.parametrize("size", [12, 100, 2000])
def test_nobody_has_more_than_ten_subjects_or_observers(size: int) -> None:
    members = [address(number) for number in range(size)]
    made = rings(members)
    observers = [len(made.observers(member)) for member in members]
    assert max(observers) <= K and max(len(made.subjects(member)) for member in members) <= K
    assert sum(observers) / size > (9 if size >= 100 else 6)


def test_who_is_no_member_has_observers_too() -> None:
    members = [address(number) for number in range(100)]
    gone = address(7)
    before = rings(members).observers(gone)
    after = rings([member for member in members if member != gone])
    assert after.observers(gone) == before
    assert after.observers(gone, NEIGHBOURS) > before


@pytest.mark.parametrize(
    ("observers", "low", "high"),
    [(1, 1, 1), (2, 2, 2), (3, 2, 3), (4, 2, 4), (5, 2, 4), (7, 2, 6), (9, 3, 8), (10, 3, 9)],
)
def test_the_watermarks(observers: int, low: int, high: int) -> None:
    assert watermarks(observers) == (low, high)


# -- an engine among others, whose hosts answer or do not --------------------------------------------------------------


class Fleet:
    """One engine, and members that exist in its tests only."""

    def __init__(self, others: int) -> None:
        self.mono = 100.0
        self.engine = Engine(Node("198.18.100.1", 8000), Settings(cycle=1.0), CODEC, random.Random(1), incarnation=5)
        self.others = [address(number) for number in range(others)]
        self.runs = dict.fromkeys(self.others, 1)
        self._sequences: Counter[Address] = Counter()
        self.deaf: set[Address] = set()
        self.lease: dict[Address, int] = {}
        self.sent: list[tuple[Address, Header, Message | None]] = []
        self.rumors: list[tuple[Header, Message | None]] = []
        self.engine.start(self.now)
        infos = [MemberInfo(other, 1, 1, State.ALIVE, 0, 0, 0) for other in self.others]
        self.receive(self.others[0], PacketType.SWAP_RESPONSE, MemberList(tuple(infos)))

    @property
    def now(self) -> Now:
        return Now(self.mono, WALL + int((self.mono - 100.0) * 1e9))

    def receive(self, origin: Address, kind: PacketType, message: Message | None = None, **fields: int) -> None:
        self._sequences[origin] += 1
        sequence = fields.pop("sequence", self._sequences[origin] + 1)
        header = Header(kind, origin, self.runs[origin], sequence, self.now.wall_ns, 0, 0, **fields)
        self.engine.receive(CODEC.encode(header, message), origin, self.now)
        self._collect()

    def run(self, seconds: float) -> None:
        """Let time pass; the members send heartbeats, and the hosts that are not deaf answer probes."""
        end = self.mono + seconds
        while self.mono < end:
            self.mono += 0.25
            self.engine.handle_timer(self.now)
            if self.mono % 1 == 0:
                for other in self.others:
                    if other not in self.lease:
                        self.receive(other, PacketType.HEARTBEAT)
            self._collect()

    def _collect(self) -> None:
        for transmit in self.engine.take_transmits():
            header = CODEC.parse(transmit.data)
            message = CODEC.open(transmit.data, header)
            if isinstance(transmit, Rumor):
                self.rumors.append((header, message))
                continue
            self.sent.append((transmit.to, header, message))
            if header.type is PacketType.EDGE_PROBE and transmit.to not in self.deaf:
                age = self.lease.get(transmit.to, 0)
                self.receive(transmit.to, PacketType.EDGE_ACK, sequence=header.sequence, lease_age_ms=age)

    def alert(self, observer: Address, subject: Address, state: EdgeState = EdgeState.FAILED) -> None:
        run = self.engine.incarnation if subject == self.engine.node.address else self.runs[subject]
        self.receive(observer, PacketType.ALERT, Alerts((Alert(subject, run, state),)))

    def state(self, other: Address) -> State:
        return next(m.state for m in self.engine.members(self.now) if m.address == other)

    def told(self) -> list[Alert]:
        return [alert for _, message in self.rumors if isinstance(message, Alerts) for alert in message.alerts]

    def count(self, name: str) -> int:
        return self.engine.counters[name]


def test_a_subject_that_answers_nothing_is_told_once_and_then_more_and_more_seldom() -> None:
    fleet = Fleet(5)
    fleet.run(12.0)
    assert fleet.told() == []
    fleet.deaf.add(fleet.others[0])
    fleet.run(6.0)
    assert fleet.told() == [Alert(fleet.others[0], 1, EdgeState.FAILED)]
    pauses = [REPEATED_FIRST * 2**n for n in range(6)] + [REPEATED_AT_LAST, REPEATED_AT_LAST]
    end = fleet.engine.edge_round + sum(pauses)
    while fleet.engine.edge_round < end:
        fleet.run(0.25)
    assert len(fleet.told()) == 1 + len(pauses)
    assert fleet.state(fleet.others[0]) is State.ALIVE, "one observer is no proof"
    fleet.deaf.clear()
    fleet.run(12.0)
    assert fleet.told()[-1] == Alert(fleet.others[0], 1, EdgeState.OK)


@pytest.mark.parametrize("removed", [True, False])
def test_what_a_former_run_left_unanswered_does_not_accuse_the_present_run(removed: bool) -> None:
    """The agent is killed, and starts again between a probe and the end of its round."""
    fleet = Fleet(3)
    fleet.run(12.0)
    subject, *observers = fleet.others
    fleet.deaf.add(subject)
    while Alert(subject, 1, EdgeState.FAILED) not in fleet.told():
        fleet.run(0.25)
    if removed:
        for observer in observers:
            fleet.alert(observer, subject)
        assert fleet.state(subject) is State.DEAD
    fleet.deaf.clear()
    fleet.runs[subject] = 2
    fleet.receive(subject, PacketType.HEARTBEAT)
    fleet.run(15.0)
    assert [alert for alert in fleet.told() if alert.incarnation == 2 and alert.state is EdgeState.FAILED] == []
    assert fleet.state(subject) is State.ALIVE


def test_what_all_lose_the_observer_loses() -> None:
    """Every subject leaves half of the probes unanswered: this host accuses nobody."""
    fleet = Fleet(8)
    for second in range(60):
        fleet.deaf = set(fleet.others) if second % 2 else set()
        fleet.run(1.0)
    assert fleet.told() == []
    assert fleet.count("isolations") == 0


def test_from_the_low_watermark_on_suspect_and_from_the_high_one_gone() -> None:
    fleet = Fleet(10)
    fleet.run(12.0)
    subject, *observers = fleet.others
    low, high = watermarks(10)
    for number, observer in enumerate(observers[:low], 1):
        fleet.alert(observer, subject)
        assert fleet.state(subject) is (State.SUSPECT if number >= low else State.ALIVE)
    fleet.receive(subject, PacketType.HEARTBEAT)
    assert fleet.state(subject) is State.SUSPECT, "a heartbeat proves one direction only"
    for observer in observers[low:high]:
        fleet.alert(observer, subject)
    fleet.run(1.0)
    assert fleet.state(subject) is State.DEAD
    before = fleet.count("signs_of_removed")
    fleet.receive(subject, PacketType.HEARTBEAT)
    assert fleet.state(subject) is State.DEAD
    assert fleet.count("signs_of_removed") == before + 1
    fleet.runs[subject] = 2
    fleet.receive(subject, PacketType.HEARTBEAT)
    assert fleet.state(subject) is State.ALIVE


def test_reports_that_end_acquit() -> None:
    fleet = Fleet(10)
    fleet.run(12.0)
    subject, *observers = fleet.others
    for observer in observers[:3]:
        fleet.alert(observer, subject)
    assert fleet.state(subject) is State.SUSPECT
    fleet.alert(observers[0], subject, EdgeState.OK)
    assert fleet.state(subject) is State.ALIVE


def test_between_the_watermarks_for_the_suspicion_time_is_gone_and_a_new_incarnation_is_not() -> None:
    fleet = Fleet(10)
    fleet.run(12.0)
    gone, refutes, *observers = fleet.others
    for observer in observers[:4]:
        fleet.alert(observer, gone)
        fleet.alert(observer, refutes)
    assert fleet.state(gone) is fleet.state(refutes) is State.SUSPECT
    fleet.run(5.0)
    fleet.runs[refutes] = 2
    fleet.run(7.0)
    assert fleet.state(gone) is State.DEAD
    assert fleet.state(refutes) is State.ALIVE


def test_who_is_no_observer_of_it_counts_for_nothing() -> None:
    fleet = Fleet(60)
    fleet.run(12.0)
    subject = fleet.others[0]
    strangers = [
        other
        for other in fleet.others[1:]
        if other not in rings([*fleet.others, fleet.engine.node.address]).observers(subject, NEIGHBOURS)
    ]
    before = fleet.count("alerts_ignored")
    for observer in strangers:
        fleet.alert(observer, subject)
    fleet.alert(subject, subject)
    assert fleet.count("alerts_ignored") == before + len(strangers) + 1
    assert fleet.state(subject) is State.ALIVE


def test_a_host_without_its_agent() -> None:
    fleet = Fleet(10)
    fleet.run(12.0)
    subject, *observers = fleet.others
    fleet.lease[subject] = 60_000
    fleet.run(3.0)
    assert fleet.told() == [Alert(subject, 1, EdgeState.AGENT_DOWN)]
    for observer in observers[:8]:
        fleet.alert(observer, subject, EdgeState.AGENT_DOWN)
    assert fleet.state(subject) is State.ALIVE, "it was heard a moment ago, so the reports are of an earlier time"
    fleet.run(fleet.engine.timeout)
    assert fleet.state(subject) is State.AGENT_DOWN
    fleet.run(120.0)
    assert fleet.state(subject) is State.AGENT_DOWN
    fleet.lease.clear()
    fleet.run(0.75)
    fleet.receive(subject, PacketType.HEARTBEAT)
    for observer in observers[:8]:
        fleet.alert(observer, subject, EdgeState.AGENT_DOWN)
    assert fleet.state(subject) is State.ALIVE, "alerts that come late"
    fleet.run(2.0)
    assert fleet.state(subject) is State.ALIVE


def test_nobody_answers_and_nobody_is_accused() -> None:
    fleet = Fleet(6)
    fleet.run(12.0)
    fleet.deaf = set(fleet.others)
    fleet.run(6.0)
    assert fleet.engine.isolated and fleet.count("isolations") == 1
    fleet.run(60.0)
    assert fleet.told() == [] and all(fleet.state(other) is State.ALIVE for other in fleet.others)
    fleet.deaf = set(fleet.others[1:])
    fleet.run(2.0)
    assert not fleet.engine.isolated


def test_a_node_defends_itself_and_returns_when_it_was_removed() -> None:
    fleet = Fleet(10)
    fleet.run(12.0)
    own, was = fleet.engine.node.address, fleet.engine.incarnation
    for observer in fleet.others[:2]:
        fleet.alert(observer, own)
    assert fleet.engine.incarnation == was
    fleet.alert(fleet.others[2], own)
    assert fleet.engine.incarnation == was + 1
    fleet.receive(fleet.others[0], PacketType.PROBE, Removed(was))
    fleet.run(2.0)
    assert fleet.engine.incarnation == was + 1, "it returned before it was told"
    fleet.receive(fleet.others[0], PacketType.PROBE, Removed(was + 1))
    fleet.run(2.0)
    assert fleet.engine.incarnation == was + 2
    fleet.receive(fleet.others[0], PacketType.PROBE, Removed(was + 2))
    fleet.run(CLEAN_FOR - 5.0)
    assert fleet.engine.incarnation == was + 2 and fleet.count("readmissions_delayed") == 1
    fleet.run(10.0)
    assert fleet.engine.incarnation == was + 3


def test_a_refutation_that_was_withheld_is_made_up_for_at_the_next_round() -> None:
    """Ten rounds of suspicion leave no time to wait five rounds after each bad one."""
    fleet = Fleet(10)
    fleet.run(12.0)
    low, _ = watermarks(10)
    fleet.deaf = set(fleet.others)
    fleet.run(3.0)
    for observer in fleet.others[:low]:
        fleet.alert(observer, fleet.engine.node.address)
    assert fleet.count("refutations_withheld") > 0 and fleet.engine.incarnation == 5
    fleet.deaf.clear()
    fleet.run(2.5)
    assert fleet.engine.incarnation == 6
    withheld = fleet.count("refutations_withheld")
    for observer in fleet.others[:low]:
        fleet.alert(observer, fleet.engine.node.address)
    fleet.run(2.0)
    assert (fleet.engine.incarnation, fleet.count("refutations_withheld")) == (6, withheld), "once in five rounds"


def test_a_node_that_nobody_answers_spends_no_incarnation() -> None:
    fleet = Fleet(10)
    fleet.run(12.0)
    was = fleet.engine.incarnation
    fleet.deaf = set(fleet.others)
    fleet.run(3.0)
    for observer in fleet.others[:4]:
        fleet.alert(observer, fleet.engine.node.address)
    assert fleet.engine.incarnation == was and fleet.count("refutations_withheld") > 0


# -- answers -----------------------------------------------------------------------------------------------------------


def probes(fleet: Fleet, kind: PacketType) -> list[tuple[Address, Header]]:
    return [(to, header) for to, header, _ in fleet.sent if header.type is kind]


def test_a_probe_is_answered_once_to_its_origin_and_as_long_as_it_is() -> None:
    fleet = Fleet(2)
    asker = fleet.others[0]
    fleet.sent.clear()
    fleet.receive(asker, PacketType.EDGE_PROBE, sequence=10**18)
    fleet.receive(asker, PacketType.EDGE_PROBE, sequence=10**18)
    fleet.receive(asker, PacketType.EDGE_PROBE, sequence=10**18 - 1)
    (answer,) = probes(fleet, PacketType.EDGE_ACK)
    assert answer[0] == asker and answer[1].sequence == 10**18 and answer[1].origin == fleet.engine.node.address
    assert fleet.count("rx_probe_again") == 2
    fleet.runs[asker] = 2
    fleet.receive(asker, PacketType.EDGE_PROBE, sequence=5)
    assert len(probes(fleet, PacketType.EDGE_ACK)) == 2
    fleet.runs[asker] = 1
    fleet.receive(asker, PacketType.EDGE_PROBE, sequence=2 * 10**18)
    assert fleet.count("rx_probe_again") == 3


def test_a_forged_probe_is_not_answered() -> None:
    fleet = Fleet(1)
    header = Header(PacketType.EDGE_PROBE, fleet.others[0], 1, 7, fleet.now.wall_ns, 0, 0)
    data = bytearray(CODEC.encode(header, None))
    data[20] ^= 1
    before = fleet.count("rx_bad_mac")
    fleet.sent.clear()
    fleet.engine.receive(bytes(data), fleet.others[0], fleet.now)
    fleet._collect()
    assert fleet.count("rx_bad_mac") == before + 1 and probes(fleet, PacketType.EDGE_ACK) == []


def test_a_paused_node_says_so_in_its_answers() -> None:
    fleet = Fleet(1)
    fleet.engine.pause(fleet.now)
    fleet.sent.clear()
    fleet.receive(fleet.others[0], PacketType.EDGE_PROBE, sequence=9)
    (answer,) = probes(fleet, PacketType.EDGE_ACK)
    assert answer[1].flags & FLAG_PAUSED


@pytest.mark.parametrize("off", [-ROUNDS_KEPT, 1, 10**12])
def test_an_answer_to_no_round_of_this_run_counts_for_nothing(off: int) -> None:
    fleet = Fleet(3)
    fleet.run(2.0)
    fleet.deaf = set(fleet.others)
    fleet.run(2.0)
    before = fleet.count("rx_unasked_response")
    fleet.receive(fleet.others[0], PacketType.EDGE_ACK, sequence=fleet.engine.edge_round + off)
    assert fleet.count("rx_unasked_response") == before + 1


def test_all_subjects_of_a_round_get_the_same_packet() -> None:
    fleet = Fleet(8)
    fleet.run(5.0)
    seen: dict[int, set[Address]] = {}
    for to, header in probes(fleet, PacketType.EDGE_PROBE):
        seen.setdefault(header.sequence, set()).add(to)
    assert len(seen) >= 4 and set(map(frozenset, list(seen.values())[1:])) == {frozenset(fleet.others)}


def test_a_transmit_of_a_probe_is_a_datagram() -> None:
    fleet = Fleet(3)
    fleet.mono += 2.0
    fleet.engine.handle_timer(fleet.now)
    sent = [t for t in fleet.engine.take_transmits() if isinstance(t, Transmit)]
    probes_sent = [t for t in sent if CODEC.parse(t.data).type is PacketType.EDGE_PROBE]
    assert len(probes_sent) == 3 and not any(t.reliable for t in probes_sent)
    assert len({t.data for t in probes_sent}) == 1 and len(probes_sent[0].data) == 88


# -- readmission -------------------------------------------------------------------------------------------------------


def test_each_removal_within_ten_minutes_doubles_the_wait() -> None:
    readmission, mono = Readmission(), 0.0
    waits = []
    for _ in range(5):
        waits.append(readmission.removed(Now(mono, 0)))
        assert readmission.waiting
        mono += 100.0
        readmission.may_return(1e9, Now(mono + 1e9, 0))
    assert waits == [0.0, CLEAN_FOR, 2 * CLEAN_FOR, 4 * CLEAN_FOR, 8 * CLEAN_FOR]
    assert readmission.removed(Now(mono + 601.0, 0)) == 0.0
