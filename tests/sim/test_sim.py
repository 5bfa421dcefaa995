# SPDX-License-Identifier: MIT
"""Every scenario under ``SIM_SEEDS`` seeds (default 30), and the simulator's own promises."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xdp_gossip.core.sync import nodelists

from .__main__ import attempt
from .checks import Violation
from .network import Link
from .scenarios import SCENARIOS, SETTINGS
from .world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS = int(os.environ.get("SIM_SEEDS", "30"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str) -> None:
    play_seeds(name, SEEDS)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_with_long_lists(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Members compare their NodeLists by buckets, as in large fleets."""
    monkeypatch.setattr(nodelists, "FEW_NODES", 0)
    play_seeds(name, max(1, SEEDS // 6))


def play_seeds(name: str, seeds: int) -> None:
    with multiprocessing.get_context("fork").Pool(min(os.cpu_count() or 1, seeds)) as pool:
        results = pool.imap_unordered(attempt, [(name, seed) for seed in range(seeds)], chunksize=4)
        faults = sorted((seed, fault) for _name, seed, fault, _trace, _seconds in results if fault is not None)
    if faults:
        shown = "\n".join(
            f"{fault}\n  replay: python3 -m tests.sim --scenario {name} --seed {seed}" for seed, fault in faults[:5]
        )
        pytest.fail(f"{len(faults)} of {seeds} seeds of {name!r} failed:\n{shown}", pytrace=False)


@pytest.mark.parametrize("name", ["churn", "catch_up"])
def test_a_seed_replays_to_the_byte(name: str) -> None:
    traces = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--scenario", name, "--seed", "7", "--hash"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=120,
        )
        traces.add(next(line for line in done.stdout.splitlines() if line.startswith(f"{name} 7 ")))
    assert len(traces) == 1
    assert len(traces.pop().split()[2]) == 32


def test_seeds_differ() -> None:
    assert attempt(("calm", 1))[3] != attempt(("calm", 2))[3]


def formed() -> World:
    world = World(1, 4, settings=SETTINGS)
    world.boot_all()
    world.run_until(world.checks.disagreement, 10.0)
    return world


def test_the_checks_notice_a_lost_publish() -> None:
    world = formed()
    world.network.link = Link(loss=1.0)
    world.network.cut([0], [1, 2, 3])
    world.publish(world.nodes[0], "k", b"v")
    with pytest.raises(Violation, match="holds None of 'k', the winner is"):
        world.run_until(world.checks.disagreement, 2.0)


def test_the_checks_notice_a_false_removal() -> None:
    world = formed()
    world.checks.forbid_removal = True
    world.network.cut([0], [1, 2, 3])
    with pytest.raises(Violation, match="which is well"):
        world.run(30.0)


def test_the_checks_notice_a_ghost() -> None:
    world = formed()
    world.nodes[3].crash()
    with pytest.raises(Violation, match="still lists"):
        world.run_until(world.checks.disagreement, 2.0)


def test_the_checks_notice_a_heartbeat_storm() -> None:
    world = formed()
    packets: list[bytes] = []
    original = world.checks.on_transmit
    node = world.nodes[0]

    def watch(sender: object, transmit: object) -> None:
        original(sender, transmit)  # type: ignore[arg-type]
        if sender is node and transmit.data[3] == 1:  # type: ignore[attr-defined]
            packets.append(transmit)  # type: ignore[arg-type]

    world.checks.on_transmit = watch  # type: ignore[method-assign, assignment]
    world.run(2.0)
    with pytest.raises(Violation, match="one heartbeat took more than"):
        for _ in range(SETTINGS.amount * world.runs + 1):
            original(node, packets[-1])  # type: ignore[arg-type]


def test_the_checks_notice_an_unpersisted_publish() -> None:
    world = formed()
    node = world.nodes[0]
    node._persist = lambda event: None  # type: ignore[method-assign]
    with pytest.raises(Violation, match="before it was on its disk"):
        world.publish(node, "k", b"v")


def test_a_world_that_stands_still_is_noticed() -> None:
    world = World(1, 1, settings=SETTINGS)

    def again() -> None:
        world.at(world.time, again)

    again()
    with pytest.raises(Violation, match="events follow each other and no time passes"):
        world.run(1.0)
