# SPDX-License-Identifier: MIT
"""Sends millions of forged packets to one agent. The agent must neither wake up nor change its state, and its data
plane must not relay the packets.

First the benchmark counts the agent's wake-ups at rest. Then the benchmark sends forged heartbeats, whose origins are
members that the agent knows, as fast as one processor can send them. The data plane must count each forged heartbeat,
the node map must not change, and the agent must not wake up more often than at rest. Finally the benchmark sends
genuine heartbeats during a flood of forged heartbeats, and the data plane must record all genuine heartbeats.
"""

from __future__ import annotations

import contextlib
import threading
import time

from . import lane, packets
from .agents import Agent, Pins
from .netns import BenchError
from .planes import Load, introduce, lane_agent, send, sender
from .programs import Generator
from .report import Report

_MEMBERS, _FRAMES = 100, 1 << 17
_FORGED, _QUICK = 10_000_000, 200_000
_GENUINE_RATE = 200
#: Counters that must not change while only forged packets arrive.
_STILL = ("take_heartbeat", "relay", "copy", "news", "news_lost", "pass_direct")
_REST = 12.0


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: send fewer packets. Raises ``BenchError``."""
    wanted = _QUICK if quick else _FORGED
    with lane.pinned(0), lane_agent("XDP", _MEMBERS, 4, 1) as node, contextlib.closing(Pins(node)) as pins:
        load = Load(_MEMBERS)
        introduce(node, load, _MEMBERS)
        framer = lane.framer()
        # The forged heartbeats have far higher sequences than the genuine heartbeats, because the data plane would
        # count forged heartbeats with old sequences as duplicates.
        ahead = packets.heartbeats(_MEMBERS, _FRAMES, first=1 << 40)
        frames = [framer.frame(packets.forged(packet, number)) for number, packet in enumerate(ahead)]
        generator = Generator(lane.GENERATOR, lane.OUTSIDE, frames)
        time.sleep(2)
        rest = _wakes(node, lambda: time.sleep(_REST))
        before, held = pins.counters(), pins.entries()
        began = time.monotonic()
        flood = _wakes(node, lambda: _flood(generator, pins, before["drop_bad_mac"] + wanted))
        seconds = time.monotonic() - began
        after, then = pins.counters(), pins.entries()
        moved = {name: after[name] - before[name] for name in _STILL if after[name] != before[name]}
        changed = sum(held.get(key) != value for key, value in then.items()) + len(held.keys() - then.keys())
        sent, taken = _among(generator, pins, load, wanted)
    return _report(after["drop_bad_mac"] - before["drop_bad_mac"], seconds, rest, flood, moved, changed, sent, taken)


def _wakes(node: Agent, work: object) -> float:
    """Call ``work``, and return the agent's wake-ups per second during the call."""
    assert callable(work)
    before, began = node.wake_ups, time.monotonic()
    work()
    return (node.wake_ups - before) / (time.monotonic() - began)


def _flood(generator: Generator, pins: Pins, until: int) -> None:
    deadline = time.monotonic() + 120
    while (left := until - pins.counters()["drop_bad_mac"]) > 0:
        if time.monotonic() > deadline:
            raise BenchError(f"{left} forged packets were not counted within 120 s")
        generator.send(min(left, 1 << 20))


def _among(generator: Generator, pins: Pins, load: Load, wanted: int) -> tuple[int, int]:
    """Send genuine heartbeats during a flood.

    Return two numbers: how many genuine heartbeats the thread sent, and how many of these the data plane recorded.
    """
    before = pins.counters()
    sent, over = [0], threading.Event()

    def trickle() -> None:
        with sender() as sock:
            while not over.is_set():
                batch = load.next(_MEMBERS)
                send(sock, batch, _GENUINE_RATE)
                sent[0] += len(batch)

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        _flood(generator, pins, before["drop_bad_mac"] + wanted)
    finally:
        over.set()
        thread.join(30)
    time.sleep(0.2)
    return sent[0], pins.counters()["take_heartbeat"] - before["take_heartbeat"]


def _report(
    forged: int, seconds: float, rest: float, flood: float, moved: dict[str, int], changed: int, sent: int, taken: int
) -> Report:
    report = Report("forged", "forged heartbeats against one agent with 100 members", ("what", "measured"))
    report.rows += [
        ("forged packets", f"{forged:,} in {seconds:.1f} s"),
        ("the agent's wake-ups a second, at rest", f"{rest:.1f}"),
        ("the agent's wake-ups a second, in the flood", f"{flood:.1f}"),
        ("entries of the node map that changed", str(changed)),
        ("counters that moved beside drop_bad_mac", ", ".join(f"{k} {v}" for k, v in moved.items()) or "none"),
        ("genuine heartbeats during a second flood", f"{taken:,} recorded of {sent:,}"),
    ]
    report.data |= {"forged": forged, "seconds": seconds, "wake_ups_at_rest": rest, "wake_ups_in_flood": flood}
    report.data |= {"moved": moved, "changed": changed, "genuine": sent, "genuine_recorded": taken}
    report.most("wake-ups in the flood beyond those at rest, a second", max(0.0, flood - rest), 0.2 * rest + 0.5)
    report.most("entries and counters changed", changed + len(moved), 0)
    report.least("share of the genuine heartbeats recorded", taken / sent if sent else 0.0, 0.99)
    return report
