# SPDX-License-Identifier: MIT
"""Scenarios in which the keys of the cluster change while everybody stays."""

from __future__ import annotations

from tests.support.keys import KEY, OTHER_KEY
from xdp_gossip.wire.keys import derive

from .checks import Violation
from .network import Link
from .steps import REMOVED_WITHIN, formed, publish_somewhere, settle
from .world import SimNode, World

#: The three steps of a rotation: state and secret of each key.
STEPS = (
    (("active", KEY), ("staged", OTHER_KEY)),
    (("active", OTHER_KEY), ("retiring", KEY)),
    (("active", OTHER_KEY),),
)
_NEW = ((derive("sim", OTHER_KEY).fingerprint, "active"),)


def rotation(world: World) -> None:
    """The key is rotated by reloads in random order, under publishes and loss. No packet is refused for its key."""
    formed(world)
    world.checks.forbid_suspicion = world.checks.forbid_removal = True
    world.network.link = Link(loss=0.03, duplicate=0.02, delay=0.005, jitter=0.01)
    for step in STEPS:
        for node in world.rng.sample(world.nodes, len(world.nodes)):
            node.use_keys(*step)
            publish_somewhere(world)
            world.run(world.rng.choice([0.0, 0.1, 0.7]))
        world.run(3.0)  # until no packet of the step before is under way
    world.network.link = Link()
    settle(world, 10.0)
    for node in world.nodes:
        _nothing_refused(node)
        for other, keys in _told(node).items():
            if keys != _NEW:
                raise Violation(f"node {node.number} is told that {other} has the keys {keys}")


def missed_rotation(world: World) -> None:
    """A node misses a rotation and is removed. It says so, and becomes a member again once it has the new key."""
    formed(world)
    left = world.rng.choice(world.nodes)
    rest = [node for node in world.nodes if node is not left]
    for step in STEPS:
        for node in rest:
            node.use_keys(*step)
        world.run(1.0)
    publish_somewhere(world)
    world.run_until(lambda: None if _engine(left).missed_rotation else "node does not say it", 4 * REMOVED_WITHIN)
    for node in rest:
        if _engine(node).missed_rotation:
            raise Violation(f"node {node.number} has the new key, and says that it missed the rotation")
    left.use_keys(*STEPS[-1])
    if _engine(left).missed_rotation:
        raise Violation("the node has the new key, and still says that it missed the rotation")
    settle(world, 120.0)
    world.run(130.0)
    if any(_engine(node).missed_rotation or _engine(node).unknown_key_nodes for node in world.nodes):
        raise Violation("a node still says that others sign with an unknown key")


def _engine(node: SimNode):  # type: ignore[no-untyped-def]
    assert node.engine is not None
    return node.engine


def _nothing_refused(node: SimNode) -> None:
    counted = dict(_engine(node).counters)
    if node.plane is not None:
        counted.update(node.plane.model.counters)
    for name in ("rx_unknown_key", "rx_bad_mac", "rx_bad_body", "drop_unknown_key", "drop_bad_mac"):
        if counted.get(name):
            raise Violation(f"node {node.number}: {name} is {counted[name]} after a rotation")


def _told(node: SimNode) -> dict[str, tuple[tuple[int, str], ...]]:
    """The keys of every node, as this one sees them."""
    return {
        str(member.address): member.record.keys if member.record else () for member in _engine(node).members(node.now)
    }
