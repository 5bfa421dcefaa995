# SPDX-License-Identifier: MIT
"""What changed, in order, for whoever waits for it: the feed behind ``watch`` and the wake-ups of ``convergence``."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from .core.types import Document, Member

#: Changes kept; whoever asks for older ones is told that there is a gap and reads everything again.
KEPT = 4096


@dataclass(frozen=True)
class Change:
    """One change. ``kind`` is document or node; exactly one of ``document`` and ``member`` is set.

    Events of documents: published, deleted. Of nodes: joined, updated, suspected, recovered, removed, left.
    """

    revision: int
    kind: str
    event: str
    document: Document | None = None
    member: Member | None = None


@dataclass(frozen=True)
class Changes:
    """Answer of :meth:`ChangeLog.since`: ask on from ``revision``; after a ``gap`` read everything again."""

    revision: int
    gap: bool
    changes: tuple[Change, ...]


class ChangeLog:
    """The last changes, with revisions that never repeat over restarts as long as the clock does not go back."""

    def __init__(self, first: int) -> None:
        """``first``: the revision before the first change, e.g. milliseconds since the epoch."""
        self.revision = first
        self._kept: deque[Change] = deque(maxlen=KEPT)
        self._waiting: set[asyncio.Future[None]] = set()

    def add(self, kind: str, event: str, document: Document | None = None, member: Member | None = None) -> None:
        """Append a change and wake all who wait."""
        self.revision += 1
        self._kept.append(Change(self.revision, kind, event, document, member))
        self.wake()

    def wake(self) -> None:
        """Wake all who wait, also without a change."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def pause(self, seconds: float) -> None:
        """Until something happens, at most ``seconds``."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait({waiting}, timeout=seconds)
        finally:
            self._waiting.discard(waiting)

    def since(self, revision: int, prefix: str = "") -> Changes:
        """Changes after ``revision``; of documents only those under ``prefix``."""
        oldest = self._kept[0].revision - 1 if self._kept else self.revision
        gap = not oldest <= revision <= self.revision
        found = tuple(
            change
            for change in self._kept
            if change.revision > revision and (change.document is None or change.document.key.startswith(prefix))
        )
        return Changes(self.revision, gap, () if gap else found)

    async def wait(self, revision: int, timeout: float, prefix: str = "") -> Changes:
        """The same, waiting up to ``timeout`` seconds for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            found = self.since(revision, prefix)
            left = deadline - loop.time()
            if found.gap or found.changes or left <= 0:
                return found
            await self.pause(left)
