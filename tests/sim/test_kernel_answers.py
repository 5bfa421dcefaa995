# SPDX-License-Identifier: MIT
"""Kernels that answer observers: a host without its agent is told from a host that is gone."""

from __future__ import annotations

import pytest

from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import State

from .world import SimNode, World

pytestmark = pytest.mark.slow

NODES = 6
#: Seconds until all have noticed.
NOTICED = 15.0
SETTINGS = Settings(cycle=1.0, timeout=5.0)
SEEDS = pytest.mark.parametrize("seed", range(5))


def world_of(seed: int, planes: range) -> World:
    """A fleet that has settled."""
    world = World(seed, NODES, settings=SETTINGS, planes=planes)
    world.boot_all()
    world.run(20.0)
    return world


def seen(world: World, lost: SimNode) -> set[State]:
    """The states that the others show of a node."""
    return {
        next(member.state for member in node.engine.members(node.now) if member.address == lost.address)
        for node in world.up
        if node.engine is not None and node is not lost
    }


@SEEDS
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_agent_that_is_gone_is_told_from_its_host(seed: int, how: str) -> None:
    """Its kernel answers for as long as the machine runs, also when the lease is long over."""
    world = world_of(seed, range(NODES))
    lost = world.nodes[seed % NODES]
    (lost.crash if how == "killed" else lost.freeze)()
    world.run(NOTICED)
    for _ in range(20):
        assert seen(world, lost) == {State.AGENT_DOWN}
        world.run(10.0)
    assert lost.plane is not None and lost.now.mono * 1e9 > lost.plane.model.config.lease, "the lease is over"
    (lost.boot if how == "killed" else lost.thaw)()
    world.run_until(lambda: None if seen(world, lost) == {State.ALIVE} else "not back", 30.0)


@SEEDS
def test_a_host_that_is_cut_off_is_dead(seed: int) -> None:
    world = world_of(seed, range(NODES))
    lost = world.nodes[seed % NODES]
    world.network.cut([lost.number], [node.number for node in world.nodes if node is not lost])
    world.run(NOTICED)
    assert seen(world, lost) == {State.DEAD}


@SEEDS
def test_in_a_mixed_fleet_sockets_and_kernels_answer_each_other(seed: int) -> None:
    """Half of the members have a data plane. An agent without one takes its host with it."""
    world = world_of(seed, range(NODES // 2))
    for node in world.nodes[: NODES // 2]:
        assert node.plane is not None
        counters = node.plane.model.counters
        assert min(counters["answer"], counters["take_ack"]) > NODES, "its kernel asks and answers"
        assert counters["drop_ack_stray"] == counters["drop_probe_replayed"] == 0
    with_plane, without = world.nodes[0], world.nodes[-1]
    with_plane.crash()
    without.crash()
    world.run(NOTICED)
    assert seen(world, with_plane) == {State.AGENT_DOWN}
    assert seen(world, without) == {State.DEAD}


@SEEDS
def test_a_paused_node_and_one_that_left_are_no_agents_that_are_gone(seed: int) -> None:
    world = world_of(seed, range(NODES))
    paused, left = world.nodes[1], world.nodes[2]
    world.leave(left)
    world.run(NOTICED)
    assert seen(world, left) == {State.LEFT}
    assert left.plane is not None and not left.plane.model.config.running
    world.pause(paused)
    world.run(60.0)
    assert State.AGENT_DOWN not in seen(world, paused)


@SEEDS
def test_an_agent_that_starts_again_is_alive_for_good(seed: int) -> None:
    """The age of its former run's lease is no evidence against the new one."""
    world = world_of(seed, range(NODES))
    lost = world.nodes[seed % NODES]
    lost.crash()
    world.run(NOTICED + seed / 3)
    lost.boot()
    world.run_until(lambda: None if seen(world, lost) == {State.ALIVE} else "not back", 30.0)
    for _ in range(200):
        world.run(0.05)
        assert seen(world, lost) == {State.ALIVE}
