# SPDX-License-Identifier: MIT
"""Questions to members: which version of a document do you hold?"""

from __future__ import annotations

from collections.abc import Iterable

from .events import QueryAnswered
from .messages import Answer, Query
from .metadata import Metadata
from .outbox import Outbox
from .types import Address, Now

#: Questions that may be open at once; the oldest make room.
_MOST = 256


class Queries:
    """Asks and answers."""

    def __init__(self, metadata: Metadata, out: Outbox) -> None:
        self._metadata = metadata
        self._out = out
        self._open: dict[int, str] = {}

    def ask(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members what they hold of ``key``; returns the number that the answers come with."""
        nonce = self._out.rng.getrandbits(63)
        self._open[nonce] = key
        while len(self._open) > _MOST:
            del self._open[next(iter(self._open))]
        for address in to:
            self._out.send(Query(nonce, key), address, now)
        return nonce

    def on_query(self, query: Query, origin: Address, now: Now) -> None:
        """Say what is held here. A tombstone has a version and no content."""
        held = self._metadata.table.get(query.key)
        if held is None:
            answer = Answer(query.nonce, query.key, None, b"")
        else:
            answer = Answer(query.nonce, query.key, held.version, b"" if held.deleted else held.content_hash)
        self._out.send(answer, origin, now)

    def on_answer(self, answer: Answer, origin: Address) -> None:
        """Pass an answer on to the shell, if it was asked for."""
        if self._open.get(answer.nonce) != answer.key:
            self._out.count("rx_unasked_response")
            return
        version = str(answer.version) if answer.version else None
        digest = f"sha256:{answer.content_hash.hex()}" if answer.version and answer.content_hash else None
        self._out.emit(QueryAnswered(answer.nonce, origin, version, digest))
