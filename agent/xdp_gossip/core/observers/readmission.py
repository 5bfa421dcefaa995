# SPDX-License-Identifier: MIT
"""When a node returns that the others have removed: at once, and after further removals only when its network is sound.

The removed node decides by itself. Its own edges show whether both directions of its path work, and its new incarnation
tells all members at the same time. So a host with a bad cable cannot come and go forever.
"""

from __future__ import annotations

from collections import deque

from ..types import Now

#: Seconds within which a second removal makes the node wait.
_WITHIN = 600.0
#: Seconds of clean probes before the return after the second removal; doubled with each further removal.
CLEAN_FOR = 60.0
#: Removals that are remembered; at the last one the wait is 64 times ``CLEAN_FOR``.
_MOST = 8


class Readmission:
    """The removals of the local node, and the wait until it may return."""

    def __init__(self) -> None:
        self._removals: deque[float] = deque(maxlen=_MOST)
        self._wait: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether this node was removed and may not return yet."""
        return self._wait is not None

    def was_removed(self, now: Now) -> bool:
        """Whether the others removed this node within the last ten minutes."""
        return bool(self._removals) and now.mono - self._removals[-1] <= _WITHIN

    def removed(self, now: Now) -> float:
        """Note that the others removed this node. Returns the seconds of clean probes that its return needs."""
        while self._removals and now.mono - self._removals[0] > _WITHIN:
            self._removals.popleft()
        self._removals.append(now.mono)
        former = len(self._removals) - 1
        self._wait = CLEAN_FOR * 2.0 ** (former - 1) if former else 0.0
        return self._wait

    def may_return(self, clean_for: float, now: Now) -> bool:
        """Whether the wait is over. ``clean_for``: seconds since which the probes of this node are answered."""
        if self._wait is None or min(clean_for, now.mono - self._removals[-1]) < self._wait:
            return False
        self._wait = None
        return True
