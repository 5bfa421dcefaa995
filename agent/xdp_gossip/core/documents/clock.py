# SPDX-License-Identifier: MIT
"""Clocks of the protocol: the hybrid logical clock of document versions, and the cluster's estimate of the time."""

from __future__ import annotations

from collections.abc import Iterable

from ..types import Now

COUNTER_BITS = 16
NS_PER_MS = 1_000_000
#: A wall clock outside this range (2023 to 2248, milliseconds since the epoch) is certainly wrong.
EARLIEST_MS = 1_672_531_200_000
LATEST_MS = 1 << 43
#: Readings from here on are refused, so there is always room above an accepted one.
MAX_READING = 1 << 63
#: Seconds for which a leap ahead must hold before documents expire by it.
LEAP_HOLDS = 60.0


class HybridClock:
    """Hybrid logical clock (Kulkarni et al. 2014): 48 bits of milliseconds, 16 bits of counter.

    Readings grow strictly, follow every reading that was observed, and stay close to the wall clock.
    """

    def __init__(self, max_drift_ms: int) -> None:
        self._max_drift_ms = max_drift_ms
        self._last = 0

    def tick(self, wall_ms: int) -> int:
        """A new reading at ``wall_ms`` milliseconds since the epoch.

        If a clock ran far ahead and was corrected, readings start again from the present time, so that one wrong clock
        does not date everything that follows. They do not if the present time cannot be right.
        """
        wall_ms = min(wall_ms, LATEST_MS)
        if wall_ms >= EARLIEST_MS and self.too_far_ahead(self._last, wall_ms):
            self._last = 0
        self._last = max(self._last + 1, wall_ms << COUNTER_BITS)
        return self._last

    def observe(self, reading: int) -> None:
        """Note a reading of another member, so that later readings here are above it.

        A reading that no clock produces is ignored: everything written here would follow it, and others would refuse
        it.
        """
        if reading >> COUNTER_BITS <= LATEST_MS:
            self._last = max(self._last, reading)

    def too_far_ahead(self, reading: int, wall_ms: int) -> bool:
        """Whether ``reading`` is so far ahead that either its clock or the time ``wall_ms`` must be wrong."""
        return (reading >> COUNTER_BITS) > wall_ms + self._max_drift_ms


class SteadyTime:
    """The cluster's time without short leaps ahead. Documents expire by this time.

    The value of an expired document is gone. If the clocks of all members were wrong, nobody could restore it. So a
    leap ahead counts only after it has held for ``LEAP_HOLDS`` seconds; until then time goes on as before the leap. A
    step back counts at once, because no document expires by it.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None  # of the time since boot, milliseconds
        self._leap: tuple[float, float] | None = None  # since when (monotonic), least milliseconds ahead since then

    def read(self, wall_ms: int, now: Now) -> int:
        """Milliseconds since the epoch by which documents expire; ``wall_ms`` is the cluster's time at ``now``."""
        # Time for which the machine was suspended really passed: it is no leap.
        booted_ms = (now.mono + now.slept) * 1000
        ahead = wall_ms - booted_ms
        if self._ahead is None or ahead <= self._ahead:
            self._ahead, self._leap = ahead, None
            return wall_ms
        since, least = self._leap or (now.mono, ahead)
        self._leap = (since, min(least, ahead))
        if now.mono - since >= LEAP_HOLDS:
            self._ahead, self._leap = self._leap[1], None
        return int(booted_ms + self._ahead)


def cluster_offset(samples: Iterable[float]) -> float:
    """Seconds by which the cluster's time is ahead of the local clock.

    ``samples`` are the other members' clocks minus the local one, in seconds. The result is the median over all
    members, the local one included (as 0): one or a few wrong clocks cannot move it. If the number is even, the middle
    two may disagree, and neither can know which is right, so each member takes the one nearer to its own clock. In a
    cluster of two, each member thus keeps its own time, and neither can move the other's.
    """
    # The median is written out, because the module statistics costs every agent two thirds of a megabyte.
    ordered = sorted((0.0, *samples))
    middle = len(ordered) // 2
    return min(ordered[middle - 1 + len(ordered) % 2 : middle + 1], key=abs)
