# SPDX-License-Identifier: MIT
"""The ordered feed of changes, which serves ``watch`` and wakes ``convergence``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..core.types import Address, Document, Member, Version

#: Maximum number of kept changes. A reader that asks for older changes receives a result with ``gap`` set, and must
#: read everything again.
KEPT = 4096
#: Maximum bytes of documents in kept changes. The limit bounds the memory of the log if large documents change often.
KEPT_BYTES = 32 * 1024 * 1024

_LONG = 3600.0

KINDS = ("document", "node", "zone", "refusal")


@dataclass(frozen=True)
class Zone:
    """A zone. ``members``: number of its nodes that are dead or agent_down."""

    name: str
    members: int


@dataclass(frozen=True)
class Refusal:
    """A version of a document that this node does not accept, because its signature is missing or wrong.

    ``source``: the member that sent the version; None if the version was on this node already.
    """

    key: str
    version: Version
    reason: str
    source: Address | None


@dataclass(frozen=True)
class Change:
    """One change. ``kind`` is document, node, zone or refusal.

    One of ``document``, ``member``, ``zone`` and ``refusal`` is set; the others are None.

    Events of documents: published, deleted. Events of nodes: joined, updated, suspected, recovered, removed, left,
    agent_down, forgotten. Events of zones: lost, returned. The event of a lost zone follows those of its nodes. Event
    of refusals: refused.

    If the reader missed changes, ``watch`` yields a change with the kind resync, the event gap, and
    None for ``document``, ``member``, ``zone`` and ``refusal``. The reader must then read everything again.
    ``conflict`` is the version that the new version replaced on this node although the author of the new version had
    not seen the replaced version, because two nodes published concurrently; None if there was no conflict.
    """

    revision: int
    kind: str
    event: str
    document: Document | None = None
    member: Member | None = None
    conflict: Version | None = None
    zone: Zone | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Filter:
    """Selects changes by ``kind`` ("" for all). Selects documents and refusals by a ``prefix`` of the key."""

    prefix: str = ""
    kind: str = ""

    def lets(self, change: Change) -> bool:
        """Whether the filter selects ``change``."""
        if self.kind and change.kind != self.kind:
            return False
        about = change.document or change.refusal
        return about is None or about.key.startswith(self.prefix)


ALL = Filter()


@dataclass(frozen=True)
class Changes:
    """The result of :meth:`ChangeLog.since`.

    To continue, pass ``revision`` to the next call. If ``gap`` is true, the caller must read everything again.
    """

    revision: int
    gap: bool
    changes: tuple[Change, ...]


class ChangeLog:
    """The latest changes. A revision is never used twice, even after a restart, unless the clock is set back.

    When a change is added, each distinct *filter* of the waiting callers is checked once. Only callers whose filter
    selects the change wake up. A caller that wakes up examines the selected change and later changes, but no earlier
    changes.
    """

    def __init__(self, first: int, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        """Create an empty log. ``first`` is the revision before the first change, e.g. milliseconds since the epoch."""
        self.revision = first
        self.closed = False
        self._oldest = first + 1
        #: The change with revision r is at index r modulo the length of this list.
        self._ring: list[Change | None] = [None] * kept
        self._bytes = 0
        self._most_bytes = kept_bytes
        #: Filter -> futures of the waiting readers. A future's result is the revision before the change that woke the
        #: reader.
        self._waiting: dict[Filter, set[asyncio.Future[int]]] = {}
        self._pausing: set[asyncio.Future[int]] = set()

    def add(
        self,
        kind: str,
        event: str,
        document: Document | None = None,
        member: Member | None = None,
        conflict: Version | None = None,
        zone: Zone | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        """Append a change and wake the callers whose filter selects the change."""
        if self.revision - self._oldest + 1 >= len(self._ring):
            self._drop_oldest()
        self.revision += 1
        change = Change(self.revision, kind, event, document, member, conflict, zone, refusal)
        self._ring[self.revision % len(self._ring)] = change
        self._bytes += _size(change)
        while self._bytes > self._most_bytes and self._oldest < self.revision:
            self._drop_oldest()
        for wanted in [wanted for wanted in self._waiting if wanted.lets(change)]:
            _settle(self._waiting.pop(wanted), self.revision - 1)
        self.wake()

    def _drop_oldest(self) -> None:
        place = self._oldest % len(self._ring)
        dropped, self._ring[place] = self._ring[place], None
        assert dropped is not None
        self._bytes -= _size(dropped)
        self._oldest += 1

    def wake(self) -> None:
        """Wake all callers in :meth:`pause`, even without a change."""
        pausing, self._pausing = self._pausing, set()
        _settle(pausing, self.revision)

    def close(self) -> None:
        """End the feed: wake all callers and end :meth:`follow`. Idempotent."""
        self.closed = True
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            _settle(futures, self.revision)
        self.wake()

    async def pause(self, seconds: float) -> None:
        """Wait until a change is added or :meth:`wake` is called, but at most ``seconds``."""
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pausing.add(waiting)
        try:
            await self._first(waiting, seconds)
        finally:
            self._pausing.discard(waiting)

    async def _first(self, waiting: asyncio.Future[int], seconds: float) -> int:
        """Wait for ``waiting`` and return its result. After ``seconds``, return the current revision instead."""
        timer = asyncio.get_running_loop().call_later(seconds, lambda: _settle({waiting}, self.revision))
        try:
            return await waiting
        finally:
            timer.cancel()

    def since(self, revision: int, wanted: Filter = ALL) -> Changes:
        """The changes after ``revision`` that the filter ``wanted`` selects."""
        if not self._oldest - 1 <= revision <= self.revision:
            return Changes(self.revision, True, ())
        size = len(self._ring)
        newer = (self._ring[number % size] for number in range(revision + 1, self.revision + 1))
        found = tuple(change for change in newer if change is not None and wanted.lets(change))
        return Changes(self.revision, False, found)

    async def wait(self, revision: int, timeout: float, wanted: Filter = ALL) -> Changes:
        """Return the result of :meth:`since`, waiting up to ``timeout`` seconds for the first change.

        Returns at once if the log is closed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            found = self.since(revision, wanted)
            left = deadline - loop.time()
            if found.gap or found.changes or left <= 0 or self.closed:
                return found
            waiting: asyncio.Future[int] = loop.create_future()
            self._waiting.setdefault(wanted, set()).add(waiting)
            try:
                # Continue after the changes that the filter has rejected. The rejected changes are not examined again,
                # and the log may drop them without causing a gap for this caller.
                revision = await self._first(waiting, left)
            finally:
                self._forget(wanted, waiting)

    def _forget(self, wanted: Filter, waiting: asyncio.Future[int]) -> None:
        futures = self._waiting.get(wanted)
        if futures is not None:
            futures.discard(waiting)
            if not futures:
                del self._waiting[wanted]

    async def follow(self, revision: int, wanted: Filter = ALL) -> AsyncIterator[Change]:
        """Yield every change after ``revision`` until the log is closed.

        If the log no longer contains all changes after ``revision``, first yield one Change of kind resync.
        """
        while True:
            found = await self.wait(revision, _LONG, wanted)
            if found.gap:
                yield Change(found.revision, "resync", "gap")
            for change in found.changes:
                yield change
            revision = found.revision
            if self.closed and revision == self.revision:
                return


def _size(change: Change) -> int:
    return change.document.size if change.document is not None else 0


def _settle(futures: set[asyncio.Future[int]], revision: int) -> None:
    for waiting in futures:
        if not waiting.done():
            waiting.set_result(revision)
