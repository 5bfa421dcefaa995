# SPDX-License-Identifier: MIT
"""What ends by itself: documents with an expiry, and tombstones that are old enough to be collected.

Tombstones are kept for a grace period, so that a member that was away hears of the deletion. The clock reading of the
newest one collected is the *floor*. A member whose floor is lower, and that still holds a document from below the floor
of another one that has none, was away for too long: what it holds was deleted meanwhile, and is not taken back
(chitchat's rule: Quickwit's gossip keeps the same reading, and resets who is behind it).
"""

from __future__ import annotations

import heapq

from .documents import DocumentTable
from .types import Document


class Endings:
    """Which documents are over, and which tombstones may go, by the cluster's time in milliseconds."""

    def __init__(self, table: DocumentTable, grace: float) -> None:
        self._table = table
        self._grace_ms = int(grace * 1000)
        self.floor = 0
        self._expiries: list[tuple[int, str]] = []
        self._tombstones: list[tuple[int, str]] = []

    def note(self, document: Document) -> None:
        """Remember when this document, just stored, ends."""
        if document.deleted:
            heapq.heappush(self._tombstones, (document.version.hlc, document.key))
        elif document.expires:
            heapq.heappush(self._expiries, (document.expires, document.key))

    @property
    def next_expiry(self) -> int | None:
        """When the next document is over (or was replaced meanwhile); None: no document has an expiry."""
        return self._expiries[0][0] if self._expiries else None

    def expired(self, wall_ms: int) -> list[Document]:
        """Documents that are over and still in the table."""
        found: dict[str, Document] = {}
        while self._expiries and self._expiries[0][0] <= wall_ms:
            _, key = heapq.heappop(self._expiries)
            held = self._table.get(key)
            if held is not None and not held.deleted and held.expired(wall_ms):
                found[key] = held
        return list(found.values())

    def collectable(self, wall_ms: int) -> list[Document]:
        """Tombstones that are older than the grace period; the floor rises to the newest of them."""
        limit = (wall_ms - self._grace_ms) << 16
        found: dict[str, Document] = {}
        while self._tombstones and self._tombstones[0][0] < limit:
            reading, key = heapq.heappop(self._tombstones)
            held = self._table.get(key)
            if held is not None and held.deleted and held.version.hlc == reading:
                found[key] = held
                self.floor = max(self.floor, reading)
        return list(found.values())
