# SPDX-License-Identifier: MIT
"""Detection at size: fleets of a hundred and more members under the faults that make other detectors flap.

``python3 -m tests.sim.detection FAULT --nodes N --seed S`` plays one; ``make sim-large`` plays the large ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "agent"))

from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import PRESENT, Address, State

from .checks import Move, Violation
from .world import SimNode, World

#: Virtual seconds until a crash is noticed by all, and between the first and the last member that notices it.
NOTICED_WITHIN, TOGETHER_WITHIN = 15.0, 2.0
#: Seconds for which a fault of one direction lasts, and then does not.
SWITCHES_EVERY = 20.0


@dataclass(frozen=True)
class Seen:
    """What a run came to: seconds until the first and the last member had removed all faulty ones (None: never)."""

    first: float | None
    last: float | None
    probes: float


def fleet(seed: int, nodes: int, cycle: float, planes: Sequence[int] = ()) -> World:
    """A world of ``nodes`` members that know each other, and remember every change of a state from now on."""
    world = World(seed, nodes, settings=Settings(cycle=cycle, amount=4), planes=planes, save_every=600.0)
    world.boot_all()
    world.run_until(lambda: strangers(world), 300.0)
    # The windows of all edges fill.
    world.run(12.0)
    world.checks.moves = []
    return world


def strangers(world: World) -> str | None:
    """Who does not list all others as alive; None when all do."""
    for node in world.up:
        assert node.engine is not None
        missing = len(world.nodes) - node.engine.tally()[State.ALIVE]
        if missing:
            return f"{node.address} does not list {missing} members"
    return None


def removed(world: World) -> list[Move]:
    """Removals that members saw, in the order of time."""
    assert world.checks.moves is not None
    return [move for move in world.checks.moves if move.state not in PRESENT and move.previous in PRESENT]


def exactly(world: World, faulty: Sequence[SimNode]) -> None:
    """Nobody but the faulty was removed by a member that is not faulty itself."""
    those = {node.address for node in faulty}
    for move in removed(world):
        if move.subject not in those and move.observer not in those:
            raise Violation(f"[{move.time:.3f} s] {move.observer} removed {move.subject}, which is well")


def once(world: World, faulty: Sequence[SimNode]) -> None:
    """No member that is not faulty saw a member go, come back and go again more than once."""
    those = {node.address for node in faulty}
    seen: dict[tuple[Address, Address], int] = defaultdict(int)
    for move in removed(world):
        if move.observer not in those:
            seen[move.observer, move.subject] += 1
    flapping = {pair: times for pair, times in seen.items() if times > 2}
    if flapping:
        (observer, subject), times = next(iter(flapping.items()))
        raise Violation(f"{observer} saw {subject} go {times} times; {len(flapping)} pairs in all saw more than two")


def together(world: World, faulty: Sequence[SimNode], since: float) -> tuple[float, float]:
    """Every other member has removed all of the faulty. Returns when the first and the last had, after ``since``."""
    those = {node.address for node in faulty}
    done = []
    for node in world.up:
        if node.address in those:
            continue
        times = {m.subject: m.time for m in removed(world) if m.observer == node.address and m.subject in those}
        if len(times) < len(those):
            raise Violation(f"{node.address} still lists {len(those) - len(times)} of {len(those)} that are gone")
        done.append(max(times.values()) - since)
    first, last = min(done), max(done)
    if last > NOTICED_WITHIN or last - first > TOGETHER_WITHIN:
        raise Violation(f"the faulty were removed {first:.1f} to {last:.1f} s after they failed")
    return first, last


def _probes(world: World, before: float, since: float) -> float:
    return (_sent(world) - before) / len(world.up) / (world.time - since)


def _sent(world: World) -> float:
    return sum(n.engine.counters["tx_edge_probe"] for n in world.up if n.engine is not None)


def crash(world: World, seconds: float) -> Seen:
    """A tenth of the members, ten at most, are killed at once."""
    victims = world.rng.sample(world.nodes, min(10, max(1, len(world.nodes) // 10)))
    since, sent = world.time, _sent(world)
    for victim in victims:
        victim.crash()
    world.run(NOTICED_WITHIN)
    first, last = together(world, victims, since)
    world.run(max(0.0, seconds - NOTICED_WITHIN))
    exactly(world, victims)
    return Seen(first, last, _probes(world, sent, since))


def _lossy(world: World, seconds: float, spoil: Callable[[int, bool], None], switches: bool) -> Seen:
    victims = world.rng.sample(world.nodes, max(1, len(world.nodes) // 100))
    since, sent, on = world.time, _sent(world), False
    while world.time < since + seconds:
        on = not on or not switches
        for victim in victims:
            spoil(victim.number, on)
        world.run(SWITCHES_EVERY)
    exactly(world, victims)
    once(world, victims)
    times = [m.time - since for m in removed(world) if m.subject in {v.address for v in victims}]
    return Seen(min(times, default=None), None, _probes(world, sent, since))


def loss_in(world: World, seconds: float) -> Seen:
    """One member in a hundred gets no datagram, for 20 s, then all, and so on."""
    return _lossy(world, seconds, lambda n, on: world.network.loss_in.update({n: float(on)}), True)


def loss_out(world: World, seconds: float) -> Seen:
    """No datagram of one member in a hundred arrives, for 20 s, then all, and so on."""
    return _lossy(world, seconds, lambda n, on: world.network.loss_out.update({n: float(on)}), True)


def loss_80(world: World, seconds: float) -> Seen:
    """Four of five datagrams of one member in a hundred are lost. It is removed."""
    seen = _lossy(world, seconds, lambda n, on: world.network.loss_out.update({n: 0.8}), False)
    if seen.first is None:
        raise Violation("the member that loses four of five datagrams was never removed")
    return seen


FAULTS: dict[str, Callable[[World, float], Seen]] = {
    "crash": crash, "loss_in": loss_in, "loss_out": loss_out, "loss_80": loss_80
}  # fmt: skip


def play(fault: str, seed: int, nodes: int, seconds: float, cycle: float) -> Seen:
    """Play one fault for ``seconds`` of virtual time. Raises ``Violation``."""
    return FAULTS[fault](fleet(seed, nodes, cycle), seconds)


def attempt(job: tuple[str, int, int, float, float]) -> tuple[int, str | None]:
    """Play one job: the seed, and what failed (None: nothing)."""
    try:
        play(*job)
    except Violation as violation:
        return job[1], str(violation)
    return job[1], None


def main() -> int:
    """Play what the command line asks for; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.sim.detection", description="Play faults of large fleets.")
    parser.add_argument("fault", choices=sorted(FAULTS))
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0, help="virtual")
    parser.add_argument("--cycle", type=float, default=60.0, help="seconds; 0: automatic")
    args = parser.parse_args()
    failed = 0
    for seed in range(args.seed, args.seed + args.seeds):
        began = time.process_time()
        try:
            seen = play(args.fault, seed, args.nodes, args.seconds, args.cycle)
        except Violation as violation:
            failed += 1
            print(f"{args.fault} {seed}: FAILED {violation}", flush=True)
            continue
        told = f"first {seen.first}, last {seen.last}, {seen.probes:.2f} probes a second and member"
        print(f"{args.fault} {seed}: {told}; {time.process_time() - began:.0f} s of processor", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
