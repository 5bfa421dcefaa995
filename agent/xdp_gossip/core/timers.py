# SPDX-License-Identifier: MIT
"""The deadlines of an engine. It holds no clock: the shell provides the time."""

from __future__ import annotations

import heapq
import itertools
from typing import Callable

from .types import Now

Callback = Callable[[Now], None]


class Timers:
    """A heap of callbacks by monotonic time; those of one instant run in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()

    def at(self, when: float, callback: Callback) -> None:
        """Call ``callback(now)`` once, at or after ``when``."""
        heapq.heappush(self._heap, (when, next(self._order), callback))

    def next(self) -> float | None:
        """When the earliest is due."""
        return self._heap[0][0] if self._heap else None

    def run(self, now: Now) -> None:
        """Call all that are due at ``now``; those they set for the same instant wait for the next run.

        If one raises, those after it stay due.
        """
        due = []
        while self._heap and self._heap[0][0] <= now.mono:
            due.append(heapq.heappop(self._heap)[2])
        for done, callback in enumerate(due, start=1):
            try:
                callback(now)
            except BaseException:
                # The fault of one must not cost the others their turn.
                for other in due[done:]:
                    self.at(now.mono, other)
                raise
