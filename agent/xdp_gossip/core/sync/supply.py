# SPDX-License-Identifier: MIT
"""Supplies others with documents held here: those they ask for, and those they are sent because they lack them."""

from __future__ import annotations

from dataclasses import replace

from ..documents.table import DocumentTable
from ..messages import Chunk, Documents, Entry, FetchRequest, NotHere, Want
from ..outbox import Outbox
from ..received import Received
from ..types import Address, Document, Now
from .allowance import Allowance

#: Most items of one request: small documents, and the next chunks of a large one (a window).
REQUEST_WANTS = 64
CHUNKS = 16
#: In each window of an allowance one member gets four times all documents held here, and this many bytes more. A member
#: that catches up gets each document once. A document counts with this many bytes on top of its value, for its other
#: fields.
_BYTES = 16 * 1024 * 1024
_SHARE = 4
_OVERHEAD = 1024


class Supply:
    """Sends documents: small ones many to a frame, large ones in windows of chunks."""

    def __init__(self, table: DocumentTable, out: Outbox, frame_bytes: int) -> None:
        self._table = table
        self._out = out
        self._frame_bytes = frame_bytes
        self._sent = Allowance()

    def on_request(self, request: FetchRequest, packet: Received) -> None:
        """Send what is requested: small documents together, and the next few chunks of one large document.

        An honest member requests one large document at a time. If a request names more, the rest is withheld, and the
        member asks for it again.
        """
        requester, now = packet.origin, packet.now
        small: dict[str, Document] = {}
        missing: dict[str, None] = {}
        large: tuple[Document, Want] | None = None
        for want in request.wants[:REQUEST_WANTS]:
            held = self._table.get(want.key)
            if held is None or held.version < want.version:
                missing[want.key] = None
            elif not self.is_large(held):
                small[want.key] = held
            elif large is None:
                large = (held, want)
            else:
                self._out.count("documents_withheld")
        if large is not None:
            self._send_chunks(*large, requester, now)
        if missing:
            self._out.send(NotHere(tuple(missing)), requester, now)
        self.push(list(small.values()), requester, now)

    def push(self, documents: list[Document], to: Address, now: Now) -> None:
        """Send small documents, as many to a frame as fit, within the allowance of ``to``."""
        batch: list[Document] = []
        used = 0
        for document in documents:
            if not self._may_send(document.size, to, now):
                continue
            size = self._out.codec.size_of(Documents((document,)))
            if batch and used + size > self._frame_bytes:
                self._out.send(Documents(tuple(batch)), to, now)
                batch, used = [], 0
            batch.append(document)
            used += size
        if batch:
            self._out.send(Documents(tuple(batch)), to, now)

    def _send_chunks(self, held: Document, want: Want, to: Address, now: Now) -> None:
        head = replace(held, value=b"")
        step = self.chunk_bytes(head)
        offset = want.offset if held.version == want.version else 0
        end = min(held.size, offset + CHUNKS * step)
        if not self._may_send(end - offset, to, now):
            return
        for start in range(offset, end, step):
            data = held.value[start : start + step]
            self._out.send(Chunk(head, held.size, held.content_hash, start, data), to, now, reliable=True)

    def _may_send(self, size: int, to: Address, now: Now) -> bool:
        """Whether the allowance of ``to`` covers ``size`` bytes of a document. A refusal is counted."""
        most = _BYTES + _SHARE * (self._table.bytes + _OVERHEAD * len(self._table))
        wanted = max(0, size) + _OVERHEAD
        if self._sent.take(to, wanted, most, now) == wanted:
            return True
        self._out.count("documents_withheld")
        return False

    def chunk_bytes(self, head: Document) -> int:
        """Bytes of value that fit a frame beside the head. Both sides compute the same number."""
        return self._frame_bytes - self._out.codec.size_of(Chunk(head, 1 << 32, bytes(32), 1 << 32, b"")) - 8

    def is_large(self, item: Document | Entry) -> bool:
        """Whether a document travels in chunks."""
        # An entry does not tell the length of author and comment, so leave room for the longest.
        return item.size > self._frame_bytes // 2
