# SPDX-License-Identifier: MIT
"""Pulling documents that others hold: small ones many at a time, large ones in chunks, resumed from any holder."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import replace

from .messages import Chunk, Documents, Entry, FetchRequest, NotHere, Want
from .metadata import Metadata
from .outbox import Outbox
from .types import Address, Document, Now

#: Bytes that one request may ask for, and chunks that answer one request: what may be in flight from one holder.
REQUEST_BYTES = 256 * 1024
REQUEST_WANTS = 64
CHUNKS = 16
#: Requests in flight at once, and documents in chunks among them: bounds the memory of a catch-up.
MAX_IN_FLIGHT = 256
MAX_LARGE = 4
#: Seconds after which an unanswered request goes to another holder, and tries before it is left to the next exchange.
RETRY = 1.0
TRIES = 6


class _Wanted:
    """A document on its way here."""

    __slots__ = ("entry", "holders", "buffer", "early", "batch_end", "head", "due", "tries", "in_flight")

    def __init__(self, entry: Entry, holder: Address) -> None:
        self.entry = entry
        self.holders: deque[Address] = deque([holder], maxlen=8)
        self.buffer = bytearray()  # what arrived without a gap
        self.early: dict[int, bytes] = {}  # pieces behind a gap, by offset
        self.batch_end = 0
        self.head: Document | None = None
        self.due = 0.0
        self.tries = 0
        self.in_flight = False


class Fetcher:
    """Asks for what is wanted and puts the pieces together."""

    def __init__(self, metadata: Metadata, out: Outbox, frame_bytes: int) -> None:
        self._metadata = metadata
        self._out = out
        self._frame_bytes = frame_bytes
        self._wanted: dict[str, _Wanted] = {}

    def __len__(self) -> int:
        return len(self._wanted)

    # -- the asking side ---------------------------------------------------------------------------------------

    def want(self, entry: Entry, holder: Address, now: Now) -> None:
        """Note that ``holder`` has a document; it is asked for by the next :meth:`pump` if we lack it."""
        if not self._metadata.outranked_by(entry, now) or self._metadata.refuses(entry, now):
            return
        wanted = self._wanted.get(entry.key)
        if wanted is None or entry.rank > wanted.entry.rank:
            self._wanted[entry.key] = _Wanted(entry, holder)
        elif entry.rank == wanted.entry.rank and holder not in wanted.holders:
            wanted.holders.append(holder)

    def pump(self, now: Now) -> None:
        """Send requests for as much as may be in flight."""
        running = [wanted for wanted in self._wanted.values() if wanted.in_flight]
        room = MAX_IN_FLIGHT - len(running)
        large_room = MAX_LARGE - sum(self.is_large(wanted.entry) for wanted in running)
        batches: dict[Address, list[_Wanted]] = {}
        for wanted in self._wanted.values():
            if room <= 0:
                break
            if wanted.in_flight or wanted.due > now.mono:
                continue
            if self.is_large(wanted.entry):
                if large_room <= 0:
                    continue
                large_room -= 1
            room -= 1
            batches.setdefault(wanted.holders[0], []).append(wanted)
        for holder, batch in batches.items():
            self._request(holder, batch, now)

    def tick(self, now: Now) -> None:
        """Turn to other holders for what did not come."""
        for wanted in list(self._wanted.values()):
            if wanted.in_flight and now.mono >= wanted.due:
                self._again(wanted, now, 0.0)
        if self._wanted:
            self.pump(now)

    def on_documents(self, message: Documents, now: Now) -> None:
        """Whole documents arrived, asked for or pushed."""
        for document in message.documents:
            self._take(document, now)
        if self._wanted:
            self.pump(now)

    def on_chunk(self, chunk: Chunk, holder: Address, now: Now) -> None:
        """A piece arrived."""
        head = chunk.head
        wanted = self._wanted.get(head.key)
        if wanted is None:
            self._out.count("chunks_unwanted")
            return
        rank = (head.version, head.deleted, chunk.content_hash)
        if rank > wanted.entry.rank:  # the holder has a newer one by now
            entry = Entry(head.key, head.version, head.deleted, chunk.content_hash, chunk.size)
            if chunk.offset == 0 and not self._metadata.refuses(entry, now):
                fresh = _Wanted(entry, holder)
                fresh.in_flight, fresh.due = True, now.mono + RETRY
                fresh.batch_end = CHUNKS * self._chunk_bytes(head)
                self._wanted[head.key] = wanted = fresh
        if rank != wanted.entry.rank or chunk.size != wanted.entry.size:
            self._out.count("chunks_unwanted")
            return
        if not wanted.batch_end:
            wanted.batch_end = len(wanted.buffer) + CHUNKS * self._chunk_bytes(head)
        if not chunk.data or not 0 <= chunk.offset - len(wanted.buffer) < REQUEST_BYTES:
            self._out.count("chunks_unwanted")
            return
        wanted.head = head
        wanted.due = now.mono + RETRY
        wanted.early[chunk.offset] = chunk.data
        while len(wanted.buffer) in wanted.early:
            wanted.buffer += wanted.early.pop(len(wanted.buffer))
            wanted.tries = 0
        if len(wanted.buffer) >= chunk.size:
            self._complete(wanted, now)
        elif len(wanted.buffer) >= wanted.batch_end:
            wanted.batch_end = len(wanted.buffer) + CHUNKS * self._chunk_bytes(head)
            self._request(holder, [wanted], now)

    def on_not_here(self, message: NotHere, now: Now) -> None:
        """The holder asked has nothing (yet): it may have relayed an announcement before it fetched the document."""
        for key in message.keys:
            wanted = self._wanted.get(key)
            if wanted is not None and wanted.in_flight:
                self._again(wanted, now, 0.1)

    def _request(self, holder: Address, batch: list[_Wanted], now: Now) -> None:
        wants: list[Want] = []
        asked = 0
        for wanted in batch:
            if wants and (len(wants) >= REQUEST_WANTS or asked + wanted.entry.size > REQUEST_BYTES):
                self._out.send(FetchRequest(tuple(wants)), holder, now)
                wants, asked = [], 0
            wanted.in_flight = True
            wanted.due = now.mono + RETRY
            asked += wanted.entry.size
            wants.append(Want(wanted.entry.key, wanted.entry.version, len(wanted.buffer)))
        if wants:
            self._out.send(FetchRequest(tuple(wants)), holder, now)

    def _again(self, wanted: _Wanted, now: Now, delay: float) -> None:
        wanted.in_flight = False
        wanted.batch_end = 0
        wanted.early.clear()
        wanted.due = now.mono + delay
        wanted.tries += 1
        wanted.holders.rotate(-1)
        if wanted.tries >= TRIES:
            del self._wanted[wanted.entry.key]
            self._out.count("fetches_given_up")

    def _take(self, document: Document, now: Now) -> None:
        self._metadata.apply(document, now)
        wanted = self._wanted.get(document.key)
        if wanted is not None and not self._metadata.outranked_by(wanted.entry, now):
            del self._wanted[document.key]

    def _complete(self, wanted: _Wanted, now: Now) -> None:
        del self._wanted[wanted.entry.key]
        value = bytes(wanted.buffer)
        if hashlib.sha256(value).digest() != wanted.entry.content_hash or wanted.head is None:
            self._out.count("fetches_corrupt")
            return
        self._take(replace(wanted.head, value=value), now)
        self.pump(now)

    # -- the answering side ------------------------------------------------------------------------------------

    def on_request(self, request: FetchRequest, requester: Address, now: Now) -> None:
        """Send what is asked for: small documents together, of a large one the next few chunks."""
        small: list[Document] = []
        missing: list[str] = []
        for want in request.wants[:REQUEST_WANTS]:
            held = self._metadata.table.get(want.key)
            if held is None or held.version < want.version:
                missing.append(want.key)
            elif self.is_large(held):
                self._send_chunks(held, want, requester, now)
            else:
                small.append(held)
        if missing:
            self._out.send(NotHere(tuple(missing)), requester, now)
        self.push(small, requester, now)

    def push(self, documents: list[Document], to: Address, now: Now) -> None:
        """Send small documents, as many to a frame as fit."""
        batch: list[Document] = []
        used = 0
        for document in documents:
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
        step = self._chunk_bytes(head)
        offset = want.offset if held.version == want.version else 0
        for start in range(offset, min(held.size, offset + CHUNKS * step), step):
            data = held.value[start : start + step]
            self._out.send(Chunk(head, held.size, held.content_hash, start, data), to, now, reliable=True)

    def _chunk_bytes(self, head: Document) -> int:
        """Bytes of value that fit a frame beside the head; the same on both sides."""
        return self._frame_bytes - self._out.codec.size_of(Chunk(head, 1 << 32, bytes(32), 1 << 32, b"")) - 8

    def is_large(self, item: Document | Entry) -> bool:
        """Whether a document travels in chunks."""
        # Entries do not tell the length of author and comment: leave room for the longest.
        return item.size > self._frame_bytes // 2
