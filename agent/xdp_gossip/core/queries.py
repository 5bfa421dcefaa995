# SPDX-License-Identifier: MIT
"""Queries to members about the version of a document that they have or have applied, and about failed files."""

from __future__ import annotations

from collections.abc import Iterable

from .applied import (
    APPLIED_STATES,
    NO_FILES,
    TROUBLES,
    AppliedSource,
    FilesSource,
    TroubledFiles,
    for_an_answer,
    nothing_applied,
)
from .documents.metadata import Metadata
from .events import AppliedAnswered, FilesAnswered, QueryAnswered
from .messages import Answer, AppliedAnswer, AppliedQuery, FilesAnswer, FilesQuery, Query
from .outbox import Outbox
from .received import Received
from .types import Address, Now

#: Maximum number of open queries. If a new query exceeds the maximum, the oldest open query is dropped.
_MOST = 256
#: Maximum bytes of the error text in an answer.
_MAX_ERROR = 512
#: The key of a query about all rendered files. No document can have this key.
_ALL_FILES = ""


class Queries:
    """Sends queries to other members, reports their answers to the shell, and answers the queries of other members.

    ``applied_source`` returns the state of a document in this node's rendered files. ``files_source`` returns the
    rendered files that are failed, drifted or pending. ``applied_source`` and ``files_source`` must not raise.
    """

    def __init__(self, metadata: Metadata, out: Outbox) -> None:
        self._metadata = metadata
        self._out = out
        self._open: dict[int, str] = {}
        self.applied_source: AppliedSource = nothing_applied
        self.files_source: FilesSource = lambda: NO_FILES

    def ask(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members which version of document ``key`` they have.

        Return the query's number, which each answer repeats.
        """
        nonce = self._new(key)
        for address in to:
            self._out.send(Query(nonce, key), address, now)
        return nonce

    def ask_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members for the state of document ``key`` in their rendered files. Return the query's number."""
        nonce = self._new(key)
        for address in to:
            self._out.send(AppliedQuery(nonce, key), address, now)
        return nonce

    def ask_files(self, to: Iterable[Address], now: Now) -> int:
        """Ask members for their failed, drifted and pending rendered files. Return the query's number."""
        nonce = self._new(_ALL_FILES)
        for address in to:
            self._out.send(FilesQuery(nonce), address, now)
        return nonce

    def _new(self, key: str) -> int:
        nonce = self._out.rng.getrandbits(63)
        self._open[nonce] = key
        while len(self._open) > _MOST:
            del self._open[next(iter(self._open))]
        return nonce

    def on_applied_query(self, query: AppliedQuery, packet: Received) -> None:
        """Answer a query with the document's state in this node's rendered files."""
        found = self.applied_source(query.key)
        error = found.error.encode("utf-8", "replace")[:_MAX_ERROR].decode("utf-8", "ignore")
        answer = AppliedAnswer(query.nonce, query.key, found.state, found.version, error)
        self._out.send(answer, packet.origin, packet.now)

    def on_applied_answer(self, answer: AppliedAnswer, packet: Received) -> None:
        """Report an answer to the shell if it belongs to an open query; otherwise count and drop it."""
        if self._open.get(answer.nonce) != answer.key or answer.state not in APPLIED_STATES:
            self._out.count("rx_unasked_response")
            return
        version = str(answer.version) if answer.version else None
        self._out.emit(AppliedAnswered(answer.nonce, packet.origin, answer.state, version, answer.error))

    def on_files_query(self, query: FilesQuery, packet: Received) -> None:
        """Answer a query with this node's failed, drifted and pending files, as many as fit into one datagram."""
        found = for_an_answer(self.files_source())
        answer = FilesAnswer(query.nonce, found.templates, found.troubled, found.files)
        self._out.send(answer, packet.origin, packet.now)

    def on_files_answer(self, answer: FilesAnswer, packet: Received) -> None:
        """Report an answer to the shell if it belongs to an open query; otherwise count and drop it."""
        asked = self._open.get(answer.nonce) == _ALL_FILES
        if not asked or any(file.state not in TROUBLES for file in answer.files):
            self._out.count("rx_unasked_response")
            return
        self._out.emit(
            FilesAnswered(answer.nonce, packet.origin, TroubledFiles(answer.templates, answer.troubled, answer.files))
        )

    def on_query(self, query: Query, packet: Received) -> None:
        """Answer a query with this node's version of the document. For a tombstone, the content hash is empty."""
        held = self._metadata.table.get(query.key)
        if held is None:
            answer = Answer(query.nonce, query.key, None, b"")
        else:
            content = b"" if held.deleted else held.content_hash
            answer = Answer(query.nonce, query.key, held.version, content, query.key not in self._out.local.unstored())
        self._out.send(answer, packet.origin, packet.now)

    def on_answer(self, answer: Answer, packet: Received) -> None:
        """Report an answer to the shell if it belongs to an open query; otherwise count and drop it."""
        if self._open.get(answer.nonce) != answer.key:
            self._out.count("rx_unasked_response")
            return
        version = str(answer.version) if answer.version else None
        digest = f"sha256:{answer.content_hash.hex()}" if answer.version and answer.content_hash else None
        self._out.emit(QueryAnswered(answer.nonce, packet.origin, version, digest, answer.stored))
