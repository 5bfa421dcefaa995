# SPDX-License-Identifier: MIT
"""Copies of one rumor on several CPUs at once: exactly one of them is taken."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import Plane, inside
from tests.bpf.scene import TC, XDP, known, local, origin, packet, source
from tests.bpf.wire import NAMESPACE, Wire
from xdp_gossip.dataplane import libbpf

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

ROUNDS = 1500
#: Runs of one frame in a row, so that those of several CPUs overlap.
REPEAT = 12


@pytest.fixture(autouse=True)
def attached(plane: Plane, link: Wire) -> Iterator[None]:
    """The XDP program is on an interface meanwhile: else the kernel patches its dispatcher at every test run."""
    with inside(NAMESPACE):
        held = libbpf.link_create(plane.program(XDP), link.ifindex, libbpf.XDP, libbpf.XDP_GENERIC)
    yield
    os.close(held)


def race(cpus: list[int], run: Callable[[int], None], rounds: int, rumors: int = 1) -> None:
    """``run(round)``, which takes so many ``rumors`` of one origin, on each CPU at the same time, round after round."""
    failures: list[BaseException] = []

    def lane(cpu: int) -> None:
        try:
            os.sched_setaffinity(0, {cpu})
            for number in range(rounds):
                scene.wait_for_budget(number, rumors)
                barrier.wait()
                run(number)
        except BaseException as failure:
            failures.append(failure)
            barrier.abort()

    threads = [threading.Thread(target=lane, args=(cpu,)) for cpu in cpus for _ in range(2)]
    barrier = threading.Barrier(len(threads), timeout=30)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
    assert not failures, failures


@pytest.mark.parametrize("program", [XDP, TC])
@pytest.mark.parametrize("newcomers", [False, True], ids=["known", "unknown"])
def test_one_copy_is_taken(plane: Plane, program: str, newcomers: bool) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    plane.reset(scene.config(4))
    plane.set_node(origin(4), known())
    plane.program(program)
    made = []
    for number in range(ROUNDS):
        changes = {"origin": scene.address(6, 1, 1000 + number)} if newcomers else {}
        made.append(frames.frame(packet(4, sequence=1000 + number, **changes), source(4), local(4)))
    race(cpus, lambda number: plane.run(program, made[number], repeat=REPEAT) and None, ROUNDS)

    counted = plane.counted()
    total = ROUNDS * REPEAT * 2 * len(cpus)
    assert counted.pop("take_heartbeat") == ROUNDS
    assert counted.pop("drop_duplicate") == total - ROUNDS
    assert counted.pop("relay_alone") == ROUNDS
    if newcomers:
        assert counted.pop("take_newcomer") == counted.pop("news") == ROUNDS
        # Nobody reads the ring buffer meanwhile; what finds no room is counted.
        assert len(plane.events()) + counted.pop("news_lost", 0) == ROUNDS
    assert not counted
    if not newcomers:
        entry = plane.node(origin(4))
        assert entry and (entry.window.highest, entry.window.bits) == (1000 + ROUNDS - 1, 2**64 - 1)


def test_many_rumors_of_one_origin_at_once(plane: Plane) -> None:
    """Different sequences on each CPU, in opposite orders: every one within the window is taken once."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    plane.reset(scene.config(4))
    plane.set_node(origin(4), known())
    plane.program(XDP)
    base, made, rounds = 1000, [], 200
    for number in range(rounds):
        group = [frames.frame(packet(4, sequence=base + number * 40 + i), source(4), local(4)) for i in range(40)]
        made.append(group)
    lanes = threading.local()
    turn = iter(range(100))

    def run(number: int) -> None:
        if not hasattr(lanes, "backwards"):
            lanes.backwards = next(turn) % 2
        for frame in made[number][:: -1 if lanes.backwards else 1]:
            plane.run(XDP, frame)

    race(cpus, run, rounds, 40)
    counted = plane.counted()
    assert counted == {
        "take_heartbeat": 40 * rounds,
        "relay_alone": 40 * rounds,
        "drop_duplicate": 3 * 40 * rounds,
    }
