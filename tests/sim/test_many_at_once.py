# SPDX-License-Identifier: MIT
"""Many members end, freeze or restart at once: all others agree about them, nobody else is removed, all meet again."""

from __future__ import annotations

from collections import Counter

import pytest

from xdp_gossip.core.observers.readmission import CLEAN_FOR
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import State

from .detection import exactly, removed, strangers
from .test_detection import views
from .world import SimNode, World

pytestmark = pytest.mark.slow

#: Half of the hosts have a kernel data plane in odd seeds.
SEEDS = range(4)


def fleet(seed: int, nodes: int) -> World:
    """Members that list each other, and whose windows of probes are full."""
    planes = range(0, nodes, 2) if seed % 2 else ()
    world = World(seed, nodes, settings=Settings(cycle=1.0, amount=4), planes=planes, save_every=60.0)
    world.boot_all()
    meet(world, 120.0)
    world.run(12.0)
    world.checks.moves = []
    return world


def meet(world: World, seconds: float = 60.0) -> None:
    """All that run list each other."""
    world.run_until(lambda: strangers(world), seconds)


def some(world: World, count: int) -> list[SimNode]:
    return world.rng.sample(world.nodes, count)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_agree_about_the_half_of_a_fleet_whose_agents_end(seed: int) -> None:
    """Some held a host with a kernel for dead, some for agentless, and some for alive, as long as it lasted."""
    world = fleet(seed, 20)
    gone = some(world, 10)
    for node in gone:
        node.crash()
    world.run(30.0)
    exactly(world, gone)
    for node in gone:
        assert views(world, node) == {State.DEAD if node.plane is None else State.AGENT_DOWN}, node.address
    for node in gone:
        node.boot()
    meet(world)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [5, 8])
def test_agents_that_freeze_together_remove_nobody_and_come_back(count: int, seed: int) -> None:
    world = fleet(seed, 10)
    frozen = some(world, count)
    for node in frozen:
        node.freeze()
    world.run(world.rng.uniform(3.0, 30.0))
    for node in frozen:
        node.thaw()
    meet(world)
    exactly(world, frozen)


@pytest.mark.parametrize("seed", range(8))
def test_an_agent_that_starts_while_it_is_removed_is_removed_once(seed: int) -> None:
    """What its former run left unanswered removed the new run, too."""
    world = fleet(seed, 6)
    node = world.nodes[2]
    node.crash()
    world.run(world.rng.uniform(3.0, 6.0))
    node.boot()
    world.run(20.0)
    times = Counter(move.observer for move in removed(world))
    assert max(times.values(), default=0) <= 1
    exactly(world, [node])
    meet(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_agent_that_fails_again_and_again_hurts_nobody_else(seed: int) -> None:
    world = fleet(seed, 8)
    node = world.nodes[3]
    for _ in range(10):
        node.crash()
        world.run(world.rng.uniform(0.2, 6.0))
        node.boot()
        world.run(world.rng.uniform(0.2, 6.0))
    exactly(world, [node])
    meet(world, 200.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_members_that_return_while_others_are_removed(seed: int) -> None:
    """The rings change while alerts are under way."""
    world = fleet(seed, 12)
    gone = [*world.nodes[:2], *world.rng.sample(world.nodes[2:], 2)]
    for node in gone:
        node.crash()
    world.run(world.rng.uniform(0.0, 5.0))
    for node in gone[:2]:
        node.boot()
    world.run(25.0)
    exactly(world, gone)
    for node in gone[2:]:
        node.boot()
    meet(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_members_that_removed_each_other_meet_again(seed: int) -> None:
    """Neither had a subject any more that could prove its path, so neither came back, ever."""
    world = fleet(seed, 2)
    world.network.cut([0], [1], both_ways=False)
    world.run(60.0)
    assert views(world, world.nodes[0]) == views(world, world.nodes[1]) == {State.DEAD}
    world.network.heal()
    meet(world)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("both_ways", [True, False])
def test_a_partition_heals(both_ways: bool, seed: int) -> None:
    world = fleet(seed, 10)
    size = world.rng.randint(1, 5)
    world.network.cut(range(size), range(size, 10), both_ways)
    world.run(world.rng.uniform(3.0, 120.0))
    world.network.heal()
    meet(world)


@pytest.mark.parametrize("seed", range(6))
def test_a_network_that_loses_much_everywhere_removes_nobody(seed: int) -> None:
    """Each of ten members loses 10, 20 or 30 % of what is sent to it."""
    world = fleet(seed, 10)
    for number in range(10):
        world.network.loss_in[number] = world.rng.choice([0.1, 0.2, 0.3])
    world.run(60.0)
    exactly(world, [])
    world.network.heal()
    meet(world)


def happen(world: World, node: SimNode, what: str) -> None:
    """Let something happen to a member, if it can."""
    rng, numbers = world.rng, list(range(len(world.nodes)))
    if what == "crash" and node.engine is not None:
        node.crash()
    elif what == "boot" and node.engine is None:
        node.boot()
    elif what == "freeze" and node.up:
        node.freeze()
    elif what == "thaw" and node.frozen:
        node.thaw()
    elif what == "leave" and node.up:
        world.leave(node)
    elif what == "pause" and node.up:
        world.pause(node)
    elif what == "resume" and node.up:
        world.resume(node)
    elif what == "split":
        rng.shuffle(numbers)
        world.network.cut(numbers[:1], numbers[1 : rng.randint(2, len(numbers))], both_ways=rng.random() < 0.5)
    elif what == "loss":
        rng.choice([world.network.loss_in, world.network.loss_out])[node.number] = rng.choice([0.3, 0.8, 1.0])
    elif what == "heal":
        world.network.heal()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happened_all_meet_again_and_stay(seed: int) -> None:
    """Twice as long as the wait after a second removal; who was removed more often waits longer, by the protocol."""
    world = fleet(seed, 2 + seed % 9)
    kinds = ["crash", "boot", "boot", "freeze", "thaw", "leave", "pause", "resume", "split", "loss", "heal"]
    for _ in range(40):
        happen(world, world.rng.choice(world.nodes), world.rng.choice(kinds))
        world.run(world.rng.uniform(0.2, 8.0))
    world.network.heal()
    for node in world.nodes:
        for what in ("thaw", "boot", "resume"):
            happen(world, node, what)
    meet(world, 2 * CLEAN_FOR)
    world.checks.moves = []
    world.run(60.0)
    assert removed(world) == []
