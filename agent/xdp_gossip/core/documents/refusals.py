# SPDX-License-Identifier: MIT
"""Records documents that this member refused because of their signatures.

Another member decides how many such documents it sends. So the memory for them, and the number of events about them,
have limits.
"""

from __future__ import annotations

import math

from ..events import DocumentRefused, DocumentWithheld, Warned
from ..messages import Entry
from ..outbox import Outbox
from ..signers import Refused
from ..types import Address, Document, Now

#: Maximum number of refused versions that this member remembers, so that it does not fetch them again from the same
#: member. Another member may have the true document of this version.
_REMEMBERED = 4096
#: Maximum number of events about refused documents within ``_WINDOW`` seconds. Counters count all of them.
_EVENTS, _WINDOW = 32, 60.0


class Refusals:
    """Counts, reports and remembers refused documents."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._remembered: dict[tuple[object, ...], None] = {}
        self._window = -math.inf
        self._emitted = 0

    def has(self, entry: Entry, source: Address | None) -> bool:
        """Whether this member has refused the version of ``entry`` already when ``source`` sent it."""
        return (entry.key, entry.rank, source) in self._remembered

    def forget(self) -> None:
        """Forget all refused versions, because the rules have changed."""
        self._remembered.clear()

    def refused(self, entry: Entry, reason: Refused, source: Address | None, now: Now) -> None:
        """Record a version that the member ``source`` sent or announced."""
        fresh = not self.has(entry, source)
        self._remembered.pop((entry.key, entry.rank, source), None)
        self._remembered[entry.key, entry.rank, source] = None
        if len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._out.count(f"documents_refused_{reason.kind}")
        sender = f" from member {source}" if source is not None else ""
        text = f"document {entry.key!r}: version {entry.version}{sender} refused: {reason}"
        self._out.emit(Warned(f"document_refused_{reason.kind}", text))
        if fresh and self._may_emit(now):
            self._out.emit(DocumentRefused(entry.key, entry.version, str(reason), source))

    def withheld(self, document: Document, reason: Refused) -> None:
        """Record a document that this member held, and that the rules do not allow any more."""
        self._out.count(f"documents_refused_{reason.kind}")
        text = f"document {document.key!r}: version {document.version} is held no more, only its history is: {reason}"
        self._out.emit(Warned("document_withheld", text))
        self._out.emit(DocumentWithheld(document, str(reason)))

    def _may_emit(self, now: Now) -> bool:
        if now.mono - self._window >= _WINDOW:
            self._window, self._emitted = now.mono, 0
        self._emitted += 1
        return self._emitted <= _EVENTS
