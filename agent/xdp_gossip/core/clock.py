# SPDX-License-Identifier: MIT
"""Clocks of the protocol: the hybrid logical clock of document versions, and the cluster's idea of the time."""

from __future__ import annotations

from collections.abc import Iterable

COUNTER_BITS = 16
NS_PER_MS = 1_000_000


class HybridClock:
    """Hybrid logical clock (Kulkarni et al. 2014): 48 bits of milliseconds, 16 bits of counter.

    Readings grow strictly, follow every reading that was observed, and stay close to the wall clock.
    """

    def __init__(self, max_drift_ms: int) -> None:
        self._max_drift_ms = max_drift_ms
        self._last = 0

    def tick(self, wall_ms: int) -> int:
        """A new reading at ``wall_ms`` milliseconds since the epoch.

        When this node's own clock ran far ahead and was put right, its last reading lies in a future that all
        others refuse; the clock then starts again from the time that holds now.
        """
        if (self._last >> COUNTER_BITS) > wall_ms + self._max_drift_ms:
            self._last = 0
        self._last = max(self._last + 1, wall_ms << COUNTER_BITS)
        return self._last

    def observe(self, reading: int) -> None:
        """Take note of somebody's reading, so that later ones here are above it."""
        self._last = max(self._last, reading)

    def too_far_ahead(self, reading: int, wall_ms: int) -> bool:
        """Whether ``reading`` is so far in the future that accepting it would block honest clocks."""
        return (reading >> COUNTER_BITS) > wall_ms + self._max_drift_ms


def cluster_offset(samples: Iterable[float]) -> float:
    """Seconds by which the cluster's time is ahead of the local clock.

    ``samples`` are the other members' clocks minus the local one, in seconds. The median over all members, the
    local one included (as 0), is what one or few wrong clocks cannot move; of two members both settle on the middle.
    """
    # Written out: the module statistics costs every agent two thirds of a megabyte.
    ordered = sorted((0.0, *samples))
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
