# SPDX-License-Identifier: MIT
"""What was acknowledged by a node that leaves a moment later."""

from __future__ import annotations

import pytest

from .scenarios import play
from .steps import SETTINGS
from .world import World

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [10, 3000, 8000])
def test_a_publish_just_before_a_leave_stays(seed: int, size: int) -> None:
    world = World(seed, 5, settings=SETTINGS)
    world.boot_all()
    world.run_until(world.checks.disagreement, 10.0)
    leaver = world.nodes[4]
    for number in range(4):
        world.publish(leaver, f"k{number}", bytes(size))
    world.leave(leaver)
    world.run_until(world.checks.disagreement, 30.0)
    for node in world.up:
        assert node.engine is not None
        assert len(list(node.engine.documents.live())) == 4


def test_who_has_nothing_that_others_lack_gives_nothing_away() -> None:
    world = World(1, 3, settings=SETTINGS)
    world.boot_all()
    world.publish(world.nodes[0], "k", bytes(3000))
    world.run_until(world.checks.disagreement, 10.0)
    world.run(3.0)
    world.recording = []
    engine = world.nodes[0].engine
    assert engine is not None
    world.leave(world.nodes[0])
    assert all(len(data) < 1000 for _, data in world.recording)


def test_a_replay_at_which_a_publish_was_lost_with_the_one_that_left() -> None:
    """Seed 154 published 4 ms before the leave."""
    play("replay", 154)
