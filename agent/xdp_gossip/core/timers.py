# SPDX-License-Identifier: MIT
"""Timers of an engine. The timers read no clock: the shell passes the current time as an argument."""

from __future__ import annotations

import heapq
import itertools
from typing import Callable

from .types import Now

Callback = Callable[[Now], None]


class Timers:
    """A heap of callbacks by monotonic time. Callbacks for the same time run in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()

    def at(self, when: float, callback: Callback) -> None:
        """Call ``callback(now)`` once, at or after the monotonic time ``when`` (seconds)."""
        heapq.heappush(self._heap, (when, next(self._order), callback))

    def next(self) -> float | None:
        """Monotonic time in seconds of the earliest callback; None if there is no callback."""
        return self._heap[0][0] if self._heap else None

    def run(self, now: Now) -> None:
        """Call all callbacks whose time is ``now`` or earlier. Callbacks added during the run wait for the next run.

        If a callback raises an exception, the next run calls the due callbacks that come after it.
        """
        due = []
        while self._heap and self._heap[0][0] <= now.mono:
            due.append(heapq.heappop(self._heap)[2])
        for done, callback in enumerate(due, start=1):
            try:
                callback(now)
            except BaseException:
                # An error in one callback must not make the engine skip the callbacks after it.
                for other in due[done:]:
                    self.at(now.mono, other)
                raise
