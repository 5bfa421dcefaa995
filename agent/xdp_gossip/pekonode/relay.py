# SPDX-License-Identifier: MIT
"""Relays each rumor only once, on a wire whose packets have no sequence number.

A Go node relays every copy of a heartbeat that it receives. With fan-out 3, one heartbeat in a cluster of N nodes costs
about 3^(N/3) packets. This agent relays a rumor only once in a window of half a cycle. The agent waits a few
milliseconds before relaying, because further copies of the rumor may arrive. The infected list of each copy names nodes
that the rumor has reached. The agent sends the rumor first to targets that are in no infected list, so the rumor
reaches more nodes with fewer packets (figures: docs/pekonode.md).
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import replace
from typing import Callable

from ..core.timers import Timers
from ..core.types import Now
from .packet import Packet

#: Maximum seconds for which a rumor is delayed, to collect the infected lists of its copies.
HOLD = 0.02


class Relay:
    """Stores the recently received rumors, and the delayed rumors that still have to be relayed."""

    def __init__(self, window: float, limit: int, rng: random.Random, timers: Timers) -> None:
        """``window``: seconds in which copies count as the same rumor. ``limit``: maximum number of stored rumors."""
        self._window = window
        self._hold = min(HOLD, window / 10)
        self._limit = limit
        self._rng = rng
        self._timers = timers
        self._seen: dict[Hashable, float] = {}
        self._held: dict[Hashable, Packet] = {}
        self.send: Callable[[Packet], None] = lambda packet: None

    def offer(self, key: Hashable, packet: Packet, now: Now) -> str:
        """Process a copy of the rumor ``key``. Returns the outcome as the name of a counter.

        The outcome is ``relayed`` for the first copy in a window, ``duplicate`` for a later copy, and ``full`` if the
        maximum number of rumors is stored.
        """
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
        """Add the infected list of a copy to the infected list of the delayed rumor.

        Returns False if the rumor is not delayed.
        """
        held = self._held.get(key)
        if held is not None:
            self._held[key] = replace(held, infected=held.infected | packet.infected)
        return held is not None

    def sweep(self, now: Now) -> None:
        """Remove rumors that are older than the window."""
        for key in [key for key, seen in self._seen.items() if now.mono - seen >= self._window]:
            del self._seen[key]

    def clear(self) -> None:
        """Drop all delayed rumors, because the node leaves."""
        self._held.clear()

    def _release(self, key: Hashable) -> None:
        packet = self._held.pop(key, None)
        if packet is not None:
            self.send(packet)
