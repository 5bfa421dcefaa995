# SPDX-License-Identifier: MIT
"""Checks documents against the limits on their number, their size and their total size."""

from __future__ import annotations

from collections.abc import Sequence

from ..interface import ProtocolError
from ..messages import Entry
from ..settings import Limits
from ..types import Document, Prepared, Write
from .table import DocumentTable


class Room:
    """The room that the limits leave in a table of documents."""

    def __init__(self, table: DocumentTable, limits: Limits) -> None:
        self._table = table
        self._limits = limits

    def lacks(self, entry: Entry) -> str:
        """The limit that another member's version breaks: too_large, too_many or store_full; "" if it breaks none."""
        limits, own = self._limits, self._table.size_of(entry.key)
        if entry.size > limits.document:
            return "too_large"
        if self._table.get(entry.key) is None and len(self._table) >= limits.documents:
            return "too_many"
        if entry.size > own and self._table.bytes + entry.size > limits.store + own:
            return "store_full"
        return ""

    def fits(self, documents: Sequence[Document]) -> bool:
        """Whether the limits allow all ``documents``.

        Documents that increase neither the total bytes nor the number of keys are always allowed.
        """
        growth = sum(document.size - self._table.size_of(document.key) for document in documents)
        fresh = sum(document.key not in self._table for document in documents)
        too_large = growth > 0 and self._table.bytes + growth > self._limits.store
        return not too_large and (not fresh or len(self._table) + fresh <= self._limits.documents)

    def _taken(self, pending: Sequence[Prepared]) -> tuple[int, int]:
        """Return the total bytes and the number of documents after a commit of ``pending``.

        If ``pending`` makes a document smaller, the total still contains the present size of this document, which is
        larger.
        """
        coming = [item.document for item in pending if item.changed and item.document is not None]
        growth = sum(max(0, document.size - self._table.size_of(document.key)) for document in coming)
        return self._table.bytes + growth, len(self._table) + sum(
            document.key not in self._table for document in coming
        )

    def check(self, writes: Sequence[Write], helds: Sequence[Document | None], pending: Sequence[Prepared]) -> None:
        """Check that the limits allow ``writes``, which replace the documents ``helds``, after a commit of ``pending``.

        Raises ``ProtocolError``: document_too_large, store_full, too_many_documents.
        """
        limits = self._limits
        for write in writes:
            if len(write.value) > limits.document:
                raise ProtocolError(
                    "document_too_large",
                    f"document {write.key!r}: expected at most {limits.document} bytes, got {len(write.value)}",
                    key=write.key,
                    limit=limits.document,
                    size=len(write.value),
                )
        if sum(len(write.value) for write in writes) > limits.document:
            raise ProtocolError(
                "document_too_large",
                f"documents published together: expected at most {limits.document} bytes in all",
                limit=limits.document,
                size=sum(len(write.value) for write in writes),
            )
        growth = sum(len(w.value) - (held.size if held else 0) for w, held in zip(writes, helds))
        taken, count = self._taken(pending)
        if growth > 0 and taken + growth > limits.store:
            raise ProtocolError(
                "store_full",
                f"document {writes[0].key!r}: expected at most {limits.store} bytes in all documents "
                f"(limits.store), got {taken} and this publish adds {growth}; delete some documents, or "
                "raise limits.store on every member",
                key=writes[0].key,
                limit=limits.store,
                size=taken + growth,
            )
        fresh = [write.key for write, held in zip(writes, helds) if held is None]
        if fresh and count + len(fresh) > limits.documents:
            raise ProtocolError(
                "too_many_documents",
                f"document {fresh[0]!r}: there are {count} documents already, the limit is {limits.documents}",
                key=fresh[0],
                limit=limits.documents,
            )
