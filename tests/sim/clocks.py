# SPDX-License-Identifier: MIT
"""Scenarios of time: clocks that step, machines that sleep, boot in the past or in 2107, and disks that are restored.

What must hold is watched in all scenarios (``Checks``): on a member whose clock is right nothing that was acknowledged
disappears, and nothing deleted returns.
"""

from __future__ import annotations

import copy

from xdp_gossip.core.types import Write

from .checks import Violation
from .steps import REMOVED_WITHIN, formed, publish_somewhere, settle, some
from .world import EPOCH_S, SimNode, World

_DAY = 86_400.0
_YEAR_2107 = 4_323_456_000.0 - EPOCH_S


def _held(node: SimNode, key: str) -> bytes | None:
    assert node.engine is not None
    document = node.engine.documents.get(key)
    return None if document is None else document.value


def _everywhere(world: World, expected: dict[str, bytes | None]) -> None:
    for node in world.up:
        for key, value in expected.items():
            if _held(node, key) != value:
                raise Violation(f"{node.address} holds {_held(node, key)!r} of {key!r}, expected {value!r}")


def clock_steps(world: World) -> None:
    """Clocks of some or all members jump by minutes, days or decades, and back; documents change and expire."""
    formed(world)
    rng = world.rng
    for number in range(4):
        world.publish(rng.choice(world.up), f"deleted/{number}", rng.randbytes(9))
    world.write(rng.choice(world.up), [Write("lease", b"for an hour", expires_in=3600.0)])
    settle(world)
    jumps = [-400 * _DAY, -3600.0, -600.0, 600.0, 3600.0, 8 * _DAY, _YEAR_2107]
    together = rng.random() < 0.3
    wrong = world.nodes if together else some(world, 1, (len(world.nodes) - 1) // 2)
    for turn in range(3):
        common = rng.choice(jumps)
        for node in wrong:
            node.skew = common if together else rng.choice(jumps)
        world.run(rng.uniform(0.0, 3.0))
        world.delete(rng.choice(world.up), f"deleted/{turn}")
        publish_somewhere(world)
        world.run(rng.choice([0.0, 15.0]))
        for node in wrong:
            node.skew = 0.0
        publish_somewhere(world)
        world.run(rng.uniform(0.0, 3.0))
    settle(world)
    _everywhere(world, {"lease": b"for an hour", "deleted/0": None, "deleted/2": None})


def suspends(world: World) -> None:
    """Machines sleep while other nodes publish. After waking, each machine publishes an expiring document."""
    formed(world)
    rng = world.rng
    publish_somewhere(world)
    world.publish(world.nodes[0], "gone", b"1")
    settle(world)
    sleepers = some(world, 1, 2)
    for sleeper in sleepers:
        sleeper.suspend()
    world.delete(next(node for node in world.up), "gone")
    publish_somewhere(world)
    world.run(rng.choice([2.0, REMOVED_WITHIN, 400.0]))
    for sleeper in sleepers:
        sleeper.wake()
        world.write(sleeper, [Write(f"lease/{sleeper.number}", b"for two minutes", expires_in=120.0)])
    settle(world)
    _everywhere(world, {"gone": None, **{f"lease/{sleeper.number}": b"for two minutes" for sleeper in sleepers}})


def _boots_under(world: World, skews: list[float]) -> None:
    """All but one go off and come back under wrong clocks, publish, and are put right; then the last one returns."""
    formed(world)
    rng = world.rng
    world.publish(world.nodes[0], "config", b"old")
    world.publish(world.nodes[0], "gone", b"to be deleted")
    settle(world)
    away = rng.choice(world.nodes)
    others = [node for node in world.nodes if node is not away]
    away.crash()
    world.run(REMOVED_WITHIN)
    world.publish(rng.choice(others), "config", b"new")
    world.delete(rng.choice(others), "gone")
    settle(world)
    for node in others:
        node.stop()
    world.run(rng.choice([1.0, 60.0]))
    skew = rng.choice(skews)
    for node in others:
        node.skew = skew
        node.boot()
        world.run(rng.uniform(0.0, 1.0))
    world.run(rng.choice([3.0, 30.0]))
    expected = {"config": b"new", "gone": None}
    if rng.random() < 0.5:
        expected["config"] = world.publish(rng.choice(others), "config", b"written meanwhile").value
    if rng.random() < 0.5:
        expected["gone"] = world.publish(rng.choice(others), "gone", b"written again").value
    world.run(rng.choice([3.0, 30.0]))
    for node in others:
        node.skew = 0.0
        world.run(rng.uniform(0.0, 2.0))
    away.boot()
    settle(world)
    _everywhere(world, expected)


def boots_in_the_past(world: World) -> None:
    """Machines without a clock battery boot in 1970, or days behind. Documents that they publish stay the newest."""
    _boots_under(world, [-3600.0, -3 * _DAY, -9 * _DAY, 100.0 - EPOCH_S, -float(EPOCH_S)])


def boots_in_2107(world: World) -> None:
    """Machines with a dead clock battery boot in 2107, or a week ahead. No document is lost after the correction."""
    _boots_under(world, [3600.0, 9 * _DAY, _YEAR_2107])


def restored_disks(world: World) -> None:
    """A machine restarts with an older copy of its disk, in some worlds with a clock that stands still."""
    formed(world)
    rng = world.rng
    node = rng.choice(world.nodes)
    world.publish(rng.choice(world.up), "gone", b"1")
    publish_somewhere(world)
    settle(world)
    node.save_now()
    disk, taken_at = copy.deepcopy(node.disk), world.time
    world.delete(rng.choice(world.up), "gone")
    for _ in range(3):
        publish_somewhere(world)
        world.run(rng.uniform(0.0, 2.0))
    settle(world)
    for _ in range(rng.randint(1, 2)):
        node.crash()
        world.run(rng.choice([0.0, REMOVED_WITHIN]))
        node.disk = copy.deepcopy(disk)
        if rng.random() < 0.5:
            node.skew = taken_at - world.time
        node.boot([other for other in world.nodes if other is not node][:1])
        publish_somewhere(world)
        world.run(rng.uniform(0.0, 2.0))
    node.skew = 0.0
    settle(world)
    _everywhere(world, {"gone": None})


def away_beyond_the_grace(world: World) -> None:
    """A member is away for longer than `tombstone_grace`, deletes and publishes, and its clock may jump."""
    formed(world)
    rng = world.rng
    for key in ("kept", "gone", "scratch"):
        world.publish(rng.choice(world.up), key, b"1")
    settle(world)
    away = rng.choice(world.nodes)
    others = [node for node in world.nodes if node is not away]
    world.network.cut([away.number], [node.number for node in others])
    world.run(rng.uniform(0.5, 2.0))
    world.publish(rng.choice(others), "app/config", b"of the others")
    world.delete(rng.choice(others), "gone")
    world.publish(away, "app/away", b"of the one away")
    world.run(rng.uniform(0.5, 2.0))
    world.delete(away, "scratch")
    jumps = rng.random() < 0.3
    if jumps:
        away.skew = 8 * _DAY
    world.run(rng.uniform(1.2, 2.0) * world.settings.tombstone_grace)
    away.skew = 0.0
    world.network.heal()
    settle(world)
    expected = {"kept": b"1", "gone": None, "scratch": None, "app/config": b"of the others"}
    _everywhere(world, {**expected, "app/away": b"of the one away"})


SCENARIOS = (
    (clock_steps, 3, 6),
    (suspends, 3, 6),
    (boots_in_the_past, 3, 5),
    (boots_in_2107, 3, 5),
    (restored_disks, 3, 6),
    (away_beyond_the_grace, 3, 6),
)
