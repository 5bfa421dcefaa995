# SPDX-License-Identifier: MIT
"""Steps that scenarios are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from xdp_gossip.core.settings import Settings

from .checks import Violation
from .world import SimNode, World

SETTINGS = Settings(cycle=1.0)
#: Until a silent node is given up: the timeout, three rounds of probes half a cycle apart, stretched once or twice.
REMOVED_WITHIN = 5.0 + 3 * 0.5 * 4 + 2
#: Until everybody agrees again, whatever happened.
SETTLED_WITHIN = 30.0

Scenario = Callable[[World], None]


def settle(world: World, seconds: float = SETTLED_WITHIN) -> float:
    """Everybody agrees within ``seconds``, and still does two cycles later."""
    took = world.run_until(world.checks.disagreement, seconds)
    world.run(2.0)
    missing = world.checks.disagreement()
    if missing:
        raise Violation(f"agreed after {took:.1f} s, and no longer: {missing}")
    world.checks.finally_sound()
    world.checks.nothing_lost()
    return took


def formed(world: World) -> None:
    """A cluster that found itself."""
    world.boot_all()
    world.run_until(world.checks.disagreement, 10.0)


def some(world: World, least: int, most: int) -> list[SimNode]:
    return world.rng.sample(world.up, world.rng.randint(least, most))


def publish_somewhere(world: World, keys: int = 3) -> None:
    rng = world.rng
    size = rng.choice([0, 10, 300, 3000])
    if rng.random() < 0.03:
        size = rng.choice([20_000, 100_000])
    value = rng.randbytes(8) + bytes(size)
    world.publish(rng.choice(world.up), f"key/{rng.randrange(keys)}", value)


def restart(world: World, nodes: Sequence[SimNode]) -> None:
    for node in nodes:
        node.crash()
        node.boot()
    world.run(world.rng.uniform(0.0, 3.0))
