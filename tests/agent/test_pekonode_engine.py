# SPDX-License-Identifier: MIT
"""The PekoNode engine in virtual time: membership, relays, the document, bad input, and Go-like neighbours."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.pekonode_net import WALL, Net
from xdp_gossip.core import events
from xdp_gossip.core.interface import Known, ProtocolError
from xdp_gossip.core.settings import Limits, Settings
from xdp_gossip.core.types import Address, Document, Node, Now, State, Version
from xdp_gossip.pekonode import PekoNodeEngine
from xdp_gossip.pekonode import codec as codec
from xdp_gossip.pekonode.document import document_of, stamp_of, version_of
from xdp_gossip.pekonode.packet import MAX_STAMP, Packet, PekoNodeId, Swap

OTHER = PekoNodeId("198.18.0.9", 9000, "other", "data")
OTHER_ADDRESS = Address("198.18.0.9", 9000)
SECRET = codec.secret_digest("k")


def heartbeat(node: PekoNodeId = OTHER, *infected: str) -> bytes:
    return codec.encode(Packet(node, frozenset({node.label, *infected}), secret=SECRET))


def update(stamp: int, data: bytes, node: PekoNodeId = OTHER) -> bytes:
    return codec.encode(Packet(node, frozenset({node.label}), data, stamp, is_update=True, secret=SECRET))


def swap(role: Swap, stamp: int, data: bytes, node: PekoNodeId = OTHER) -> bytes:
    return codec.encode(Packet(node, frozenset(), data, stamp, swap=role, secret=SECRET))


def names(engine: PekoNodeEngine, net: Net, state: State = State.ALIVE) -> list[str]:
    return sorted(member.node.name for member in engine.members(net.now) if member.state is state)


def sent_packets(net: Net, since: float = 0.0) -> list[tuple[Address, Packet]]:
    return [(source, codec.decode(transmit.data)) for at, source, transmit in net.sent if at >= since]


def one() -> tuple[Net, PekoNodeEngine]:
    """A single engine, started."""
    net = Net()
    (engine,) = net.cluster(1)
    net.run(0.1)
    return net, engine


def solo() -> tuple[Net, PekoNodeEngine, Address]:
    net, engine = one()
    return net, engine, engine.node.address


# -- membership and relays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 10, pytest.param(30, marks=pytest.mark.slow)])
def test_cluster_converges_on_members_and_documents(count: int) -> None:
    net = Net(seed=count)
    engines = net.cluster(count)
    net.run(13)
    expected = sorted(f"n{index}" for index in range(count))
    assert all(names(engine, net) == expected for engine in engines)
    for round_ in range(20):
        value = b"value %d" % round_
        document, changed = engines[round_ % count].documents.publish("default", value, net.now)
        assert changed
        net.run(0.5)
        assert {engine.documents.get("default").value for engine in engines} == {value}  # type: ignore[union-attr]
        assert {engine.documents.get("default").version for engine in engines} == {document.version}  # type: ignore[union-attr]
        assert len({engine.documents.digest for engine in engines}) == 1
    net.run(20)
    dead = [e for log in net.events.values() for e in log if isinstance(e, events.MemberChanged) and e.previous]
    assert dead == []  # calm: nobody was ever taken for dead, no record flapped


@pytest.mark.parametrize(
    ("count", "amount"),
    [(4, 3), (4, 4), (10, 3), (10, 4), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((31, 3), (64, 4)))],
)
def test_a_heartbeat_costs_at_most_amount_times_n(count: int, amount: int) -> None:
    net = Net(seed=count)
    net.cluster(count, amount=amount)
    net.run(13)
    since = net.mono
    net.run(12)
    beats = [packet for _, packet in sent_packets(net, since) if packet.swap is Swap.NONE]
    per_origin = Counter(packet.node.port for packet in beats)
    assert len(per_origin) == count
    assert max(per_origin.values()) <= 2 * amount * count  # 2 cycles
    assert all(packet.node.label in packet.infected for packet in beats)


@pytest.mark.slow
def test_every_node_passes_a_heartbeat_on_once() -> None:
    net = Net(seed=5)
    net.cluster(20)
    net.run(18.5)
    since = net.mono
    net.run(5.9)  # one heartbeat of each node
    groups = Counter()
    for source, packet in sent_packets(net, since):
        if packet.swap is Swap.NONE:
            # One relay is one packet to several targets: same sender, same origin, same infected list.
            groups[source, packet.node.label, packet.infected] += 1
    relays = Counter((source, origin) for source, origin, _ in groups)
    assert max(relays.values()) == 1
    assert max(groups.values()) <= 3


def test_relay_learns_from_copies_and_keeps_the_origin_as_it_is() -> None:
    net = Net()
    engine = net.add(0)
    engine.start(net.now)
    to = engine.node.address
    others = [PekoNodeId("198.18.0.2", 9000 + index, "x") for index in range(9)]
    for node in others:
        net.inject(to, heartbeat(node))
    net.run(3.1)
    since = net.mono
    odd = replace(OTHER, private_data="<odd> é")
    net.inject(to, heartbeat(odd, *(node.label for node in others[:3])))
    net.inject(to, heartbeat(odd, *(node.label for node in others[3:6])))
    net.run(0.1)
    relayed = sent_packets(net, since)
    assert {packet.node for _, packet in relayed} == {odd}
    assert len(relayed) == 3
    targets = {t.to.port for at, _, t in net.sent if at >= since}
    assert targets == {node.port for node in others[6:]}  # nobody whom either copy had reached
    everyone = {node.label for node in others} | {odd.label, f"{to}"}
    assert all(packet.infected == everyone and packet.secret == SECRET for _, packet in relayed)
    net.inject(to, heartbeat(odd))
    net.run(0.1)
    assert len(sent_packets(net, since)) == 3  # the same heartbeat, late
    assert engine.counters["rumors_duplicate"] == 2
    net.run(3)
    net.sent.clear()
    net.inject(to, heartbeat(odd))
    net.run(0.1)
    assert sum(packet.node == odd for _, packet in sent_packets(net)) == 3  # the next heartbeat


def test_own_heartbeat_is_not_relayed() -> None:
    net, engine, to = solo()
    net.inject(to, heartbeat())
    net.run(0.1)
    net.sent.clear()
    net.inject(to, heartbeat(PekoNodeId(to.ip, to.port, "n0")))
    net.run(0.1)
    assert net.sent == []
    assert engine.counters["rx_own"] == 1
    assert len(engine.members(net.now)) == 2


def test_changed_record_is_an_update_not_a_second_node() -> None:
    net = Net(seed=2)
    engines = net.cluster(8)
    net.run(13)
    assert engines[3].update_node(net.now, name="new", private_data="role=db")
    assert not engines[3].update_node(net.now, name="new")
    net.run(13)
    for engine in engines:
        members = engine.members(net.now)
        assert len(members) == 8
        (changed,) = [member for member in members if member.address == engines[3].node.address]
        assert (changed.node.name, changed.node.private_data) == ("new", "role=db")


def test_late_copy_of_a_former_record_is_ignored() -> None:
    net, engine, to = solo()
    net.inject(to, heartbeat())
    net.inject(to, heartbeat(replace(OTHER, private_data="new")))
    net.inject(to, heartbeat())
    (member,) = [m for m in engine.members(net.now) if not m.local]
    assert member.node.private_data == "new"
    assert engine.counters["rx_stale_record"] == 1
    net.run(6.1)  # a node may go back to what it said before
    net.inject(to, heartbeat())
    assert [m.node.private_data for m in engine.members(net.now) if not m.local] == ["data"]


def test_silent_node_is_removed_tried_again_and_comes_back() -> None:
    net = Net(seed=3)
    engines = net.cluster(5)
    net.run(13)
    gone = engines[2]
    assert gone.leave(net.now) and not gone.leave(net.now)
    assert gone.status == "left"
    net.run(18)
    assert "n2" in names(engines[0], net)  # 3 cycles + 2 s: nothing else tells a stop from a loss
    net.run(6)
    for engine in engines:
        if engine is not gone:
            assert names(engine, net, State.DEAD) == ["n2"]
    assert gone.resume(net.now)
    net.run(7)
    assert all("n2" in names(engine, net) for engine in engines)


def test_pause_stops_heartbeats_not_relays() -> None:
    net, engine, to = solo()
    net.inject(to, heartbeat())
    net.inject(to, heartbeat(replace(OTHER, port=9001)))
    assert engine.pause(net.now) and not engine.pause(net.now)
    net.run(1)
    net.sent.clear()
    net.run(30)
    assert net.sent == []
    net.inject(to, heartbeat())
    net.inject(to, heartbeat(replace(OTHER, port=9001)))
    net.run(0.1)
    assert len(net.sent) == 2  # each to the other
    assert engine.resume(net.now) and not engine.resume(net.now)
    assert engine.resume(net.now) is False
    net.sent.clear()
    net.run(30)
    own = [packet for _, packet in sent_packets(net) if packet.node.port == 8000 and not packet.swap]
    assert len({id(p) for p in own}) >= 4
    beats = [e for e in net.events[to] if isinstance(e, events.HeartbeatSent)]
    assert len(beats) == 1 + 1 + 5  # start, resume at once, then the cycle: one loop, not two


def test_partition_heals_without_help() -> None:
    net = Net(seed=4)
    engines = net.cluster(10)
    net.run(13)
    side = {engine.node.address for engine in engines[:5]}
    net.cut = lambda source, to: (source in side) != (to in side)
    net.run(120)
    assert names(engines[0], net) == [f"n{index}" for index in range(5)]
    engines[0].documents.publish("default", b"left", net.now)
    net.run(1)
    engines[9].documents.publish("default", b"right", net.now)
    net.run(1)
    net.cut = lambda source, to: False
    net.run(30)
    assert all(len(names(engine, net)) == 10 for engine in engines)
    assert {engine.documents.get("default").value for engine in engines} == {b"right"}  # type: ignore[union-attr]


@pytest.mark.slow
def test_loss_of_a_tenth_removes_nobody() -> None:
    net = Net(seed=6, loss=0.1)
    engines = net.cluster(16, amount=4)
    net.run(120)
    dead = [
        e
        for log in net.events.values()
        for e in log
        if isinstance(e, events.MemberChanged) and e.member.state is State.DEAD
    ]
    assert dead == []
    assert all(len(names(engine, net)) == 16 for engine in engines)


def test_frozen_engine_accuses_nobody() -> None:
    net = Net(seed=7)
    engines = net.cluster(4)
    net.run(13)
    frozen = engines[1]
    address = frozen.node.address
    engine = net.engines.pop(address)
    net.run(100)
    net.engines[address] = engine
    net.run(0)
    engine.handle_timer(net.now)
    net.run(7)
    assert engine.counters["stalls"] == 1
    assert all(len(names(e, net)) == 4 for e in engines)
    log = [e for e in net.events[address] if isinstance(e, events.MemberChanged)]
    assert all(e.member.state is State.ALIVE for e in log)


def test_known_nodes_replace_seeds() -> None:
    net = Net(seed=8)
    engines = net.cluster(4)
    net.run(13)
    again = net.add(3)  # the same address: it was restarted
    known = [Known(e.node.address, 0, 0, net.now.wall_ns, e.node.name) for e in engines[:3]]
    known.append(Known(Address("198.18.0.77", 1), 0, 0, net.now.wall_ns - 2 * 86_400 * 10**9))
    again.start(net.now, known)
    net.run(7)
    assert len(names(again, net)) == 4
    assert len(again.members(net.now)) == 4  # what was never heard in this run is no member


def test_who_has_started_says_until_when_it_does_not_know_the_document() -> None:
    net = Net()
    engines = net.cluster(3)
    assert all(engine.catching_up for engine in engines)
    net.run(30)
    assert [engine.catching_up for engine in engines] == ["", "", ""]
    assert [isinstance(event, events.CaughtUp) for event in net.events[engines[0].node.address]].count(True) == 1


def test_who_is_alone_waits_for_a_timeout_and_who_has_seeds_for_the_limit() -> None:
    net, engine = one()
    net.run(engine.timeout - 2)
    assert engine.catching_up == "no node has answered yet"
    net.run(5)
    assert engine.catching_up == ""
    net, engine = one()
    engine.seed(Node("198.18.0.77", 8000), net.now)
    net.run(engine.settings.wait_for_members - 2)
    assert engine.catching_up
    net.run(5)
    assert engine.catching_up == ""


def test_timeout_setting() -> None:
    node = Node("198.18.0.1", 8000)
    for options, cycle, timeout in [
        ({}, 6, 20),
        ({"cycle": 0.0}, 6, 20),
        ({"cycle": 1.0}, 1, 5),
        ({"cycle": 4.0, "timeout": 4.0}, 4, 14),
        ({"cycle": 4.0, "timeout": 4.5}, 4, 4.5),
        ({"cycle": 1.0, "timeout_cycles": 5}, 1, 7),
    ]:
        engine = PekoNodeEngine(node, Settings(**options), random.Random(1))  # type: ignore[arg-type]
        assert (engine.cycle, engine.timeout) == (cycle, timeout)


def test_full_node_list_refuses_and_counts() -> None:
    net = Net()
    engine = net.add(0, limits=Limits(nodes=3))
    engine.start(net.now)
    for port in range(9000, 9005):
        net.inject(engine.node.address, heartbeat(replace(OTHER, port=port)))
    assert len(engine.members(net.now)) == 4
    assert engine.counters["members_full"] == 2
    net.run(30)  # those that are gone make room, and stay voters until this node sees a majority
    net.inject(engine.node.address, heartbeat(replace(OTHER, port=9100)))
    assert OTHER.name in names(engine, net)
    assert (len(engine.members(net.now)), engine.displaced) == (4, 1)
    (gone,) = {9000, 9001, 9002} - {member.address.port for member in engine.members(net.now)}
    assert engine.forget(Address(OTHER.addr, gone), net.now).state is State.DEAD
    assert engine.displaced == 0
    (dead, *_) = [member for member in engine.members(net.now) if member.state is State.DEAD]
    engine.forget(dead.address, net.now)
    assert dead.address not in [member.address for member in engine.members(net.now)]
    for number, code in ((9100, "node_not_dead"), (1, "node_not_found")):
        with pytest.raises(ProtocolError) as refused:
            engine.forget(Address(OTHER.addr, number), net.now)
        assert refused.value.code == code
    assert engine.isolated is False


def test_long_names_are_shortened_here_and_relayed_whole() -> None:
    net, engine, to = solo()
    net.inject(to, heartbeat(replace(OTHER, port=9001)))
    net.run(0.1)
    net.sent.clear()
    long = replace(OTHER, name="é" * 200, private_data="x" * 5000)
    net.inject(to, heartbeat(long))
    net.run(0.1)
    (member,) = [m for m in engine.members(net.now) if m.address == OTHER_ADDRESS]
    assert member.node.name == "é" * 127 and len(member.node.private_data) == 4096
    assert engine.counters["records_shortened"] == 1
    assert [packet.node for _, packet in sent_packets(net)] == [long]


# -- the document ----------------------------------------------------------------------------------------------


def test_publish_rules() -> None:
    net, engine, _ = solo()
    assert (
        engine.documents.get("default") is None and list(engine.documents.live()) == [] and engine.documents.digest == 0
    )
    first, changed = engine.documents.publish("default", b"a", net.now, absent=True)
    assert changed and stamp_of(first.version) == net.now.wall_ns
    assert (
        list(engine.documents.live()) == list(engine.documents.live("def")) == [first]
        and list(engine.documents.live("x")) == []
    )
    assert engine.documents.publish("default", b"a", net.now) == (first, False)
    second, _ = engine.documents.publish("default", b"", net.now, expected=first.version)
    assert stamp_of(second.version) == stamp_of(first.version) + 1  # the clock stands, versions grow
    assert engine.documents.get("default") == second and engine.documents.get("other") is None
    for arguments in ({"absent": True}, {"expected": first.version}):
        with pytest.raises(ProtocolError) as caught:
            engine.documents.publish("default", b"b", net.now, **arguments)  # type: ignore[arg-type]
        assert caught.value.code == "version_mismatch"
        assert caught.value.details["actual"] == str(second.version)
    with pytest.raises(ProtocolError) as caught:
        engine.documents.publish("other", b"b", net.now)
    assert caught.value.code == "unsupported_key"
    with pytest.raises(ProtocolError) as caught:
        engine.documents.delete("default", net.now)
    assert caught.value.code == "unsupported_operation"
    assert engine.documents.get("default") == second


def test_largest_document_reaches_everybody_and_a_larger_one_is_refused() -> None:
    net = Net()
    engines = net.cluster(10)
    net.run(13)
    limit = engines[0].documents.limit
    assert 11_900 < limit < 12_100  # 3/4 of 16 KiB less the rest of the packet
    with pytest.raises(ProtocolError) as caught:
        engines[0].documents.publish("default", bytes(limit + 1), net.now)
    assert caught.value.code == "document_too_large"
    assert caught.value.details == {"limit": limit, "size": limit + 1}
    assert "16384" in str(caught.value)
    engines[0].documents.publish("default", bytes(limit), net.now)
    net.run(13)
    assert all(engine.documents.get("default") is not None for engine in engines)
    assert max(len(transmit.data) for _, _, transmit in net.sent) < 16384
    assert all(not engine.counters["tx_too_large"] for engine in engines)


def test_newcomer_gets_the_document_by_exchange() -> None:
    net = Net()
    engines = net.cluster(3)
    engines[0].documents.publish("default", b"v", net.now)
    net.run(13)
    late = net.add(9)
    late.seed(engines[1].node, net.now)
    late.start(net.now)
    net.run(0.2)
    assert late.documents.get("default") == document_of(stamp_of(late.documents.get("default").version), b"v")  # type: ignore[union-attr]
    answered = [e for e in net.events[late.node.address] if isinstance(e, events.SwapAnswered)]
    assert answered == [events.SwapAnswered(late.node.address, engines[1].node.address)]


def test_rumor_is_passed_on_once_and_only_when_newer() -> None:
    net, engine, to = solo()
    for port in (9001, 9002):
        net.inject(to, heartbeat(replace(OTHER, port=port)))
    net.run(0.1)
    net.sent.clear()
    for _ in range(3):
        net.inject(to, update(WALL + 50, b"v"))
    net.run(0.1)
    net.inject(to, update(WALL + 50, b"v"))
    net.inject(to, update(WALL + 49, b"older"))
    net.run(0.1)
    relayed = [packet for _, packet in sent_packets(net)]
    assert len(relayed) == 2
    assert all((packet.stamp, packet.data, packet.is_update) == (WALL + 50, b"v", True) for packet in relayed)
    assert engine.counters["updates_known"] == 4
    assert [m.digest for m in engine.members(net.now) if m.address == OTHER_ADDRESS] != [0]


def test_exchange_answers_only_who_is_behind() -> None:
    net, engine, to = solo()
    engine.documents.publish("default", b"mine", net.now)
    stamp = stamp_of(engine.documents.get("default").version)  # type: ignore[union-attr]
    net.run(0.1)
    net.sent.clear()
    net.inject(to, swap(Swap.REQUEST, 0, b""))
    net.run(0.1)
    ((_, answer),) = sent_packets(net)
    assert (answer.swap, answer.stamp, answer.data, answer.infected) == (Swap.RESPONSE, stamp, b"mine", frozenset())
    net.sent.clear()
    net.inject(to, swap(Swap.REQUEST, stamp, b"mine"))
    net.inject(to, swap(Swap.RESPONSE, 0, b""))
    net.inject(to, swap(Swap.REQUEST, stamp + 5, b"theirs"))
    net.run(0.1)
    assert net.sent == []
    assert engine.documents.get("default").value == b"theirs"  # type: ignore[union-attr]
    assert len(engine.members(net.now)) == 1  # an exchange is no sign of life: a stopped node answers too


def test_equal_stamps_have_one_winner_among_agents() -> None:
    net = Net(seed=9)
    engines = net.cluster(8)
    net.run(13)
    net.cut = lambda source, to: True
    engines[0].documents.publish("default", b"a", net.now)
    engines[7].documents.publish("default", b"b", net.now)
    net.cut = lambda source, to: False
    net.run(60)
    values = {engine.documents.get("default").value for engine in engines}  # type: ignore[union-attr]
    assert values == {max((b"a", b"b"), key=lambda value: document_of(1, value).content_hash)}
    assert len({engine.documents.digest for engine in engines}) == 1
    conflicts = [e for log in net.events.values() for e in log if isinstance(e, events.DocumentChanged) and e.conflict]
    assert len(conflicts) >= 1
    for log in net.events.values():  # nobody flaps
        assert sum(isinstance(e, events.DocumentChanged) for e in log) <= 2


def test_version_in_the_far_future_is_overtaken() -> None:
    net, engine, to = solo()
    future = WALL + 365 * 86_400 * 10**9
    net.inject(to, update(future, b"future"))
    assert engine.documents.get("default").value == b"future"  # type: ignore[union-attr]
    assert engine.counters["versions_in_future"] == 1
    document, _ = engine.documents.publish("default", b"now", net.now)
    assert stamp_of(document.version) == future + 1
    net.inject(to, update(MAX_STAMP, b"last"))
    with pytest.raises(ProtocolError) as caught:
        engine.documents.publish("default", b"later", net.now)
    assert caught.value.code == "version_exhausted"


def test_document_survives_a_restart() -> None:
    net, engine, _ = solo()
    document, _ = engine.documents.publish("default", b"v", Now(net.mono, WALL + 123_456_789))
    again = PekoNodeEngine(engine.node, Settings(), random.Random(2), "k")
    foreign = Document("other", document.version, b"x")
    again.start(net.now, documents=[document, foreign])
    assert again.documents.get("default") == document
    assert again.counters["documents_not_restored"] == 1
    later, _ = again.documents.publish("default", b"w", Now(net.mono, WALL))
    assert stamp_of(later.version) == WALL + 123_456_790


def test_native_document_keeps_its_age() -> None:
    native = Document("default", Version((WALL // 10**6) << 16 | 7, Address("198.18.0.5", 8000)), b"v")
    engine = PekoNodeEngine(Node("198.18.0.1", 1), Settings(), random.Random(2))
    engine.start(Now(1.0, WALL), documents=[native])
    held = engine.documents.get("default")
    assert held is not None and held.value == b"v"
    assert stamp_of(held.version) // 10**6 == WALL // 10**6


@given(st.integers(0, MAX_STAMP), st.integers(0, MAX_STAMP))
def test_versions_are_stamps(first: int, second: int) -> None:
    assert stamp_of(version_of(first)) == first
    assert (version_of(first) < version_of(second)) == (first < second)
    assert (version_of(first) < version_of(first + 1)) or first == MAX_STAMP
    assert Version.parse(str(version_of(first))) == version_of(first)
    assert version_of(first).hlc < 1 << 64


def test_query_asks_others_directly() -> None:
    net = Net()
    engines = net.cluster(3)
    document, _ = engines[1].documents.publish("default", b"v", net.now)
    net.run(13)
    query = engines[0].query("default", [engines[1].node.address, Address("198.18.0.99", 9)], net.now)
    net.run(0.1)
    answers = [e for e in net.events[engines[0].node.address] if isinstance(e, events.QueryAnswered)]
    assert answers == [
        events.QueryAnswered(query, engines[1].node.address, str(document.version), document_of(1, b"v").digest)
    ]
    assert engines[0].query("default", [], net.now) == query + 1
    with pytest.raises(ProtocolError):
        engines[0].query("other", [], net.now)


# -- bad input -------------------------------------------------------------------------------------------------


def test_bad_packets_are_counted_and_change_nothing() -> None:
    net, engine, to = solo()
    engine.documents.publish("default", b"v", net.now)
    wrong_key = codec.encode(Packet(OTHER, frozenset(), b"x", MAX_STAMP, is_update=True, secret="wrong é"))
    for data, counter in [
        (b"\xff\x00garbage", "rx_malformed"),
        (b"", "rx_malformed"),
        (b"{" * 16384, "rx_oversized"),
        (wrong_key, "rx_wrong_key"),
        (codec.encode(Packet(OTHER)), "rx_wrong_key"),
        (heartbeat(replace(OTHER, addr="host.example")), "rx_bad_address"),
        (heartbeat(replace(OTHER, addr="198.18.0.9 ")), "rx_bad_address"),
    ]:
        before = engine.counters[counter]
        net.inject(to, data)
        assert engine.counters[counter] == before + 1, counter
    net.run(0.1)
    assert engine.documents.get("default").value == b"v"  # type: ignore[union-attr]
    assert len(engine.members(net.now)) == 1


def test_before_start_and_after_leave_packets_are_counted() -> None:
    net = Net()
    engine = net.add(0)
    net.inject(engine.node.address, heartbeat())
    engine.start(net.now)
    engine.leave(net.now)
    net.inject(engine.node.address, heartbeat())
    assert engine.counters["rx_ignored"] == 2


def test_without_a_key_only_keyless_packets_count() -> None:
    net = Net()
    engine = net.add(0, secret_key="")
    engine.start(net.now)
    net.inject(engine.node.address, heartbeat())
    net.inject(engine.node.address, codec.encode(Packet(OTHER)))
    assert engine.counters["rx_wrong_key"] == 1
    assert len(engine.members(net.now)) == 2


def test_node_that_fits_no_packet_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        PekoNodeEngine(Node("198.18.0.1", 1, "n", "\0" * 4096), Settings(), random.Random(1))
    assert caught.value.code == "node_too_large"
    net, engine, _ = solo()
    with pytest.raises(ProtocolError):
        engine.update_node(net.now, private_data="<" * 4096)
    assert engine.node.private_data == ""


def test_infected_list_is_trimmed_before_a_packet_gets_too_long() -> None:
    net, engine, to = solo()
    net.inject(to, heartbeat(replace(OTHER, port=9001)))
    net.run(0.1)
    net.sent.clear()
    data = heartbeat(OTHER, *(f"198.18.1.1:{port:05}" for port in range(10_000, 10_640)))
    assert 15_000 < len(data) < 16_384
    net.inject(to, data)
    net.inject(to, heartbeat(OTHER, *(f"198.18.1.1:{port:05}" for port in range(20_000, 20_640))))
    net.run(0.1)
    ((_, packet),) = sent_packets(net)
    assert len(packet.infected) == 3
    assert engine.counters["infected_trimmed"] == 1


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(
            Packet,
            node=st.builds(
                PekoNodeId, st.sampled_from(["198.18.0.1", "198.18.0.2", "::1", "", "x"]), st.integers(7999, 8002)
            ),
            infected=st.frozensets(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3),
            data=st.none() | st.binary(max_size=5),
            stamp=st.integers(0, 5) | st.integers(0, MAX_STAMP),
            is_update=st.booleans(),
            swap=st.sampled_from(Swap),
            secret=st.just(SECRET),
        ),
        max_size=12,
    )
)
def test_any_packets_leave_a_sound_engine(packets: list[Packet]) -> None:
    net, engine, to = solo()
    best = 0
    for packet in packets:
        net.inject(to, codec.encode(packet))
        net.run(0.05)
        stamp = stamp_of(engine.documents.get("default").version) if engine.documents.get("default") else 0  # type: ignore[union-attr]
        assert stamp >= best
        best = stamp
    members = engine.members(net.now)
    assert len({member.address for member in members}) == len(members)
    assert all(member.node for member in members)
    net.run(40)
    assert names(engine, net) == ["n0"]
    for _, packet in sent_packets(net):
        assert packet.secret == SECRET


# -- among Go nodes --------------------------------------------------------------------------------------------


def test_mixed_cluster() -> None:
    net = Net(seed=11)
    goes = [net.add_go(100 + index) for index in range(3)]
    for node in goes[1:]:
        node.nodes[PekoNodeId("198.18.0.1", 8100)] = net.mono
    agents = [net.add(index) for index in range(3)]
    for agent in agents:
        agent.seed(Node("198.18.0.1", 8101), net.now)
        agent.start(net.now)
    net.run(26)  # the bare seeds of the Go nodes are gone after their timeout
    everybody = ["go100", "go101", "go102", "n0", "n1", "n2"]
    assert all(names(agent, net) == everybody for agent in agents)
    assert all(sorted(node.name for node in go.get(net.mono)) == everybody for go in goes)

    agents[0].documents.publish("default", b"from an agent", net.now)
    net.run(1)
    assert {go.data for go in goes} == {b"from an agent"}
    net._post(goes[2].id.address, goes[2].publish(b"from go", net.now.wall_ns, net.mono))
    net.run(1)
    assert {agent.documents.get("default").value for agent in agents} == {b"from go"}  # type: ignore[union-attr]
    assert {go.data for go in goes} == {b"from go"}


def test_one_agent_brings_two_halves_of_go_nodes_together() -> None:
    net = Net(seed=13)
    goes = [net.add_go(100 + index) for index in range(4)]
    for node in goes[1:]:
        node.nodes[PekoNodeId("198.18.0.1", 8100)] = net.mono
    agent = net.add(0)
    agent.seed(Node("198.18.0.1", 8100), net.now)
    agent.start(net.now)
    net.run(26)
    right = {goes[2].id.address, goes[3].id.address}
    net.cut = lambda source, to: (source in right) != (to in right)
    net.run(60)
    assert [len(go.get(net.mono)) for go in goes] == [3, 3, 2, 2]
    net.cut = lambda source, to: False
    net.run(30)
    assert [len(go.get(net.mono)) for go in goes] == [5, 5, 5, 5]
    assert len(names(agent, net)) == 5


@pytest.mark.slow
def test_agents_do_not_feed_the_storm() -> None:
    """Among 12 Go nodes a heartbeat multiplies; each agent passes each heartbeat on once in half a cycle."""
    net = Net(seed=12)
    for index in range(12):
        node = net.add_go(100 + index)
        node.next_beat += index / 3
        node.nodes[PekoNodeId("198.18.0.1", 8100)] = net.mono
    agents = [net.add(index) for index in range(2)]
    for agent in agents:
        agent.seed(Node("198.18.0.1", 8100), net.now)
        agent.start(net.now)
    net.run(30)
    net.sent.clear()
    net.run(12)
    rumors = [(source, packet.node.port) for source, packet in sent_packets(net) if not packet.swap]
    by_agents = Counter(origin for source, origin in rumors if source.port < 8100)
    by_goes = Counter(origin for source, origin in rumors if source.port >= 8100)
    assert max(by_agents.values()) <= 2 * 2 * 3  # two agents, two cycles, three targets
    assert sum(by_goes.values()) / 12 > 3 * sum(by_agents.values()) / 2  # what each would send if it joined in
