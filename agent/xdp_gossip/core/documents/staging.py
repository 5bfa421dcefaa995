# SPDX-License-Identifier: MIT
"""Stores the documents of a batch until all of them have arrived, so that they become visible together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable

from ..types import Document, Now, Version
from .table import DocumentTable

#: Seconds from the arrival of the newest document of an incomplete batch until this member drops the batch. A later
#: sync fetches the batch again.
LIFETIME = 60.0
#: Maximum memory of all incomplete batches: as much as this number of documents of the largest allowed size. Other
#: members decide how many incomplete batches they send, so the memory needs a limit.
LARGEST = 4
#: Maximum bytes of memory that all incomplete batches need beside the values of their documents, which may be empty.
MAX_OVERHEAD = 64 * 1024 * 1024
#: Bytes that one document needs beside its texts, and one key of a batch or of a signature, as measured.
_PART, _KEY = 1536, 320


class _Batch:
    """One incomplete batch: the documents that have arrived, and the keys whose documents are missing.

    ``overhead``: bytes of memory for the keys.
    """

    __slots__ = ("missing", "overhead", "parts", "since")

    def __init__(self, missing: set[str], since: float, overhead: int) -> None:
        self.parts: dict[str, Document] = {}
        self.missing = missing
        self.since = since
        self.overhead = overhead


def _keys_overhead(keys: Iterable[str]) -> int:
    return sum(_KEY + len(key.encode()) for key in keys)


def _overhead(document: Document) -> int:
    """Bytes of memory that a document needs beside its value and the keys of its batch."""
    signature = document.signature
    signed = 0 if signature is None else len(signature.blob) + _keys_overhead(key for key, _ in signature.batch)
    return _PART + len(document.comment.encode()) + len(document.author.encode()) + signed


class Staging:
    """The documents of incomplete batches by key. A newly arrived document replaces a waiting document of the same key.

    A batch is complete if this member has, for each key of the batch, either the batch's version or a later version
    that is visible. A later version of a key is enough, because members that have the later version cannot supply the
    earlier version. ``excludes``: whether this member refuses each document of a key and a version, because of its
    signers; a batch does not wait for such a document.
    """

    def __init__(
        self,
        table: DocumentTable,
        max_document: int,
        excludes: Callable[[str, Version], bool] = lambda key, version: False,
    ) -> None:
        self._table = table
        self._excludes = excludes
        self._most = LARGEST * max_document
        self._parts: dict[str, Document] = {}
        # Incomplete batches. The batches are sorted by the arrival of their newest document, the earliest first.
        self._batches: dict[Version, _Batch] = {}
        # key -> versions of the incomplete batches that lack the document of this key
        self._waiting: dict[str, set[Version]] = {}
        self._ready: dict[Version, None] = {}
        self._bytes = 0
        self._overhead = 0

    def __len__(self) -> int:
        return len(self._parts)

    def get(self, key: str) -> Document | None:
        """Return the document of ``key`` that waits for other documents of its batch; None if none waits."""
        return self._parts.get(key)

    def add(self, document: Document, now: Now) -> int:
        """Store one document of a batch.

        Return the number of documents that were dropped to make room for the new document.
        """
        key, version = document.key, document.version
        self._drop(key)
        batch = self._batches.pop(version, None)
        if batch is None:
            missing = {other for other in document.batch if self._is_awaited(other, version)}
            batch = _Batch(missing, now.mono, _keys_overhead(document.batch))
            self._overhead += batch.overhead
            for other in batch.missing:
                self._waiting.setdefault(other, set()).add(version)
        self._batches[version] = batch
        batch.since = now.mono
        batch.parts[key] = self._parts[key] = document
        self._bytes += document.size
        self._overhead += _overhead(document)
        self._found(key, version)
        gone = 0
        while (self._bytes > self._most or self._overhead > MAX_OVERHEAD) and len(self._batches) > 1:
            gone += self._forget(next(iter(self._batches)))
        return gone

    def stored(self, document: Document) -> None:
        """Note that a document became visible.

        From now on, no batch waits for this version, or for an earlier version of the same document.
        """
        for version in list(self._waiting.get(document.key, ())):
            if version <= document.version:
                self._found(document.key, version)

    def complete(self) -> Iterator[list[Document]]:
        """Yield the documents of each complete batch, one batch after the other.

        The caller must make each batch visible before it resumes the iterator, because a visible batch may complete
        another batch.
        """
        while self._ready:
            version = next(iter(self._ready))
            parts = list(self._batches[version].parts.values())
            self._forget(version)
            yield parts

    def expire(self, now: Now) -> int:
        """Drop batches that stayed incomplete for ``LIFETIME``. Return the number of dropped documents."""
        old = [version for version, batch in self._batches.items() if now.mono - batch.since > LIFETIME]
        return sum(self._forget(version) for version in old)

    def clear(self) -> int:
        """Drop all incomplete batches. Return the number of dropped documents."""
        return sum(self._forget(version) for version in list(self._batches))

    def _is_awaited(self, key: str, version: Version) -> bool:
        return not self._is_held(key, version) and not self._excludes(key, version)

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
        self._overhead -= batch.overhead
        for key, part in batch.parts.items():
            self._bytes -= part.size
            self._overhead -= _overhead(part)
            if self._parts.get(key) is part:
                del self._parts[key]
        return len(batch.parts)

    def _drop(self, key: str) -> None:
        """Drop the waiting document of ``key``, because another version of this document has arrived.

        The batch of the dropped document then waits until the batch's version of ``key``, or a later version, is
        visible.
        """
        former = self._parts.pop(key, None)
        if former is None:
            return
        self._bytes -= former.size
        self._overhead -= _overhead(former)
        batch = self._batches[former.version]
        del batch.parts[key]
        self._ready.pop(former.version, None)
        if not batch.parts:
            self._forget(former.version)
        elif not self._is_held(key, former.version):
            batch.missing.add(key)
            self._waiting.setdefault(key, set()).add(former.version)
