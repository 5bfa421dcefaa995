# SPDX-License-Identifier: MIT
"""Sends documents of this node to other members, either on request or because the members lack the documents."""

from __future__ import annotations

from dataclasses import replace

from ..documents.table import DocumentTable
from ..messages import Chunk, Documents, Entry, FetchRequest, NotHere, Want
from ..outbox import Outbox
from ..received import Received
from ..types import Address, Document, Now
from .allowance import Allowance

#: Maximum number of small documents in the answer to one request, and number of chunks (the window) in the answer to a
#: request for a large document.
REQUEST_WANTS = 64
CHUNKS = 16
#: The allowance of one member, in bytes per window, is ``_SHARE`` times the size of all documents plus ``_BYTES``. A
#: member that catches up needs each document only once. The size of a document is the size of its value plus
#: ``_OVERHEAD`` for the other fields.
_BYTES = 16 * 1024 * 1024
_SHARE = 4
_OVERHEAD = 1024


class Supply:
    """Sends documents to other members: several small documents in one frame, large documents in windows of chunks."""

    def __init__(self, table: DocumentTable, out: Outbox, frame_bytes: int) -> None:
        self._table = table
        self._out = out
        self._frame_bytes = frame_bytes
        #: Maximum bytes of the value of a document that is sent whole. An entry contains neither author and comment nor
        #: the signature, so the other half of the frame has to be enough for all of them but the signature.
        self._small = frame_bytes // 2
        self._sent = Allowance()

    def on_request(self, request: FetchRequest, packet: Received) -> None:
        """Send the requested documents: all small documents, and the next window of chunks of one large document.

        An honest member requests one large document at a time. If a request names several large documents, this node
        sends only the first, and the requester has to request the other documents again. A document that is large only
        because of its signature does not count, because the requester knows only the length of its value.
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
            elif held.size <= self._small:
                self._send_chunks(held, want, requester, now)
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
        """Send small documents to the member ``to`` within its allowance.

        Each frame carries as many documents as fit.
        """
        # A list of more than 15 documents has a longer length field.
        empty = self._out.codec.size_of(Documents(())) + 4
        batch: list[Document] = []
        used = empty
        for document in documents:
            if not self._may_send(document.size, to, now):
                continue
            size = self._out.codec.size_of(Documents((document,))) + 4 - empty
            if batch and used + size > self._frame_bytes:
                self._out.send(Documents(tuple(batch)), to, now)
                batch, used = [], empty
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
        """Take ``size`` bytes of a document, plus overhead, from the allowance of ``to``.

        Return False if the allowance is used up.
        """
        most = _BYTES + _SHARE * (self._table.bytes + _OVERHEAD * len(self._table))
        wanted = max(0, size) + _OVERHEAD
        if self._sent.take(to, wanted, most, now) == wanted:
            return True
        self._out.count("documents_withheld")
        return False

    def chunk_bytes(self, head: Document) -> int:
        """Number of bytes of a document's value that one chunk carries.

        Sender and receiver compute the same number from ``head``.
        """
        return self._frame_bytes - self._out.codec.size_of(Chunk(head, 1 << 32, bytes(32), 1 << 32, b"")) - 8

    def is_large(self, item: Document | Entry) -> bool:
        """Whether a document is so large that this node sends it in chunks."""
        # A member that knows only the entry of a signed document may expect a small document, and gets chunks.
        signature = item.signature if isinstance(item, Document) else None
        return item.size + (signature.room if signature is not None else 0) > self._small
