# SPDX-License-Identifier: MIT
"""A node that has just started, or lost its state, says when it knows what the cluster knew at that moment."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from xdp_gossip.core.types import Document
from xdp_gossip.store.sqlite import MemoryStore

from .network import Link
from .steps import SETTINGS, formed, restart
from .world import SimNode, World

pytestmark = pytest.mark.slow

WAIT = SETTINGS.wait_for_members


def waits_for(node: SimNode) -> str:
    assert node.engine is not None
    return node.engine.catching_up


def unready(*nodes: SimNode) -> str | None:
    waiting = [f"{node.address}: {waits_for(node)}" for node in nodes if waits_for(node)]
    return "; ".join(waiting) or None


def held(node: SimNode) -> dict[str, Document]:
    assert node.engine is not None
    return {document.key: document for document in node.engine.documents.live()}


def rebuild(*nodes: SimNode) -> None:
    """The machines come back with empty disks."""
    for node in nodes:
        node.crash()
        node.disk = MemoryStore()
    for node in nodes:
        node.boot(node.world.nodes)


def knows_all_of(node: SimNode, before: dict[str, Document]) -> bool:
    now = held(node)
    return all(key in now and now[key].rank >= document.rank for key, document in before.items())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("documents", "size"), [(5, 20), (400, 20), (60, 9000)])
@pytest.mark.parametrize("planes", [0, 5], ids=["socket", "kernel"])
def test_a_rebuilt_node_has_caught_up_once_it_holds_what_a_member_held(
    seed: int, documents: int, size: int, planes: int
) -> None:
    link = Link(loss=0.05 * (seed % 3), delay=0.005, jitter=0.01)
    world = World(seed, 5, settings=SETTINGS, link=link, planes=range(planes))
    formed(world)
    for number in range(documents):
        world.publish(world.nodes[number % 5], f"k/{number}", bytes(size))
    world.run_until(world.checks.disagreement, 60.0)
    world.run_until(lambda: unready(*world.nodes), 30.0)
    node = world.nodes[4]
    before = held(world.nodes[0])
    rebuild(node)
    assert waits_for(node)
    # Somebody publishes all the time: equal digests are never seen for long.
    for turn in range(4000):
        if not waits_for(node):
            break
        if turn % 4 == 0:
            world.publish(world.nodes[turn % 3], f"busy/{turn % 7}", b"%d" % turn)
        world.run(0.01)
    assert unready(node) is None
    assert knows_all_of(node, before)
    assert node.engine is not None
    names = {member.record.name for member in node.engine.members(node.now) if member.record}
    assert names == {f"host{number}" for number in range(5)}


@pytest.mark.parametrize("seed", range(4))
def test_nodes_that_lost_their_state_together_do_not_take_each_other_for_the_cluster(seed: int) -> None:
    world = World(seed, 3, settings=SETTINGS)
    formed(world)
    for number in range(40):
        world.publish(world.nodes[0], f"k/{number}", b"x")
    world.run_until(world.checks.disagreement, 30.0)
    world.run_until(lambda: unready(*world.nodes), 30.0)
    before = held(world.nodes[0])
    world.network.cut([0], [1, 2])
    rebuild(*world.nodes[1:])
    world.run(WAIT - 5.0)
    for node in world.nodes[1:]:
        assert "have just started, and seed" in waits_for(node) and not held(node)
    world.network.heal()
    world.run_until(lambda: unready(*world.nodes), 30.0, step=0.05)
    assert all(knows_all_of(node, before) for node in world.nodes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("planes", [0, 5], ids=["socket", "kernel"])
def test_a_fleet_that_is_switched_on_together_needs_no_limit(seed: int, planes: int) -> None:
    world = World(seed, 5, settings=replace(SETTINGS, wait_for_members=math.inf), planes=range(planes))
    formed(world)
    for number in range(30):
        world.publish(world.nodes[number % 5], f"k/{number}", b"x")
    world.run_until(world.checks.disagreement, 30.0)
    late = world.nodes[2]
    world.network.cut([2], [0, 1, 3, 4])
    world.publish(late, "late", b"only here")
    world.run(2.0)
    world.network.heal()
    restart(world, world.nodes)
    for node in world.nodes:
        world.run_until(lambda node=node: unready(node), 30.0, step=0.05)  # type: ignore[misc]
        assert len(held(node)) == 31


@pytest.mark.parametrize("limit", [WAIT, math.inf])
def test_a_restart_during_a_partition_waits_for_the_limit_that_is_set(limit: float) -> None:
    world = World(1, 4, settings=replace(SETTINGS, wait_for_members=limit))
    formed(world)
    world.publish(world.nodes[0], "k", b"1")
    world.run_until(world.checks.disagreement, 30.0)
    world.run_until(lambda: unready(*world.nodes), 30.0)
    node = world.nodes[3]
    world.network.cut([3], [0, 1, 2])
    node.crash()
    world.publish(world.nodes[0], "k", b"2")
    node.boot(world.nodes)
    world.run(WAIT - 1.0)
    assert waits_for(node) == "no member has answered yet"
    world.run(3.0)
    assert bool(waits_for(node)) is (limit == math.inf)
    world.network.heal()
    world.run_until(lambda: unready(node), 30.0)
    world.run_until(world.checks.disagreement, 30.0)


def test_who_is_alone_by_configuration_waits_for_one_timeout() -> None:
    world = World(1, 1, settings=SETTINGS)
    world.boot_all()
    node = world.nodes[0]
    assert node.engine is not None
    world.run(node.engine.timeout - 1.0)
    assert waits_for(node)
    world.run_until(lambda: unready(node), 3.0)


def test_seeds_that_are_yet_to_come_are_waited_for() -> None:
    world = World(1, 1, settings=replace(SETTINGS, expects_seeds=True))
    world.boot_all()
    world.run(WAIT - 5.0)
    assert waits_for(world.nodes[0])
    world.run_until(lambda: unready(world.nodes[0]), 10.0)


def test_an_interruption_is_no_start() -> None:
    world = World(1, 4, settings=SETTINGS)
    formed(world)
    world.run_until(lambda: unready(*world.nodes), 30.0)
    world.network.cut([0], [1, 2, 3])
    world.run(60.0)
    assert unready(*world.nodes) is None
    world.nodes[0].suspend()
    world.network.heal()
    world.run(30.0)
    world.nodes[0].wake()
    assert unready(*world.nodes) is None


def test_a_member_that_is_heard_and_answers_nothing_is_not_waited_for_beyond_the_limit() -> None:
    world = World(1, 2, settings=SETTINGS)
    formed(world)
    world.run_until(lambda: unready(*world.nodes), 30.0)
    world.nodes[1].crash()
    world.network.cut([1], [0], both_ways=False)
    world.nodes[1].boot(world.nodes)
    world.run(WAIT - 5.0)
    assert waits_for(world.nodes[1])
    world.run_until(lambda: unready(world.nodes[1]), 30.0)


def test_who_starts_together_with_a_member_that_shows_other_documents_waits_for_them() -> None:
    world = World(1, 2, settings=replace(SETTINGS, wait_for_members=math.inf))
    formed(world)
    for number in range(60):
        world.publish(world.nodes[0], f"k/{number}", b"x")
    world.run_until(world.checks.disagreement, 30.0)
    before = held(world.nodes[0])
    world.nodes[0].crash()
    world.network.cut([1], [0], both_ways=False)  # it hears heartbeats, and its questions do not arrive
    rebuild(world.nodes[1])
    world.nodes[0].boot(world.nodes)
    world.run(60.0)
    # Its probes do not arrive either, so it has removed the other one, whose heartbeats it hears.
    assert waits_for(world.nodes[1]) == "no member has answered yet"
    world.network.heal()
    world.run_until(lambda: unready(world.nodes[1]), 30.0, step=0.05)
    assert knows_all_of(world.nodes[1], before)
