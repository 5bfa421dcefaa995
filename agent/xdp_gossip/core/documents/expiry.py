# SPDX-License-Identifier: MIT
"""Finds documents that have expired, and tombstones that are old enough to be retired.

Members send each other a tombstone for a grace period, so that all of them delete the document. After the grace period,
each member *retires* the tombstone: the tombstone stays in memory and on the disk, but is no longer part of digests and
lists and causes no traffic. If another member was away for longer than the grace period and then offers the deleted
document, this member answers with the tombstone. Therefore members remember each deletion by key and version, and never
infer from the age of a document that it was deleted. If a wrong clock retired tombstones too early, this member returns
these tombstones to the table when the clock is right again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable

from ..types import Document
from .table import DocumentTable


class Expiry:
    """Finds expired documents and stores retired tombstones. All times are milliseconds of the cluster's time.

    ``grace``: seconds for which members send each other a tombstone. ``most``: maximum number of retired tombstones;
    beyond that number, the class drops the oldest tombstones. ``keeps``: whether a tombstone must never be dropped.
    """

    def __init__(
        self,
        table: DocumentTable,
        grace: float,
        most: int,
        keeps: Callable[[Document], bool] = lambda tombstone: False,
    ) -> None:
        self._table = table
        self._grace_ms = int(grace * 1000)
        self._most = most
        self._keeps = keeps
        #: Retired tombstones by key, in the order in which they were retired.
        self.retired: dict[str, Document] = {}
        self._newest = 0  # milliseconds: when the newest retired tombstone was made
        self._expiries: list[tuple[int, str]] = []
        self._tombstones: list[tuple[int, str]] = []

    def note(self, document: Document) -> None:
        """Record the expiry of a document that was just put into the table.

        For a tombstone, record the time of the deletion.
        """
        self.retired.pop(document.key, None)
        if document.deleted:
            heapq.heappush(self._tombstones, (_since(document), document.key))
        elif document.expires:
            heapq.heappush(self._expiries, (document.expires, document.key))

    @property
    def next_expiry(self) -> int | None:
        """Earliest recorded time of expiry in milliseconds; None if no expiry is recorded.

        The time may be that of a version that has been replaced since.
        """
        return self._expiries[0][0] if self._expiries else None

    def expired(self, wall_ms: int) -> list[Document]:
        """Return the expired documents that are still in the table. Each is returned once."""
        found: dict[str, Document] = {}
        while self._expiries and self._expiries[0][0] <= wall_ms:
            _, key = heapq.heappop(self._expiries)
            held = self._table.get(key)
            if held is not None and not held.deleted and held.expired(wall_ms):
                found[key] = held
        return list(found.values())

    def is_old(self, document: Document, wall_ms: int) -> bool:
        """Whether the grace period of the tombstone ``document`` is over.

        For a document of a batch: whether the grace period of the tombstones in its batch is over.
        """
        return _since(document) < wall_ms - self._grace_ms

    def old(self, wall_ms: int) -> list[Document]:
        """Return the tombstones in the table whose grace period is over."""
        found: dict[str, Document] = {}
        while self._tombstones and self._tombstones[0][0] < wall_ms - self._grace_ms:
            _, key = heapq.heappop(self._tombstones)
            held = self._table.get(key)
            if held is not None and held.deleted and self.is_old(held, wall_ms):
                found[key] = held
        return list(found.values())

    def retire(self, tombstones: Iterable[Document]) -> tuple[Document, ...]:
        """Move tombstones from the table to :attr:`retired`.

        Returns the tombstones that were dropped because more than ``most`` tombstones were retired.
        """
        for tombstone in tombstones:
            self._table.remove(tombstone.key)
            self.retired[tombstone.key] = tombstone
            self._newest = max(self._newest, _since(tombstone))
        surplus = max(0, len(self.retired) - self._most)
        if not surplus:
            return ()
        droppable = (key for key, tombstone in self.retired.items() if not self._keeps(tombstone))
        return tuple(self.retired.pop(key) for key in list(itertools.islice(droppable, surplus)))

    def too_early(self, wall_ms: int) -> list[Document]:
        """Return the tombstones that were retired too early because the clock was wrong at that time."""
        if self._newest < wall_ms - self._grace_ms:
            return []
        self._newest = max((_since(item) for item in self.retired.values() if self.is_old(item, wall_ms)), default=0)
        return [item for item in self.retired.values() if not self.is_old(item, wall_ms)]


def _since(tombstone: Document) -> int:
    """Return the start of a tombstone's grace period, in milliseconds since the epoch.

    For a deleted document, this is the time of the deletion; for an expired document, the time of its publish. The time
    comes from the version alone, because a list entry contains no other time, and all members must compute the same
    time.
    """
    return tombstone.version.wall_ms
