# SPDX-License-Identifier: MIT
"""Who is removed under ugly networks, and who is not (``detection.py`` plays the fleets of a hundred members)."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from xdp_gossip.core.events import Event, MemberChanged
from xdp_gossip.core.observers.rings import K
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import PRESENT, Node, State

from .detection import FAULTS, NOTICED_WITHIN, attempt, exactly, fleet, removed, together
from .steps import formed
from .world import SimNode, World

SEEDS = int(os.environ.get("SIM_DETECTION_SEEDS", "20"))
#: Seeds whose faults of one direction last for ten virtual minutes, which take most of a minute of a processor, one for
#: each fault; the others last for two.
LONG = int(os.environ.get("SIM_DETECTION_LONG", "3"))
#: The faults of one direction share the seeds.
JOBS = {
    "crash": [("crash", seed, 100, 30.0, 60.0) for seed in range(SEEDS)],
    "loss": [
        (("loss_in", "loss_out", "loss_80")[seed % 3], seed, 100, 600.0 if seed < LONG else 120.0, 60.0)
        for seed in range(SEEDS)
    ],
}


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", JOBS)
def test_a_hundred_members_remove_the_faulty_and_nobody_else(kind: str) -> None:
    with multiprocessing.get_context("fork").Pool(min(os.cpu_count() or 1, SEEDS)) as pool:
        results = sorted(pool.imap_unordered(attempt, JOBS[kind]))
    faults = [f"{JOBS[kind][seed][0]} {seed}: {fault}" for seed, fault in results if fault is not None]
    if faults:
        pytest.fail("\n".join([*faults, "replay: python3 -m tests.sim.detection FAULT --seed SEED"]), pytrace=False)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_usual_cycle_changes_nothing(fault: str) -> None:
    assert attempt((fault, 1, 30, 120.0, 0.0)) == (1, None)


def state_of(node: SimNode, other: SimNode) -> State:
    assert node.engine is not None
    return next(m.state for m in node.engine.members(node.now) if m.address == other.address)


def views(world: World, other: SimNode) -> set[State]:
    return {state_of(node, other) for node in world.up if node is not other}


def listed(world: World) -> bool:
    return all(state_of(a, b) is State.ALIVE for a in world.up for b in world.up if a is not b)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_member_of_one_direction_is_removed_knows_it_and_returns(direction: str, seed: int) -> None:
    """A heartbeat proves one direction only: a host that gets nothing stayed alive for everybody, forever."""
    world = fleet(seed, 6, 0.0)
    victim = world.nodes[5]
    engine = victim.engine
    assert engine is not None
    since = world.time
    (world.network.loss_in if direction == "in" else world.network.loss_out)[5] = 1.0
    world.run(NOTICED_WITHIN)
    together(world, [victim], since)
    exactly(world, [victim])
    assert engine.isolated
    assert {state_of(victim, other) for other in world.nodes[:5]} <= PRESENT
    world.run(600.0)
    assert views(world, victim) == {State.DEAD} and engine.isolated
    world.network.heal()
    world.run(30.0)
    assert not engine.isolated and listed(world)


@pytest.mark.slow
def test_a_blocked_pair_among_ten_removes_nobody() -> None:
    world = fleet(1, 10, 0.0)
    world.network.cut([3], [7])
    world.run(300.0)
    exactly(world, [])
    assert not removed(world) and listed(world)
    world.publish(world.nodes[3], "k", b"v")
    world.run_until(world.checks.disagreement, 10.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_member_of_another_family_is_isolated(seed: int) -> None:
    """A member that tells an IPv6 address, among members whose hosts lose theirs: it sends, and nobody answers."""
    world = World(seed, 5, settings=Settings(cycle=0.0, amount=4))
    six = world.nodes[4]
    six.node = replace(six.node, addr="fd00::5")
    world.by_address = {node.address: node for node in world.nodes}
    world.boot_all()
    world.run(10.0)
    engine = six.engine
    assert engine is not None and listed(world)
    for node in world.nodes[:4]:  # their hosts lose IPv6
        assert node.engine is not None
        node.engine.reaches = lambda address: ":" not in address.ip
    world.network.cut(range(4), [4], both_ways=False)
    world.run(60.0)
    assert engine.isolated
    assert views(world, six) <= {State.DEAD}


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [5, 30])
def test_probes_do_not_grow_with_the_fleet(nodes: int) -> None:
    world = fleet(1, nodes, 0.0)
    before = [dict(node.engine.counters) for node in world.up if node.engine is not None]
    world.run(60.0)
    for node, counters in zip(world.up, before):
        assert node.engine is not None
        for way in ("rx", "tx"):
            sent = sum(
                node.engine.counters[f"{way}_{kind}"] - counters[f"{way}_{kind}"] for kind in ("edge_probe", "edge_ack")
            )
            assert sent <= (2 * K + 2) * 60


def test_a_member_that_seeds_know_is_no_first_node() -> None:
    """A first node, alone, is not isolated; nor is one of two whose other one is gone."""
    world = World(1, 2, settings=Settings(cycle=0.0, amount=4))
    first, second = world.nodes
    first.boot()
    world.run(30.0)
    assert first.engine is not None and not first.engine.isolated
    second.boot([first])
    world.run(10.0)
    second.crash()
    world.run(60.0)
    assert state_of(first, second) is State.DEAD and not first.engine.isolated
    assert first.engine.node == Node("198.18.0.1", 8000, "host0", "data 0")


@pytest.mark.slow
@pytest.mark.parametrize("planes", [range(0), range(5)], ids=["agent", "kernel"])
@pytest.mark.parametrize("seconds", [7.0, 12.0, 16.0])
def test_who_was_gone_by_silence_is_not_removed_by_reports_from_before_its_return(
    planes: Sequence[int], seconds: float
) -> None:
    """One observer tells nothing, so its silence removes a host before the reports about it are complete."""
    world = World(5, 5, settings=Settings(cycle=0.3, timeout=2.5, amount=4), planes=planes)
    formed(world)
    world.run(5.0)
    mute, victim = world.nodes[1], world.nodes[3]
    assert mute.engine is not None
    mute.engine._edges.due = mute.engine._round_at = math.inf
    world.checks.moves = []
    world.network.loss_out = {victim.number: 1.0}
    world.run(seconds)
    world.network.loss_out = {}
    world.run(20.0)
    for node in world.nodes:
        if node is not victim:
            moves = [move for move in removed(world) if move.observer == node.address]
            assert [move.subject for move in moves] == [victim.address]
            assert victim.address in {m.address for m in node.engine.members(node.now) if m.state is State.ALIVE}


def test_a_suspicion_of_a_suspect_is_no_event() -> None:
    """Its silence made it suspect; then its observers report it. The change feed would call that a recovery."""
    world = World(5, 5, settings=Settings(cycle=0.3, timeout=2.5, amount=4))
    formed(world)
    world.run(5.0)
    told: list[tuple[State | None, State]] = []
    tell = world.tell

    def tapped(number: int, event: Event) -> None:
        if isinstance(event, MemberChanged):
            told.append((event.previous, event.member.state))
        tell(number, event)

    world.tell = tapped  # type: ignore[method-assign]
    world.network.loss_out = {3: 1.0}
    world.run(16.0)
    assert (State.ALIVE, State.SUSPECT) in told and (State.SUSPECT, State.SUSPECT) not in told
