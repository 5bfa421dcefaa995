# SPDX-License-Identifier: MIT
"""Which side of a partition has a majority, and which member calls itself isolated."""

from __future__ import annotations

import pytest

from xdp_gossip.core.engine import Engine
from xdp_gossip.core.types import PRESENT
from xdp_gossip.node.convergence import Voters, enough_for

from .world import SimNode, World

pytestmark = pytest.mark.slow


def engine_of(node: SimNode) -> Engine:
    """The engine of a node that runs."""
    assert node.engine is not None
    return node.engine


def may_confirm(node: SimNode) -> bool:
    """Whether a publish that all present members have stored reaches ``majority`` at this node."""
    engine = engine_of(node)
    members = engine.members(node.now)
    present = sum(member.state in PRESENT for member in members)
    known = Voters.among(members, engine.displaced).known
    return not engine.isolated and enough_for("majority")(present, present, known)


@pytest.mark.parametrize("seed", range(1, 4))
def test_only_the_larger_side_of_a_split_has_a_majority(seed: int) -> None:
    world = World(seed, 5)
    world.boot_all()
    world.run(30)
    assert all(may_confirm(node) for node in world.nodes)
    world.network.cut([0, 1], [2, 3, 4])
    world.run(120)
    assert [may_confirm(node) for node in world.nodes] == [False, False, True, True, True]
    for node in world.nodes[:2]:  # a restart does not make a member forget the others
        node.stop()
        node.boot()
    world.run(120)
    assert [may_confirm(node) for node in world.nodes] == [False, False, True, True, True]
    world.network.heal()
    world.run(120)
    assert all(may_confirm(node) for node in world.nodes)


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_member_that_is_cut_off_calls_itself_isolated_and_recovers(seed: int) -> None:
    world = World(seed, 5)
    world.boot_all()
    world.run(30)
    world.network.cut([0], [1, 2, 3, 4])
    world.run(60)
    assert [engine_of(node).isolated for node in world.nodes] == [True, False, False, False, False]
    assert [may_confirm(node) for node in world.nodes] == [False, True, True, True, True]
    world.network.heal()
    world.run(120)
    assert not any(engine_of(node).isolated for node in world.nodes)
    assert all(may_confirm(node) for node in world.nodes)
