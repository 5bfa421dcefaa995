# SPDX-License-Identifier: MIT
"""The documents held here, with digests that are updated as they change."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

from ..messages import Entry
from ..types import Address, Document, Version

BUCKETS = 256
_MASK = (1 << 64) - 1


def bucket_of(key: str) -> int:
    """Which of the 256 buckets a key belongs to."""
    return hashlib.blake2b(key.encode(), digest_size=1, person=b"xg-bucket").digest()[0]


def entry_of(document: Document) -> Entry:
    """The document without its value."""
    return Entry(document.key, document.version, document.deleted, document.content_hash, document.size)


def unread(versions: Sequence[Document], held: Version | None, own: Address) -> set[Version]:
    """The ``versions`` of one document that were replaced by a version whose author had not read them.

    ``held``: the version that holds now. ``own``: this node; for its versions :meth:`Document.overtakes` is stricter.
    """
    return {
        version.version
        for version in versions
        if version.version != held
        and all(other.overtakes(version, version.version.origin == own) for other in versions if other is not version)
    }


class DocumentTable:
    """Documents and tombstones by key.

    ``digest`` is the sum of all state hashes modulo 2^64. It does not depend on the order, so members that hold the
    same documents have the same digest however these arrived. An update takes constant time. ``buckets`` are the same
    sums for each of 256 parts of the key space, and locate a difference without listing everything.
    """

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._keys: list[set[str]] = [set() for _ in range(BUCKETS)]
        self._ordered: list[str] | None = None
        self.buckets = [0] * BUCKETS
        self.digest = 0
        self.live = 0
        #: Bytes of all values.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._documents)

    def __contains__(self, key: str) -> bool:
        return key in self._documents

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents.values())

    def get(self, key: str) -> Document | None:
        """The document or tombstone of ``key``."""
        return self._documents.get(key)

    def put(self, document: Document) -> None:
        """Store a document in place of whatever is held under its key."""
        bucket = bucket_of(document.key)
        delta = document.state_hash
        former = self._documents.get(document.key)
        if former is None:
            self._ordered = None
        else:
            delta -= former.state_hash
            self.live -= not former.deleted
            self.bytes -= former.size
        self.live += not document.deleted
        self.bytes += document.size
        self._documents[document.key] = document
        self._keys[bucket].add(document.key)
        self.buckets[bucket] = (self.buckets[bucket] + delta) & _MASK
        self.digest = (self.digest + delta) & _MASK

    def remove(self, key: str) -> None:
        """Forget what is held under ``key``."""
        former = self._documents.pop(key, None)
        if former is None:
            return
        self._ordered = None
        bucket = bucket_of(key)
        self.live -= not former.deleted
        self.bytes -= former.size
        self._keys[bucket].discard(key)
        self.buckets[bucket] = (self.buckets[bucket] - former.state_hash) & _MASK
        self.digest = (self.digest - former.state_hash) & _MASK

    def live_after(self, key: str, prefix: str = "") -> Iterator[Document]:
        """Documents after ``key`` ("": all) whose keys begin with ``prefix``, sorted by key; no tombstones."""
        if self._ordered is None:
            self._ordered = sorted(self._documents)
        keys = self._ordered
        first = max(bisect.bisect_right(keys, key), bisect.bisect_left(keys, prefix))
        for each in itertools.islice(keys, first, None):
            if not each.startswith(prefix):
                return
            document = self._documents[each]
            if not document.deleted:
                yield document

    def size_of(self, key: str) -> int:
        """Bytes of the value held under ``key``; 0 without one."""
        held = self._documents.get(key)
        return held.size if held is not None else 0

    def size_of_bucket(self, bucket: int) -> int:
        """How many documents the bucket holds."""
        return len(self._keys[bucket])

    def in_bucket(self, bucket: int) -> list[Document]:
        """The bucket's documents by key."""
        return [self._documents[key] for key in sorted(self._keys[bucket])]

    def entries(self, buckets: Iterable[int] = range(BUCKETS)) -> Iterator[tuple[int, list[Entry]]]:
        """For each bucket its entries by key."""
        for bucket in buckets:
            yield bucket, [entry_of(document) for document in self.in_bucket(bucket)]
