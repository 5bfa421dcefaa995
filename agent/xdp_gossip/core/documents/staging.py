# SPDX-License-Identifier: MIT
"""Documents that were written together and have not all arrived: none becomes visible before the last one is here."""

from __future__ import annotations

from collections.abc import Iterator

from ..types import Document, Now, Version
from .table import DocumentTable

#: Seconds for which an incomplete batch is kept after its last part arrived. A later sync brings it again.
LIFETIME = 60.0
#: How many documents of the largest size may wait. This bounds the memory that others can make this member use.
LARGEST = 4


class _Batch:
    """One batch: the parts that wait, and the keys whose part is missing."""

    __slots__ = ("parts", "missing", "since")

    def __init__(self, missing: set[str], since: float) -> None:
        self.parts: dict[str, Document] = {}
        self.missing = missing
        self.since = since


class Staging:
    """The parts of batches by key. Of two versions of one key the higher one is kept.

    A batch is complete if each of its keys is here, in the batch's version or in a later visible one. A later version
    counts because nobody holds the earlier one any more, so a member that took the later one never gets it.
    """

    def __init__(self, table: DocumentTable, max_document: int) -> None:
        self._table = table
        self._most = LARGEST * max_document
        self._parts: dict[str, Document] = {}
        self._batches: dict[Version, _Batch] = {}  # the one that got its last part first comes first
        self._waiting: dict[str, set[Version]] = {}  # by key: incomplete batches that have to have it
        self._ready: dict[Version, None] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._parts)

    def get(self, key: str) -> Document | None:
        """The part that waits under ``key``; None if there is none."""
        return self._parts.get(key)

    def add(self, document: Document, now: Now) -> int:
        """Keep a part. Returns how many parts were dropped for it."""
        key, version = document.key, document.version
        self._drop(key)
        batch = self._batches.pop(version, None)
        if batch is None:
            batch = _Batch({other for other in document.batch if not self._is_held(other, version)}, now.mono)
            for other in batch.missing:
                self._waiting.setdefault(other, set()).add(version)
        self._batches[version] = batch
        batch.since = now.mono
        batch.parts[key] = self._parts[key] = document
        self._bytes += document.size
        self._found(key, version)
        gone = 0
        while self._bytes > self._most and len(self._batches) > 1:
            gone += self._forget(next(iter(self._batches)))
        return gone

    def stored(self, document: Document) -> None:
        """Note that a version became visible: batches that waited for it, or for an earlier one of its key, go on."""
        for version in list(self._waiting.get(document.key, ())):
            if version <= document.version:
                self._found(document.key, version)

    def complete(self) -> Iterator[list[Document]]:
        """Yield the parts of each complete batch, one batch after the other, as long as there are any.

        The caller makes a batch visible before it asks for the next.
        """
        while self._ready:
            version = next(iter(self._ready))
            parts = list(self._batches[version].parts.values())
            self._forget(version)
            yield parts

    def expire(self, now: Now) -> int:
        """Drop batches that stayed incomplete for too long. Returns how many parts were dropped."""
        old = [version for version, batch in self._batches.items() if now.mono - batch.since > LIFETIME]
        return sum(self._forget(version) for version in old)

    def _is_held(self, key: str, version: Version) -> bool:
        held = self._table.get(key)
        return held is not None and held.version >= version

    def _found(self, key: str, version: Version) -> None:
        batch = self._batches[version]
        batch.missing.discard(key)
        self._stop_waiting(key, version)
        if not batch.missing:
            self._ready[version] = None

    def _stop_waiting(self, key: str, version: Version) -> None:
        versions = self._waiting.get(key)
        if versions is not None:
            versions.discard(version)
            if not versions:
                del self._waiting[key]

    def _forget(self, version: Version) -> int:
        batch = self._batches.pop(version)
        self._ready.pop(version, None)
        for key in batch.missing:
            self._stop_waiting(key, version)
        for key, part in batch.parts.items():
            self._bytes -= part.size
            if self._parts.get(key) is part:
                del self._parts[key]
        return len(batch.parts)

    def _drop(self, key: str) -> None:
        """Drop a part in favour of a later version of its key.

        Its batch waits until that version or a later one is visible.
        """
        former = self._parts.pop(key, None)
        if former is None:
            return
        self._bytes -= former.size
        batch = self._batches[former.version]
        del batch.parts[key]
        self._ready.pop(former.version, None)
        if not batch.parts:
            self._forget(former.version)
        elif not self._is_held(key, former.version):
            batch.missing.add(key)
            self._waiting.setdefault(key, set()).add(former.version)
