# SPDX-License-Identifier: MIT
"""The table of this member's documents. Each change also updates the digests of the table."""

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
    """Return the number of the bucket, 0 to 255, that a key belongs to."""
    return hashlib.blake2b(key.encode(), digest_size=1, person=b"xg-bucket").digest()[0]


def entry_of(document: Document) -> Entry:
    """Return the list entry of a document: key, version, content hash and size, without the value."""
    return Entry(document.key, document.version, document.deleted, document.content_hash, document.size)


def unread(versions: Sequence[Document], held: Version | None, own: Address) -> set[Version]:
    """Return those ``versions`` of a document that an author replaced without having read them (conflicts).

    ``held``: the current version. ``own``: the address of this node, because :meth:`Document.overtakes` has a stricter
    rule for versions that this node published.
    """
    return {
        version.version
        for version in versions
        if version.version != held
        and all(other.overtakes(version, version.version.origin == own) for other in versions if other is not version)
    }


class DocumentTable:
    """Documents and tombstones by key.

    ``digest`` is the sum of all state hashes modulo 2^64. A sum does not depend on order, so members with the same
    documents have the same digest, in whatever order the documents arrived. An update of the digest takes constant
    time. The keys are divided into 256 buckets by hash, and ``buckets`` has the sum of the state hashes in each bucket.
    Two members compare their ``buckets`` to find the buckets that differ, without listing all documents.
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
        """Return the document or tombstone of ``key``; None if there is neither."""
        return self._documents.get(key)

    def put(self, document: Document) -> None:
        """Put a document or tombstone into the table.

        Replace the document or tombstone that the table has for the same key.
        """
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
        """Remove the document or tombstone of ``key``, if there is one."""
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
        """Yield the documents whose keys start with ``prefix`` and sort after ``key``, in order, without tombstones."""
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
        """Return the size in bytes of the value of ``key``; 0 if there is no document."""
        held = self._documents.get(key)
        return held.size if held is not None else 0

    def size_of_bucket(self, bucket: int) -> int:
        """Return how many documents and tombstones are in a bucket."""
        return len(self._keys[bucket])

    def in_bucket(self, bucket: int) -> list[Document]:
        """Return the documents and tombstones of a bucket, sorted by key."""
        return [self._documents[key] for key in sorted(self._keys[bucket])]

    def entries(self, buckets: Iterable[int] = range(BUCKETS)) -> Iterator[tuple[int, list[Entry]]]:
        """Yield each bucket's number and its entries, sorted by key."""
        for bucket in buckets:
            yield bucket, [entry_of(document) for document in self.in_bucket(bucket)]
