# SPDX-License-Identifier: MIT
"""The cluster's Metadata: who may write which version of a document, and which of two holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Callable

from .clock import NS_PER_MS, HybridClock
from .documents import DocumentTable, entry_of
from .events import DocumentChanged, Warned
from .interface import ProtocolError, Settings
from .messages import Entry
from .outbox import Outbox
from .types import (
    MAX_AUTHOR,
    MAX_COMMENT,
    MAX_CONTENT_TYPE,
    Address,
    Document,
    Now,
    Version,
    check_key,
    check_text,
)


class Metadata:
    """The documents with the rules of writing them: versions, limits, compare-and-set, who wins."""

    def __init__(self, origin: Address, settings: Settings, out: Outbox, table: DocumentTable) -> None:
        self.table = table
        self.on_change: Callable[[Now], None] = lambda now: None
        self._origin = origin
        self._settings = settings
        self._out = out
        self._clock = HybridClock(int(settings.max_clock_drift * 1000))
        self.offset = 0.0  # seconds that the cluster's clock is ahead of ours
        self._highest = 0  # greatest clock reading among the documents
        self._far_since: float | None = None  # since when there are documents from the far future

    def load(self, documents: Iterable[Document]) -> None:
        """Take over what an earlier run stored."""
        for document in documents:
            self.table.put(document)
            self._clock.observe(document.version.hlc)
            self._highest = max(self._highest, document.version.hlc)

    def write(
        self,
        key: str,
        value: bytes,
        now: Now,
        *,
        expected: Version | None = None,
        absent: bool = False,
        content_type: str = "raw",
        author: str = "",
        comment: str = "",
        deleted: bool = False,
    ) -> tuple[Document, bool]:
        """A new version by this node, unless it would equal the one held. Raises ``ProtocolError``."""
        try:
            check_key(key)
            check_text("content_type", content_type, MAX_CONTENT_TYPE)
            check_text("author", author, MAX_AUTHOR)
            check_text("comment", comment, MAX_COMMENT)
        except ValueError as error:
            raise ProtocolError("invalid_document", str(error)) from None
        held = self.table.get(key)
        self._compare(key, held, expected, absent)
        self._check_room(key, value, held)
        if (
            held is not None
            and held.deleted == deleted
            and held.value == value
            and (deleted or held.content_type == content_type)
        ):
            return held, False
        reading = self._clock.tick(self._wall_ms(now))
        if held is not None and not self._far(held.version, now):
            reading = max(reading, held.version.hlc + 1)
        document = Document(
            key,
            Version(reading, self._origin),
            bytes(value),
            content_type,
            author,
            comment,
            deleted,
            held.version if held else None,
        )
        self._store(document, held, now, local=True)
        return document, True

    def apply(self, document: Document, now: Now) -> bool:
        """Take another member's document if it outranks ours; what is refused is counted."""
        entry = entry_of(document)
        if not self.outranked_by(entry, now) or self.refuses(entry, now):
            return False
        self._clock.observe(document.version.hlc)
        self._store(document, self.table.get(document.key), now, local=False)
        return True

    def outranked_by(self, entry: Entry, now: Now) -> bool:
        """Whether a version from elsewhere holds against ours.

        The higher rank does, except that a version from the far future, left behind by a clock that was put right
        since, holds against nothing.
        """
        held = self.table.get(entry.key)
        if held is None:
            return True
        ours_far, theirs_far = self._far(held.version, now), self._far(entry.version, now)
        return ours_far if ours_far is not theirs_far else entry.rank > held.rank

    def refuses(self, entry: Entry, now: Now) -> bool:
        """Whether a version from elsewhere breaks a rule here; counted and warned of."""
        reason = ""
        if self._far(entry.version, now):
            reason = "future"
        elif entry.size > self._settings.max_document:
            reason = "too_large"
        elif self.table.get(entry.key) is None and len(self.table) >= self._settings.max_documents:
            reason = "too_many"
        if not reason:
            return False
        self._out.count(f"documents_refused_{reason}")
        self._out.emit(
            Warned(f"document_refused_{reason}", f"document {entry.key!r}: version {entry.version} refused ({reason})")
        )
        return True

    def restamp(self, patience: float, now: Now) -> None:
        """Publish documents again that carry times which everybody refuses, with the time that holds.

        They were written by a node whose clock ran ahead, seen by nobody or by members with the same fault. Their
        author puts that right at once; when it is not there, another member does after ``patience`` seconds.
        """
        if not self._clock.too_far_ahead(self._highest, self._wall_ms(now)):
            self._far_since = None
            return
        self._far_since = now.mono if self._far_since is None else self._far_since
        patient = now.mono - self._far_since < patience
        for held in list(self.table):
            if not self._far(held.version, now) or (patient and held.version.origin != self._origin):
                continue
            version = Version(self._clock.tick(self._wall_ms(now)), self._origin)
            self._out.count("documents_restamped")
            self._store(replace(held, version=version, base=None), held, now, local=True)
        self._highest = max((document.version.hlc for document in self.table), default=0)

    def _far(self, version: Version, now: Now) -> bool:
        return self._clock.too_far_ahead(version.hlc, self._wall_ms(now))

    def _wall_ms(self, now: Now) -> int:
        return now.wall_ns // NS_PER_MS + int(self.offset * 1000)

    def _compare(self, key: str, held: Document | None, expected: Version | None, absent: bool) -> None:
        actual = None if held is None or held.deleted else held.version
        if (expected is not None and actual != expected) or (absent and actual is not None):
            raise ProtocolError(
                "version_mismatch",
                f"document {key!r}: expected {expected or 'no document'}, found {actual or 'no document'}",
                expected=str(expected) if expected else None,
                actual=str(actual) if actual else None,
            )

    def _check_room(self, key: str, value: bytes, held: Document | None) -> None:
        limits = self._settings
        if len(value) > limits.max_document:
            raise ProtocolError(
                "document_too_large",
                f"document {key!r}: expected at most {limits.max_document} bytes, got {len(value)}",
                limit=limits.max_document,
                size=len(value),
            )
        if held is None and len(self.table) >= limits.max_documents:
            raise ProtocolError(
                "too_many_documents",
                f"document {key!r}: there are {len(self.table)} documents already, the limit",
                limit=limits.max_documents,
            )

    def _store(self, document: Document, held: Document | None, now: Now, local: bool) -> None:
        overtaken = held is not None and not local and (document.base is None or document.base < held.version)
        self.table.put(document)
        self._highest = max(self._highest, document.version.hlc)
        if overtaken:
            self._out.count("document_conflicts")
        self._out.emit(DocumentChanged(document, held, local, overtaken))
        self.on_change(now)
