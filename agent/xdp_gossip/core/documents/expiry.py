# SPDX-License-Identifier: MIT
"""Expiry: documents with an end, and tombstones that are old enough to be retired.

Members tell each other of a tombstone for a grace period, so that all hear of the deletion. Then it is *retired*: it no
longer counts in digests and lists and costs the network nothing, but it is kept. A member that was away for longer and
offers the deleted document is answered with the tombstone. So each deletion is remembered by its own key and version,
no member's clock decides about other documents, and a clock that was wrong for a while retires nothing for good.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from ..types import Document
from .table import DocumentTable


class Expiry:
    """Finds expired documents and keeps retired tombstones, by the cluster's time in milliseconds.

    ``grace``: seconds for which members tell each other of a tombstone. ``most``: retired tombstones to keep; beyond
    that the oldest are dropped.
    """

    def __init__(self, table: DocumentTable, grace: float, most: int) -> None:
        self._table = table
        self._grace_ms = int(grace * 1000)
        self._most = most
        #: Retired tombstones by key, in the order in which they were retired.
        self.retired: dict[str, Document] = {}
        self._newest = 0  # time of the newest of them, milliseconds
        self._expiries: list[tuple[int, str]] = []
        self._tombstones: list[tuple[int, str]] = []

    def note(self, document: Document) -> None:
        """Remember when this document, just stored, expires."""
        self.retired.pop(document.key, None)
        if document.deleted:
            heapq.heappush(self._tombstones, (_since(document), document.key))
        elif document.expires:
            heapq.heappush(self._expiries, (document.expires, document.key))

    @property
    def next_expiry(self) -> int | None:
        """When the next document expires (it may have been replaced meanwhile); None: no document has an expiry."""
        return self._expiries[0][0] if self._expiries else None

    def expired(self, wall_ms: int) -> list[Document]:
        """Expired documents that are still in the table."""
        found: dict[str, Document] = {}
        while self._expiries and self._expiries[0][0] <= wall_ms:
            _, key = heapq.heappop(self._expiries)
            held = self._table.get(key)
            if held is not None and not held.deleted and held.expired(wall_ms):
                found[key] = held
        return list(found.values())

    def is_old(self, document: Document, wall_ms: int) -> bool:
        """Whether the grace period of a tombstone, or of the tombstones in the batch of a document, is over."""
        return _since(document) < wall_ms - self._grace_ms

    def old(self, wall_ms: int) -> list[Document]:
        """Tombstones in the table whose grace period is over."""
        found: dict[str, Document] = {}
        while self._tombstones and self._tombstones[0][0] < wall_ms - self._grace_ms:
            _, key = heapq.heappop(self._tombstones)
            held = self._table.get(key)
            if held is not None and held.deleted and self.is_old(held, wall_ms):
                found[key] = held
        return list(found.values())

    def retire(self, tombstones: Iterable[Document]) -> tuple[Document, ...]:
        """Take tombstones out of the table.

        Returns the retired ones that are dropped for good because there are too many.
        """
        for tombstone in tombstones:
            self._table.remove(tombstone.key)
            self.retired[tombstone.key] = tombstone
            self._newest = max(self._newest, _since(tombstone))
        surplus = max(0, len(self.retired) - self._most)
        return tuple(self.retired.pop(key) for key in list(self.retired)[:surplus])

    def too_early(self, wall_ms: int) -> list[Document]:
        """Retired tombstones whose grace period is not over at ``wall_ms``, since a wrong clock was corrected."""
        if self._newest < wall_ms - self._grace_ms:
            return []
        self._newest = max((_since(item) for item in self.retired.values() if self.is_old(item, wall_ms)), default=0)
        return [item for item in self.retired.values() if not self.is_old(item, wall_ms)]


def _since(tombstone: Document) -> int:
    """When a document was deleted, in milliseconds since the epoch. An expired document counts from its publish.

    An entry in a list tells only the version, and all members must reach the same verdict.
    """
    return tombstone.version.wall_ms
