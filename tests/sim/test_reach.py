# SPDX-License-Identifier: MIT
"""Who finds whom again: partitions of any length, with seeds and without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdp_gossip.core.interface import Settings
from xdp_gossip.core.types import PRESENT

from .world import World

HOUR = 3600.0
#: Long cycles make a day cheap to play.
SLOW = Settings(amount=4, cycle=300.0, timeout_cycles=5)


def listed(world: World) -> list[list[int]]:
    """For each node that runs the numbers of the nodes that it lists."""
    numbers = {node.address: node.number for node in world.nodes}
    return [
        sorted(numbers[member.address] for member in node.engine.members(node.now) if member.state in PRESENT)
        for node in world.up
        if node.engine is not None
    ]


def apart(hours: float, seeds: int) -> World:
    world = World(1, 4, settings=SLOW, save_every=60.0)
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
