# SPDX-License-Identifier: MIT
"""Clocks of the protocol: the hybrid logical clock of document versions, and the cluster's estimate of the time."""

from __future__ import annotations

from collections.abc import Iterable

from ..types import Now

COUNTER_BITS = 16
NS_PER_MS = 1_000_000
#: Earliest and latest plausible time of a wall clock, in milliseconds since the epoch: the start of 2023, and a day in
#: 2248. A wall clock outside this range is certainly wrong.
EARLIEST_MS = 1_672_531_200_000
LATEST_MS = 1 << 43
#: Members refuse versions with this clock reading or a higher one. A higher reading therefore exists for every accepted
#: reading.
MAX_READING = 1 << 63
#: Seconds for which a forward jump of the clock must last before documents expire by the new time.
LEAP_HOLDS = 60.0


class HybridClock:
    """Hybrid logical clock (Kulkarni et al. 2014): 48 bits of milliseconds, 16 bits of counter.

    Each new reading is higher than all earlier readings of this clock and all observed readings of other members.
    Readings stay close to the wall clock.
    """

    def __init__(self, max_drift_ms: int) -> None:
        self._max_drift_ms = max_drift_ms
        self._last = 0

    def tick(self, wall_ms: int) -> int:
        """Return a new reading; ``wall_ms`` is the present time in milliseconds since the epoch.

        If a wall clock ran far ahead and was corrected, the readings go back to the present time. If the readings
        stayed ahead, all later versions would carry the time of the wrong clock. If ``wall_ms`` is before 2023, it must
        be wrong, so the readings do not go back to it.
        """
        wall_ms = min(wall_ms, LATEST_MS)
        if wall_ms >= EARLIEST_MS and self.too_far_ahead(self._last, wall_ms):
            self._last = 0
        self._last = max(self._last + 1, wall_ms << COUNTER_BITS)
        return self._last

    def observe(self, reading: int) -> None:
        """Note another member's reading, so that all later readings of this clock are higher than that reading.

        The clock ignores a reading beyond ``LATEST_MS``, which no correct clock produces. If the clock accepted such a
        reading, all later readings of this clock would exceed ``LATEST_MS``, and other members would refuse these
        readings.
        """
        if reading >> COUNTER_BITS <= LATEST_MS:
            self._last = max(self._last, reading)

    def too_far_ahead(self, reading: int, wall_ms: int) -> bool:
        """Whether ``reading`` is so far ahead of ``wall_ms`` that either of the two must come from a wrong clock."""
        return (reading >> COUNTER_BITS) > wall_ms + self._max_drift_ms


class SteadyTime:
    """Provides the cluster's time without forward jumps that last only a short time. Documents expire by this time.

    Expiry deletes the value of a document on all members. If a document expired because of a wrong clock, nobody could
    restore its value. Therefore a forward jump of the cluster's clock counts only after ``LEAP_HOLDS`` seconds. In the
    meantime :meth:`read` returns the time without the jump. A backward jump counts at once, because a backward jump
    makes no document expire.
    """

    def __init__(self) -> None:
        # The cluster's time minus the time since the boot of this host, in milliseconds.
        self._ahead: float | None = None
        # While a forward jump lasts: the start of the jump in monotonic seconds, and the smallest value of ``ahead``
        # since the start.
        self._leap: tuple[float, float] | None = None

    def read(self, wall_ms: int, now: Now) -> int:
        """Return the cluster's time without short forward jumps, in milliseconds since the epoch.

        ``wall_ms``: the cluster's time at ``now``.
        """
        # The time for which the machine was suspended really passed, so it does not count as a jump.
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
    """Return the seconds by which the cluster's time is ahead of the local clock.

    ``samples``: the clock of each other member minus the local clock, in seconds. The result is the median of the
    samples and one further sample of 0, which stands for the local clock. A few wrong clocks cannot change a median
    much. If the number of clocks is even, two clocks are in the middle of the sorted list, and no member can know which
    of the two is right. Then each member uses the middle clock that is nearer to its own clock. In a cluster of two,
    each member thus uses its own clock.
    """
    # The module statistics has a median, but importing it takes 0.7 MB of memory in every agent.
    ordered = sorted((0.0, *samples))
    middle = len(ordered) // 2
    return min(ordered[middle - 1 + len(ordered) % 2 : middle + 1], key=abs)
