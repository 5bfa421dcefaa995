# SPDX-License-Identifier: MIT
"""The programs and the Python model come to the same verdict on every packet, whatever it is.

XG_MUTATIONS sets how many packets; a failure names the seed of its epoch and the number of the packet in it.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import CODEC, TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, XDP_REDIRECT, Plane
from tests.bpf.mutator import Mutator
from tests.bpf.scene import TC, XDP
from tests.bpf.wire import Wire
from tests.kernel_model import ASK, GONE, PRESENT, SUSPECT, Entry, KernelModel, Outcome
from xdp_gossip.core.types import Address

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF"),
]

MUTATIONS = int(os.environ.get("XG_MUTATIONS", "50000"))
#: Packets between two clean slates.
EPOCH = 2500
#: The verdict on a packet depends on when it is looked at, but not within so many ns: no offset of the mutator is as
#: near to a limit. When the two were held up for longer, neither is wrong.
HELD_UP = 1_000_000_000
ACTIONS = {
    XDP: {"pass": XDP_PASS, "drop": XDP_DROP, "relay": XDP_REDIRECT, "answer": XDP_REDIRECT},
    TC: {"pass": TC_NEXT, "drop": TC_SHOT, "relay": TC_SHOT, "answer": TC_REDIRECT},
}
#: Verdicts that a run of the usual length must have seen.
ALL = {
    "pass_odd",
    "pass_direct",
    "drop_truncated",
    "drop_malformed",
    "drop_foreign_version",
    "drop_foreign_cluster",
    "drop_own",
    "drop_duplicate",
    "drop_unknown_key",
    "drop_bad_mac",
    "drop_unknown_leave",
    "ask_own",
    "ask_incarnation",
    "ask_gone",
    "ask_time",
    "take_heartbeat",
    "take_metadata",
    "take_leave",
    "take_record",
    "take_alert",
    "answer",
    "take_ack",
    "drop_probe_replayed",
    "drop_ack_stray",
}


def test_kernel_and_model_agree(plane: Plane, link: Wire) -> None:
    seen: Counter[str] = Counter()
    for seed in range(-(-MUTATIONS // EPOCH)):
        seen += Epoch(plane, link, seed).run(min(EPOCH, MUTATIONS - seed * EPOCH))
    assert not ALL - seen.keys(), "the mutator brings too little"
    # A verdict that hardly ever comes up is one that hardly is tested.
    assert min(seen[name] for name in ALL) >= MUTATIONS // 10_000


class Epoch:
    """A clean slate, a configuration and a ring drawn from a seed; then packets, one by one, through both."""

    def __init__(self, plane: Plane, link: Wire, seed: int) -> None:
        rng = random.Random(seed)
        self._seed, self._rng, self._plane, self._link = seed, rng, plane, link
        self._family = rng.choice((4, 6))
        self._program = rng.choice((XDP, XDP, TC))
        config = scene.config(self._family, timeout=rng.choice((5, 5, 100)) * 1_000_000_000)
        self._model = KernelModel(CODEC, config)
        # TC would send the copies; how it does that is another test's.
        self._model.targets = scene.targets(self._family, 0 if self._program == TC else rng.choice((0, 3)))
        self._mutator = Mutator(rng, self._family)
        plane.reset(config, self._model.targets)

    def run(self, count: int) -> Counter[str]:
        """Returns the verdicts."""
        seen: Counter[str] = Counter()
        for number in range(count):
            if self._rng.random() < 0.02:
                self._judge()
            data = self._mutator.next()
            frame = frames.frame(data, scene.source(self._family), scene.local(self._family))
            began, before = scene.earliest_ns(), time.monotonic_ns()
            ran = scene.run(self._plane, self._program, frame, self._link)
            after = time.monotonic_ns()
            if after - began > HELD_UP:
                self._clean_slate()
                continue
            outcome = self._model.process(data, scene.source(self._family), before)
            seen[outcome.verdict] += 1
            where = f"seed {self._seed}, packet {number} ({self._program}): {data.hex()}"
            limited = self._check_counters(outcome, where)
            assert ran.value == ACTIONS[self._program]["drop" if limited else outcome.action], where
            if outcome.action == "relay" and self._program == XDP:
                assert ran.frame[frames.HEADERS[self._family] :] == outcome.onward, where
            elif outcome.action == "pass" and not limited:
                assert ran.frame == frame, where
            elif outcome.action == "answer":
                self._check_answer(ran.frame, outcome.onward, after - began, where)
            self._check_events(outcome, data, limited, where)
            self._check_entry(data, where, began, after)
        return seen

    def _clean_slate(self) -> None:
        """Forget, on both sides, all that was seen."""
        targets = self._model.targets
        self._model = KernelModel(CODEC, self._model.config)
        self._model.targets = targets
        self._plane.reset(self._model.config, targets)

    def _judge(self) -> None:
        """The agent suspects a node, gives it up, or takes it back."""
        if self._model.nodes:
            origin = self._rng.choice(list(self._model.nodes))
            self._model.nodes[origin].standing = self._rng.choice((PRESENT, PRESENT, SUSPECT, GONE))
            self._plane.set_node(origin, self._model.nodes[origin])

    def _check_counters(self, outcome: Outcome, where: str) -> bool:
        """Whether the packet was held back as one too many, for which the model has no clock."""
        expected = Counter((outcome.verdict, *outcome.also))
        if outcome.event is not None and outcome.event != ASK:
            expected["news"] += 1
        found = self._plane.counted()
        if outcome.beyond and found == {outcome.beyond: 1}:
            return True
        assert found == expected, where
        return False

    def _check_events(self, outcome: Outcome, data: bytes, limited: bool, where: str) -> None:
        found = [(event.kind, event.address, event.packet) for event in self._plane.events()]
        expected: list[Any] = []
        if outcome.event is not None and not limited:
            expected = [(outcome.event, scene.source(self._family), data)]
        assert found == expected, where

    def _check_answer(self, frame: bytes, expected: bytes, spread: int, where: str) -> None:
        """It goes back to where the question came from, and says what the model says, but for the moment."""
        parsed = frames.parse(frame)
        assert parsed.sound, where
        assert (parsed.source, parsed.target) == (scene.local(self._family), scene.source(self._family)), where
        said, wanted = CODEC.parse(parsed.payload), CODEC.parse(expected)
        CODEC.verify(parsed.payload, said)
        assert abs(said.wall_ns - wanted.wall_ns) <= spread, where
        assert abs(said.lease_age_ms - wanted.lease_age_ms) <= spread // 1_000_000 + 1, where
        assert replace(said, wall_ns=0, lease_age_ms=0) == replace(wanted, wall_ns=0, lease_age_ms=0), where

    def _check_edges(self, origin: Address, where: str, spread: int) -> None:
        """What is recorded of the origin's edge probes and acknowledgements."""
        assert self._plane.asker(origin) == self._model.askers.get(origin), where
        found, expected = self._plane.ack(origin), self._model.acks.get(origin)
        assert (found is None) == (expected is None), where
        if found is None or expected is None:
            return
        assert abs(found.last_seen - expected.last_seen) <= spread, where
        off = (found.clock - expected.clock) % 2**64
        assert min(off, 2**64 - off) <= spread, where
        expected.clock, expected.last_seen = found.clock, found.last_seen
        assert found == expected, where

    def _check_entry(self, data: bytes, where: str, began: int, after: int) -> None:
        """What is recorded of the origin. The model takes over the kernel's times.

        They were read between ``began`` and ``after``, or are what they were.
        """
        if len(data) < 40 or not any(data[10:12]):
            return
        origin = Address.unpack(data[24:40], int.from_bytes(data[10:12], "big"))
        spread = after - began
        self._check_edges(origin, where, spread)
        found, expected = self._plane.node(origin), self._model.nodes.get(origin)
        assert (found is None) == (expected is None), where
        if found is None or expected is None:
            return
        assert abs(found.last_seen - expected.last_seen) <= spread, where
        # Both are 64-bit numbers that wrap.
        off = (found.clock - expected.clock) % 2**64
        assert min(off, 2**64 - off) <= spread, where
        expected.clock, expected.last_seen = found.clock, found.last_seen
        assert _fields(found) == _fields(expected), where


def _fields(entry: Entry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__ if name != "window"}
    return {**fields, "highest": entry.window.highest, "bits": entry.window.bits}
