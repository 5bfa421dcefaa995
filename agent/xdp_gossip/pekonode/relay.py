# SPDX-License-Identifier: MIT
"""Relaying rumors once, on a wire whose packets carry no sequence.

A Go node passes on every copy of a heartbeat it gets, which at fan-out 3 costs about 3^(N/3) packets for one
heartbeat of a cluster of N. Here a rumor is passed on once in a window of half a cycle, and not at once: for a few
milliseconds further copies may arrive, and each tells by its infected list whom the rumor reached already. Picking
targets outside the union of these lists reaches more nodes with fewer packets (docs/pekonode.md has the figures).
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import replace
from typing import Callable

from ..core.timers import Timers
from ..core.types import Now
from .packet import Packet

#: Longest time for which a rumor is held to learn from its copies, seconds.
HOLD = 0.02


class Relay:
    """Which rumors were seen lately, and which wait to be passed on."""

    def __init__(self, window: float, limit: int, rng: random.Random, timers: Timers) -> None:
        """``window``: seconds in which a rumor counts as one; ``limit``: rumors remembered at most."""
        self._window = window
        self._hold = min(HOLD, window / 10)
        self._limit = limit
        self._rng = rng
        self._timers = timers
        self._seen: dict[Hashable, float] = {}
        self._held: dict[Hashable, Packet] = {}
        self.send: Callable[[Packet], None] = lambda packet: None

    def offer(self, key: Hashable, packet: Packet, now: Now) -> str:
        """Take a copy of rumor ``key``. Returns ``relayed`` for the first of a window, ``duplicate`` for a later
        copy, ``full`` when too many rumors are under way to remember one more."""
        if self.merge(key, packet):
            return "duplicate"
        seen = self._seen.get(key)
        if seen is not None and now.mono - seen < self._window:
            return "duplicate"
        if seen is None and len(self._seen) >= self._limit:
            return "full"
        self._seen[key] = now.mono
        self._held[key] = packet
        self._timers.at(now.mono + self._rng.uniform(0.0, self._hold), lambda at: self._release(key))
        return "relayed"

    def merge(self, key: Hashable, packet: Packet) -> bool:
        """Learn from a copy whom a held rumor reached; False when none is held."""
        held = self._held.get(key)
        if held is not None:
            self._held[key] = replace(held, infected=held.infected | packet.infected)
        return held is not None

    def sweep(self, now: Now) -> None:
        """Forget what is older than the window."""
        for key in [key for key, seen in self._seen.items() if now.mono - seen >= self._window]:
            del self._seen[key]

    def clear(self) -> None:
        """Drop what waits: the node leaves."""
        self._held.clear()

    def _release(self, key: Hashable) -> None:
        packet = self._held.pop(key, None)
        if packet is not None:
            self.send(packet)
