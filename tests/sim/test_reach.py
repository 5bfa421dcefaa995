# SPDX-License-Identifier: MIT
"""Who finds whom again: partitions of any length, with seeds and without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdp_gossip.core.identity import RAISES
from xdp_gossip.core.settings import Limits, Settings
from xdp_gossip.core.types import PRESENT, Node

from .network import Link
from .world import SimNode, World

pytestmark = pytest.mark.slow

HOUR = 3600.0
#: Long cycles make a day cheap to play.
SLOW = Settings(amount=4, cycle=300.0, timeout_cycles=5)


def quiet(world: World) -> None:
    """The always-on checks take nodes by their address, which twins share."""
    for name in ("on_event", "after_events", "on_transmit", "before_crash"):
        setattr(world.checks, name, lambda *_: None)


def listed(world: World) -> list[list[int]]:
    """For each node that runs the numbers of the nodes that it lists."""
    numbers = {node.address: node.number for node in world.nodes}
    return [
        sorted(numbers[member.address] for member in node.engine.members(node.now) if member.state in PRESENT)
        for node in world.up
        if node.engine is not None
    ]


def apart(hours: float, seeds: int) -> World:
    world = World(1, 4, settings=SLOW, save_every=60.0, observers=False)
    world.boot_all(seeds)
    world.run(2 * HOUR)
    assert listed(world) == [[0, 1, 2, 3]] * 4
    world.network.cut([0, 1], [2, 3])
    world.run(hours * HOUR)
    assert listed(world) == [[0, 1], [0, 1], [2, 3], [2, 3]]
    return world


@pytest.mark.parametrize("hours", [23, 25, 50])
@pytest.mark.parametrize("seeds", [4, 1], ids=["all are seeds", "one seed on one side"])
def test_a_partition_heals_however_long_it_was(hours: float, seeds: int) -> None:
    world = apart(hours, seeds)
    world.network.heal()
    world.run_until(world.checks.disagreement, HOUR, step=30.0)


def test_former_members_are_tried_again_after_a_restart() -> None:
    world = apart(30, seeds=1)
    for node in world.nodes:
        node.stop()
        node.boot()
    world.run(30 * HOUR)
    world.network.heal()
    world.run_until(world.checks.disagreement, HOUR, step=30.0)


def test_members_that_gave_way_in_a_full_table_are_tried_again() -> None:
    world = World(1, 8, settings=Settings(amount=4, cycle=1.0, timeout_cycles=5, limits=Limits(nodes=3)))
    for node in world.nodes[:4]:
        node.boot(world.nodes[:1])
    world.run(10)
    for node in world.nodes[1:4]:
        assert node.engine is not None
        node.engine.unseed(world.nodes[0].address)
    world.network.cut([0, 1, 4, 5], [2, 3, 6, 7])
    world.run(30)
    assert listed(world) == [[0, 1], [0, 1], [2, 3], [2, 3]]
    for node in world.nodes[4:]:
        node.boot([world.nodes[0 if node.number < 6 else 2]])
    world.run(10)
    assert listed(world)[:4] == [[0, 1, 4, 5], [0, 1, 4, 5], [2, 3, 6, 7], [2, 3, 6, 7]]
    for node in world.nodes[4:]:
        node.crash()
    world.run(30)
    world.network.heal()
    world.run(120)
    assert listed(world) == [[0, 1, 2, 3]] * 4


def test_a_seed_that_was_withdrawn_is_not_tried_any_more() -> None:
    world = World(1, 2, settings=replace(SLOW, cycle=1.0))
    alone, absent = world.nodes
    alone.boot([absent])
    assert alone.engine is not None
    world.recording = []
    world.run(120)
    assert any(receiver is absent for receiver, _ in world.recording)
    alone.engine.unseed(absent.address)
    world.recording = []
    world.run(120)
    assert world.recording == []


def test_absent_seeds_are_tried_with_pauses_and_a_few_at_a_time() -> None:
    world = World(1, 60, settings=replace(SLOW, cycle=1.0))
    alone, *absent = world.nodes
    alone.boot(absent)
    world.run(60)
    world.recording = []
    world.run(100)
    assert {receiver for receiver, _ in world.recording} == set(absent)
    assert len(world.recording) <= 2 * 112


class Mail(dict):  # type: ignore[type-arg]
    """Which node a packet for an address reaches: of two twins now one, now the other."""

    def get(self, address, default=None):  # type: ignore[no-untyped-def]
        world, twins = self["world"]
        return world.rng.choice(twins) if address == twins[0].address else dict.get(self, address, default)


def twins(world: World) -> list[SimNode]:
    """The last two nodes have one address from now on."""
    pair = world.nodes[-2:]
    pair[1].node = Node(pair[0].node.addr, pair[0].node.port, pair[1].node.name)
    world.by_address = Mail(world.by_address, world=(world, pair))
    return pair


@pytest.mark.parametrize("seed", range(3, 9))
def test_twins_say_so_and_do_not_raise_each_other_for_ever(seed: int) -> None:
    world = World(seed, 5, settings=replace(SLOW, cycle=1.0))
    quiet(world)
    first, second = twins(world)
    for node in world.nodes[:4]:
        node.boot(world.nodes[:2])
    world.run(30)
    second.boot(world.nodes[:2])
    world.run(30)
    began = [node.engine.incarnation for node in (first, second) if node.engine]
    world.run(500)
    now = [node.engine.incarnation for node in (first, second) if node.engine]
    assert max(now) - max(began) <= 2 * RAISES, (began, now)
    for node in (first, second):
        assert node.engine is not None
        assert "twin" in node.engine.members(node.now)[0].problems
        assert node.engine.counters["paths_limited"] == 0
        assert node.engine.counters["own_address_conflicts"] >= 1
    for node in world.nodes[:3]:
        assert node.engine is not None
        member = next(m for m in node.engine.members(node.now) if m.address == first.address)
        assert member.problems == ("twin",)  # the path is not to blame: one twin gets the other's answers
        assert node.engine.counters["paths_limited"] == 0
        assert node.engine.counters["twins_seen"] == 1
    second.crash()
    world.by_address = {node.address: node for node in world.nodes[:4]}
    world.run(1300)
    for node in world.nodes[:4]:
        assert node.engine is not None
        assert all(not member.problems for member in node.engine.members(node.now)), node.number


def test_a_node_that_refutes_suspicions_again_and_again_is_no_twin() -> None:
    world = World(4, 4, settings=replace(SLOW, cycle=1.0), observers=False)
    quiet(world)
    world.boot_all()
    for _ in range(12):
        world.run(20)
        world.network.cut([3], [0, 1, 2])
        world.run(8)
        world.network.heal()
    assert world.nodes[3].engine is not None
    assert world.nodes[3].engine.counters["refutations"] > RAISES
    for node in world.up:
        assert node.engine is not None
        assert all("twin" not in member.problems for member in node.engine.members(node.now))


def test_two_members_of_one_name_are_told_of_until_one_has_another() -> None:
    world = World(5, 4, settings=replace(SLOW, cycle=1.0))
    other = world.nodes[1].node
    world.nodes[1].node = Node(other.addr, other.port, world.nodes[3].node.name)
    world.boot_all()
    world.run(15)
    named = {world.nodes[1].address, world.nodes[3].address}
    for node in world.up:
        assert node.engine is not None
        assert {m.address for m in node.engine.members(node.now) if "same_name" in m.problems} == named
        assert node.engine.counters["name_conflicts"] >= 1
    assert world.nodes[1].engine is not None
    world.nodes[1].engine.update_node(world.nodes[1].now, name="its own")
    world.nodes[1].after_input()
    world.run(15)
    for node in world.up:
        assert node.engine is not None
        assert all("same_name" not in m.problems for m in node.engine.members(node.now)), node.number


def test_two_fleets_with_one_name_and_secret_that_meet_say_so() -> None:
    world = World(6, 7, settings=replace(SLOW, cycle=1.0))
    left, right = world.nodes[:3], world.nodes[3:]
    for side in (left, right):
        for node in side:
            node.boot(side)
    world.run(700)
    for node in world.up:
        assert node.engine is not None
        assert node.engine.counters["fleets_met"] == 0
    assert left[0].engine is not None
    left[0].engine.seed(Node(right[0].node.addr, right[0].node.port), left[0].now)
    left[0].after_input()
    world.run(30)
    assert left[0].engine.counters["fleets_met"] >= 1


def test_a_partition_that_heals_is_not_two_fleets_that_meet() -> None:
    world = apart(50, seeds=1)
    world.network.heal()
    world.run(HOUR)
    for node in world.up:
        assert node.engine is not None
        assert node.engine.counters["fleets_met"] == 0


@pytest.mark.parametrize("both_ways", [True, False])
def test_documents_cross_a_path_that_loses_long_datagrams(both_ways: bool) -> None:
    world = World(7, 2, settings=replace(SLOW, cycle=1.0))
    world.network.mtu = {(0, 1): 600}
    if both_ways:
        world.network.mtu[1, 0] = 600
    world.boot_all()
    world.run_until(world.checks.disagreement, 20.0)
    for number in range(8):
        world.publish(world.nodes[number % 2], f"k{number}", bytes([number]) * 900)
        world.run_until(world.checks.disagreement, 10.0)
    world.run(70)
    sender = world.nodes[0].engine
    assert sender is not None
    member = sender.members(world.nodes[0].now)[1]
    assert member.problems == ("short_datagrams",)
    assert sender.counters["paths_limited"] == 1
    world.publish(world.nodes[0], "limited", bytes(900))
    world.run_until(world.checks.disagreement, 0.2, step=0.02)
    world.network.mtu = {}
    world.run(700)
    assert sender.members(world.nodes[0].now)[1].problems == ()


def test_a_path_that_loses_some_datagrams_of_any_length_is_not_limited() -> None:
    world = World(8, 3, settings=replace(SLOW, cycle=1.0), link=Link(loss=0.2))
    world.boot_all()
    world.run_until(world.checks.disagreement, 20.0)
    for number in range(40):
        world.publish(world.nodes[number % 3], f"k{number}", bytes(900))
        world.run(1.0)
    world.run_until(world.checks.disagreement, 20.0)
    for node in world.up:
        assert node.engine is not None
        assert node.engine.counters["paths_limited"] == 0


@pytest.mark.parametrize("bridge", [False, True], ids=["nobody has both families", "one member has both"])
def test_a_member_of_another_family_is_listed_while_somebody_reaches_it(bridge: bool) -> None:
    world = World(9, 5, settings=replace(SLOW, cycle=1.0))
    stranger = world.nodes[4]
    others = [0, 1, 2] if bridge else [0, 1, 2, 3]
    # Its packets reach all (its host has both families), and theirs go to an address that they cannot send to.
    world.network.cut(others, [4], both_ways=False)
    for node in world.nodes:
        node.boot(world.nodes[:4])
        assert node.engine is not None
        if node.number in others:
            node.engine.reaches = lambda address: address != stranger.address
    world.run(40)
    for turn in range(6):
        world.run(20)
        for number in others:
            engine = world.nodes[number].engine
            assert engine is not None
            member = next(m for m in engine.members(world.nodes[number].now) if m.address == stranger.address)
            assert (member.state in PRESENT) is bridge, (turn, number, member)
            assert member.problems == ("no_common_family",)
            assert engine.counters["members_no_common_family"] == 1


def test_a_member_that_is_heard_and_gets_nothing_is_told_of() -> None:
    world = World(10, 3, settings=replace(SLOW, cycle=1.0))
    quiet(world)
    world.boot_all()
    world.run(20)
    world.network.cut([0, 1], [2], both_ways=False)
    world.run(90)
    for number in (0, 1):
        engine = world.nodes[number].engine
        assert engine is not None
        members = {m.address: m for m in engine.members(world.nodes[number].now)}
        assert members[world.nodes[2].address].problems == ("unreached",)
    world.network.heal()
    world.run(60)
    for node in world.up:
        assert node.engine is not None
        assert all(not member.problems for member in node.engine.members(node.now))
