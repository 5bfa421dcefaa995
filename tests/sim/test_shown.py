# SPDX-License-Identifier: MIT
"""The revision by which a list of nodes is known to be unchanged: never the same for two lists, and quiet in peace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from xdp_gossip.core.types import Member, Now

from .steps import formed, publish_somewhere
from .world import SimNode, World

pytestmark = pytest.mark.slow


def shown(members: list[Member]) -> tuple[Member, ...]:
    """What a list shows of the other nodes, but for signs of life."""
    return tuple(replace(member, sequence=0, last_heard=0.0, stored=True) for member in members[1:])


@pytest.mark.parametrize("seed", range(4))
def test_a_list_that_shows_something_new_has_a_revision_of_its_own(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(seed, 6)
    lists: dict[tuple[int, int, int], tuple[Member, ...]] = {}
    after_input: Callable[[SimNode], None] = SimNode.after_input

    def looked_at(node: SimNode) -> None:
        after_input(node)
        engine = node.engine
        assert engine is not None
        found = shown(engine.members(node.now))
        assert lists.setdefault((node.number, node.runs, engine.revision), found) == found

    monkeypatch.setattr(SimNode, "after_input", looked_at)
    formed(world)
    steps: list[Callable[[SimNode], None]] = [
        SimNode.crash,
        SimNode.freeze,
        world.leave,
        world.pause,
        lambda node: world.update(node, f"data {world.time}"),
        lambda node: publish_somewhere(world),
    ]
    for _ in range(25):
        if len(world.up) > 2:
            world.rng.choice(steps)(world.rng.choice(world.up))
        for node in world.nodes:
            if node.engine is None and world.rng.random() < 0.5:
                node.boot(world.nodes[:2])
            elif node.frozen and world.rng.random() < 0.5:
                node.thaw()
            elif node.up and world.rng.random() < 0.5:
                world.resume(node)
        world.run(world.rng.uniform(0.2, 6.0))
    assert len(set(lists.values())) > 100


def test_signs_of_life_change_no_revision() -> None:
    world = World(1, 5)
    formed(world)
    world.run(20.0)
    before = [node.engine.revision for node in world.nodes if node.engine is not None]
    heard = [member.sequence for node in world.nodes if node.engine for member in node.engine.members(node.now)[1:]]
    world.run(60.0)
    assert [node.engine.revision for node in world.nodes if node.engine is not None] == before
    later = [member.sequence for node in world.nodes if node.engine for member in node.engine.members(node.now)[1:]]
    assert all(new > old for old, new in zip(heard, later))


def test_pages_put_together_are_the_list() -> None:
    world = World(1, 7)
    formed(world)
    engine, now = world.nodes[3].engine, world.nodes[3].now
    assert engine is not None and isinstance(now, Now)
    for number in range(20):
        world.publish(world.nodes[3], f"key/{number:02}", b"v")
    world.delete(world.nodes[3], "key/07")
    others = engine.members(now)[1:]
    assert [member.address for member in others] == sorted(member.address for member in others)
    for place in range(len(others)):
        assert list(engine.members_after(others[place].address, now)) == others[place + 1 :]
    documents = list(engine.documents.live("key/"))
    assert [document.key for document in documents] == [f"key/{n:02}" for n in range(20) if n != 7]
    assert engine.documents.totals == (19, 19)
    for place in range(len(documents)):
        assert list(engine.documents.live("key/", documents[place].key)) == documents[place + 1 :]
    assert next(engine.documents.live("key/", "key/07")).key == "key/08"
    assert next(engine.documents.live("key/1")).key == "key/10"
    assert not list(engine.documents.live("key/", "zzz"))
