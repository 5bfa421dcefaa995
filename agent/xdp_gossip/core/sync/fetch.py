# SPDX-License-Identifier: MIT
"""Fetches documents from other members.

A request is for several small documents, or for a part (window) of a large document. The holders of a document are the
members that have it. The sender of an announcement or of a list is a holder of each document in the announcement or
list. A member with the same documents digest as a holder is also a holder. The class :class:`Fetcher` sends requests to
several holders in parallel. If a holder does not answer, the class sends the request to another holder.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ..documents.metadata import Metadata
from ..members.membership import Membership
from ..messages import Chunk, Entry, FetchRequest, NotHere, Want
from ..outbox import Outbox
from ..received import Received
from ..signers import Verified
from ..types import Address, Document, Now
from .reassembly import Reassembly
from .supply import CHUNKS, REQUEST_WANTS, Supply

#: Maximum bytes of documents in one request. This node sends a holder a new request only while the open requests to the
#: holder ask for fewer bytes than this number. Therefore less than twice this number of bytes is in flight from one
#: holder. The limit bounds the holder's queue (transport/streams.py) and our memory.
REQUEST_BYTES = 256 * 1024
#: Maximum number of holders with open requests for any documents, and maximum number of holders with open requests for
#: the same large document.
MAX_HOLDERS = 8
MAX_WINDOWS = 4
#: Maximum number and maximum total bytes of the large documents that are reassembled at the same time. A single
#: document may exceed ``BUFFER_BYTES``, so that this node can fetch documents of any size.
MAX_LARGE = 4
BUFFER_BYTES = 32 * 1024 * 1024
#: RETRY: seconds without progress after which a request goes to another holder. TRIES: number of failed requests for a
#: document after which this node stops requesting the document until the next sync. SLOW: seconds for which this node
#: avoids a holder that was too slow.
RETRY = 1.0
TRIES = 6
SLOW = 5.0
#: Seconds until this node requests a document again from a member that lacked it. The member may have relayed the
#: document's announcement before it had the document itself.
NOT_HERE = 0.1
#: If all holders have as many open requests as allowed, this node sends no new requests for this number of seconds. The
#: pause ends early if an open request is answered or canceled.
STALLED = 0.05
#: Seconds after which the index that maps a documents digest to its members is built again.
_TWINS_AGE = 0.5


@dataclass
class _Asked:
    """An open request to one holder: for a small document of ``bytes`` bytes, or chunks ``begin`` to ``end`` - 1."""

    bytes: int
    begin: int
    end: int
    due: float


class _Wanted:
    """A document to fetch, with its known holders and its open requests."""

    __slots__ = ("entry", "teller", "holders", "asked", "reassembly", "head", "header", "due", "tries", "absent")

    def __init__(self, entry: Entry, holder: Address) -> None:
        self.entry = entry
        self.teller = holder
        self.holders: deque[Address] = deque([holder], maxlen=8)
        self.asked: dict[Address, _Asked] = {}
        self.reassembly: Reassembly | None = None
        self.head: Document | None = None
        self.header = holder  # the member that sent ``head``, and that is to blame if its signature is wrong
        self.due = 0.0
        self.tries = 0
        self.absent: set[Address] = set()  # members that have reported that they do not have the document


class _Load:
    """Documents and bytes in open requests to one holder, and the time when the holder last sent a document."""

    __slots__ = ("wants", "bytes", "heard")

    def __init__(self) -> None:
        self.wants = self.bytes = 0
        self.heard = 0.0

    @property
    def room(self) -> bool:
        return self.wants < REQUEST_WANTS and self.bytes < REQUEST_BYTES


class Fetcher:
    """Requests missing documents from their holders, and reassembles large documents."""

    def __init__(
        self, metadata: Metadata, out: Outbox, supply: Supply, membership: Membership, max_documents: int
    ) -> None:
        self._metadata = metadata
        self._out = out
        self._supply = supply
        self._membership = membership
        self._wanted: dict[str, _Wanted] = {}
        # For each member: a queue with the keys of the documents that this member was the first to name, without the
        # documents that have an open request. Because each member has its own queue, many documents named by one member
        # do not delay the documents named by others.
        self._queues: dict[Address, dict[str, None]] = {}
        self._flying: dict[str, _Wanted] = {}  # Wanted documents with open requests.
        self._large: dict[str, _Wanted] = {}  # Large documents that are being reassembled.
        self._loads: dict[Address, _Load] = {}
        self._slow: dict[Address, float] = {}  # slow holder -> time until which this node avoids it
        self._twins: dict[int, list[Address]] = {}
        self._twins_at = float("-inf")
        self._most = max_documents
        self._stalled_until = float("-inf")

    def __len__(self) -> int:
        return len(self._wanted)

    def __contains__(self, key: str) -> bool:
        return key in self._wanted

    # -- the asking side ---------------------------------------------------------------------------------------

    def want(self, entry: Entry, holder: Address, now: Now) -> None:
        """Request the document version of ``entry``, which ``holder`` has, at the next :meth:`pump`."""
        if not self._metadata.outranked_by(entry, now) or self._metadata.refuses(entry, now, holder):
            return
        if self._metadata.has_refused(entry, holder):
            self._out.count("documents_refused_signature")
            return
        wanted = self._wanted.get(entry.key)
        if wanted is None or entry.rank > wanted.entry.rank:
            self._replace(_Wanted(entry, holder))
        elif entry.rank == wanted.entry.rank:
            wanted.absent.discard(holder)
            if holder not in wanted.holders:
                wanted.holders.append(holder)

    def pump(self, now: Now) -> None:
        """Send as many requests as the limits on open requests allow."""
        for wanted in list(self._large.values()):
            if wanted.asked:
                self._ask_windows(wanted, now)
        if now.mono < self._stalled_until:
            return
        batches: dict[Address, list[_Wanted]] = {}
        misses: Counter[Address] = Counter()
        owed: Counter[Address] = Counter()
        # Holders of documents for which no request has room now. Requests that this call sends make no more room.
        full: set[tuple[Address, ...]] = set()
        for teller, keys in self._first_queued():
            for key in keys:
                if misses[teller] >= REQUEST_WANTS:
                    break
                wanted = self._wanted[key]
                if wanted.due > now.mono:
                    continue
                if self._supply.is_large(wanted.entry):
                    if self._may_open(wanted):
                        self._large[key] = wanted
                        self._ask_windows(wanted, now)
                    continue
                # An open request, or an answer that a member lacks the document, excludes holders of this one only.
                alike = () if wanted.asked or wanted.absent else tuple(wanted.holders)
                holder = None if alike in full else self._choose(wanted, now, batches)
                if holder is None:
                    misses[teller] += 1
                    if alike:
                        full.add(alike)
                    continue
                batch = batches.setdefault(holder, [])
                batch.append(wanted)
                self._note(wanted, holder, wanted.entry.size, 0, 0, now)
                owed[holder] += wanted.entry.size
                if len(batch) >= REQUEST_WANTS or owed[holder] >= REQUEST_BYTES:
                    self._request(holder, batches.pop(holder), now)
                    del owed[holder]
        for holder, batch in batches.items():
            self._request(holder, batch, now)
        if misses and max(misses.values()) >= REQUEST_WANTS:
            self._stalled_until = now.mono + STALLED

    def _first_queued(self) -> list[tuple[Address, list[str]]]:
        """Return the keys of some queued documents of each of some members, as many as the limits allow to request now.

        The method does not iterate over all queues, which would take too long.
        """
        tellers = list(islice(self._queues, MAX_HOLDERS))
        share = MAX_HOLDERS * 2 * REQUEST_WANTS // max(1, len(tellers))
        found = [(teller, list(islice(self._queues[teller], share))) for teller in tellers]
        for teller in tellers if len(self._queues) > MAX_HOLDERS else ():
            # rotate the queues, so that the next call starts with another queue
            self._queues[teller] = self._queues.pop(teller)
        return found

    def tick(self, now: Now) -> None:
        """Cancel requests that made no progress, and request their documents from other holders."""
        for wanted in list(self._flying.values()):
            for holder, asked in list(wanted.asked.items()):
                if now.mono >= asked.due and now.mono - self._load(holder).heard >= RETRY:
                    self._slow[holder] = now.mono + SLOW
                    self._out.count("fetches_late")
                    self._release(wanted, holder)
                    self._failed(wanted, 0.0, now)
        self._slow = {holder: until for holder, until in self._slow.items() if until > now.mono}
        if self._wanted:
            self.pump(now)
        else:
            self._loads.clear()

    def take(self, documents: Sequence[Document], holder: Address, now: Now) -> None:
        """Apply whole documents that ``holder`` sent as an answer or as a push."""
        for document, verified in zip(documents, self._metadata.verify(documents)):
            self._take(document, holder, now, verified)
        if self._wanted:
            self.pump(now)

    def on_chunk(self, chunk: Chunk, packet: Received) -> None:
        """Add a chunk to the large document to which it belongs."""
        holder, now = packet.origin, packet.now
        head = chunk.head
        wanted = self._wanted.get(head.key)
        if wanted is None:
            self._out.count("chunks_unwanted")
            return
        rank = (head.version, head.deleted, chunk.content_hash)
        if rank > wanted.entry.rank:  # a newer version reached the holder after we sent our request
            entry = Entry(head.key, head.version, head.deleted, chunk.content_hash, chunk.size)
            if chunk.offset == 0 and not self._metadata.refuses(entry, now, holder):
                wanted = _Wanted(entry, holder)
                self._replace(wanted)
                self._large[head.key] = wanted
                self._note(wanted, holder, REQUEST_BYTES, 0, CHUNKS, now)
        if rank != wanted.entry.rank or chunk.size != wanted.entry.size:
            self._out.count("chunks_unwanted")
            return
        if wanted.reassembly is None:
            wanted.head, wanted.header = head, holder
            wanted.reassembly = Reassembly(chunk.size, self._supply.chunk_bytes(head))
        reassembly = wanted.reassembly
        fresh = reassembly.put(chunk.offset, chunk.data)
        if not fresh:
            self._out.count("chunks_unwanted" if fresh is None else "chunks_again")
            return
        wanted.tries = 0
        asked = wanted.asked.get(holder)
        if asked is not None:
            asked.due = now.mono + RETRY
            self._load(holder).heard = now.mono
        if not reassembly.left:
            self._complete(wanted, reassembly, now)
        elif asked is not None and reassembly.gap(asked.begin, min(asked.end, reassembly.count)) is None:
            self._release(wanted, holder)
            self._ask_windows(wanted, now)
            self._settle(wanted)

    def on_not_here(self, message: NotHere, packet: Received) -> None:
        """Record that a member lacks documents, and request these documents again a moment later.

        The member may have relayed the announcement of a document before it fetched that document itself.
        """
        holder, now = packet.origin, packet.now
        for key in message.keys:
            wanted = self._wanted.get(key)
            if wanted is not None and holder in wanted.asked:
                wanted.absent.add(holder)
                self._release(wanted, holder)
                self._failed(wanted, NOT_HERE, now)
        self.pump(now)

    # -- whom to ask -------------------------------------------------------------------------------------------

    def _choose(self, wanted: _Wanted, now: Now, batches: dict[Address, list[_Wanted]] | None = None) -> Address | None:
        """The best holder for a request.

        If the unsent request to a holder has room, the method chooses this holder, otherwise the holder with the fewest
        bytes in flight. The method chooses a slow holder only if there is no other holder. Returns None if every holder
        has its maximum of open requests.
        """
        best: tuple[bool, int, float] | None = None
        chosen: Address | None = None
        busy = sum(load.wants > 0 and other not in self._slow for other, load in self._loads.items())
        for holder in self._candidates(wanted, now):
            load = self._load(holder)
            filling = batches is not None and holder in batches
            if holder in wanted.asked or not (filling or load.room) or (busy >= MAX_HOLDERS and not load.wants):
                continue
            if filling and holder not in self._slow:
                return holder
            score = (holder in self._slow, load.bytes, self._out.rng.random())
            if best is None or score < best:
                best, chosen = score, holder
        return chosen

    def _candidates(self, wanted: _Wanted, now: Now) -> list[Address]:
        if now.mono - self._twins_at >= _TWINS_AGE:
            self._twins_at = now.mono
            self._twins = {}
            for member in self._membership:
                if member.present:
                    self._twins.setdefault(member.sync.documents_digest, []).append(member.address)
        found = dict.fromkeys(wanted.holders)
        for holder in wanted.holders:
            peer = self._membership.get(holder)
            if peer is not None and len(found) < 2 * MAX_HOLDERS:
                found.update(dict.fromkeys(self._twins.get(peer.sync.documents_digest, ())[: 2 * MAX_HOLDERS]))
        able = [holder for holder in found if holder not in wanted.absent]
        if not able:
            wanted.absent.clear()
        return able or list(found)

    def _may_open(self, wanted: _Wanted) -> bool:
        """Whether the limits allow this node to reassemble ``wanted`` together with the other large documents."""
        others = [item for key, item in self._large.items() if key != wanted.entry.key]
        total = sum(item.entry.size for item in others) + wanted.entry.size
        return not others or (len(others) < MAX_LARGE and total <= BUFFER_BYTES)

    def _load(self, holder: Address) -> _Load:
        load = self._loads.get(holder)
        if load is None:
            load = self._loads[holder] = _Load()
        return load

    # -- requests ----------------------------------------------------------------------------------------------

    def _ask_windows(self, wanted: _Wanted, now: Now) -> None:
        """Request the missing windows of a large document, except windows in open requests.

        Each window is requested from a different holder.
        """
        reassembly = wanted.reassembly
        while len(wanted.asked) < MAX_WINDOWS:
            begin = 0
            if reassembly is not None:
                gap = self._next_gap(wanted, reassembly)
                if gap is None:
                    return
                begin = gap
            elif wanted.asked:
                return  # the number and the length of the chunks are unknown until the first chunk arrives
            holder = self._choose(wanted, now)
            if holder is None:
                return
            self._note(wanted, holder, REQUEST_BYTES, begin, begin + CHUNKS, now)
            offset = begin * reassembly.step if reassembly is not None else 0
            self._out.send(FetchRequest((Want(wanted.entry.key, wanted.entry.version, offset),)), holder, now)

    @staticmethod
    def _next_gap(wanted: _Wanted, reassembly: Reassembly) -> int | None:
        """Index of the first missing chunk that no open request covers; None if there is no such chunk."""
        at = 0
        for asked in sorted(wanted.asked.values(), key=lambda item: item.begin):
            gap = reassembly.gap(at, asked.begin) if at < asked.begin else None
            if gap is not None:
                return gap
            at = max(at, asked.end)
        return reassembly.gap(at, reassembly.count)

    def _request(self, holder: Address, batch: list[_Wanted], now: Now) -> None:
        wants = tuple(Want(wanted.entry.key, wanted.entry.version) for wanted in batch)
        # A repeated request goes over TCP, because a datagram with the first request or with its answer was lost. The
        # answer to a request over TCP also comes over TCP.
        again = any(wanted.tries for wanted in batch)
        self._out.send(FetchRequest(wants), holder, now, reliable=again)

    def _note(self, wanted: _Wanted, holder: Address, size: int, begin: int, end: int, now: Now) -> None:
        load = self._load(holder)
        load.wants += 1
        load.bytes += size
        wanted.asked[holder] = _Asked(size, begin, end, now.mono + RETRY)
        self._settle(wanted)

    def _release(self, wanted: _Wanted, holder: Address) -> None:
        asked = wanted.asked.pop(holder)
        load = self._load(holder)
        load.wants -= 1
        load.bytes -= asked.bytes
        self._stalled_until = float("-inf")

    def _settle(self, wanted: _Wanted) -> None:
        """Move ``wanted`` to ``_flying`` if there is an open request for it, otherwise move it to its queue."""
        key = wanted.entry.key
        if self._wanted.get(key) is not wanted:
            return
        if wanted.asked:
            self._unqueue(wanted)
            self._flying[key] = wanted
        else:
            self._flying.pop(key, None)
            if wanted.teller not in self._queues:
                self._stalled_until = float("-inf")
            self._queues.setdefault(wanted.teller, {}).setdefault(key)

    def _unqueue(self, wanted: _Wanted) -> None:
        queue = self._queues.get(wanted.teller)
        if queue is not None:
            queue.pop(wanted.entry.key, None)
            if not queue:
                del self._queues[wanted.teller]

    def _failed(self, wanted: _Wanted, delay: float, now: Now) -> None:
        if wanted.asked:
            return  # the node still waits for another holder's answer to a request for the document
        wanted.due = now.mono + delay
        wanted.tries += 1
        self._settle(wanted)
        if wanted.tries >= TRIES:
            self._drop(wanted)
            self._out.count("fetches_given_up")

    def _replace(self, wanted: _Wanted) -> None:
        former = self._wanted.get(wanted.entry.key)
        if former is not None:
            self._drop(former)
        elif len(self._wanted) >= self._most:
            # Stop fetching one document that was named by the member that named the most documents. This node wants
            # more documents than the cluster can have, so some of the wanted documents do not exist.
            queue = max(self._queues.values(), key=len, default=None)
            self._drop(self._wanted[next(iter(queue or self._wanted))])
            self._out.count("fetches_dropped")
        self._wanted[wanted.entry.key] = wanted
        self._settle(wanted)

    def _drop(self, wanted: _Wanted) -> None:
        for holder in list(wanted.asked):
            self._release(wanted, holder)
        key = wanted.entry.key
        self._unqueue(wanted)
        for place in (self._wanted, self._flying, self._large):
            place.pop(key, None)

    def _take(self, document: Document, holder: Address, now: Now, verified: Verified = None) -> None:
        self._metadata.apply(document, now, holder, verified)
        wanted = self._wanted.get(document.key)
        if wanted is None:
            return
        # The next sync names other holders. What a member sends unasked must not end the fetch from another one.
        forged = holder in wanted.asked and self._metadata.has_refused(wanted.entry, holder)
        if forged or not self._metadata.outranked_by(wanted.entry, now):
            if holder in wanted.asked:
                self._load(holder).heard = now.mono
            self._drop(wanted)

    def _complete(self, wanted: _Wanted, reassembly: Reassembly, now: Now) -> None:
        if reassembly.digest() != wanted.entry.content_hash or wanted.head is None:
            self._drop(wanted)
            self._out.count("fetches_corrupt")
            return
        document = replace(wanted.head, value=reassembly.value())
        # The value was hashed while its chunks arrived. Hashing the value again here would block the engine for a
        # while.
        document.__dict__["content_hash"] = wanted.entry.content_hash
        self._take(document, wanted.header, now)
        if self._wanted.get(document.key) is wanted:
            self._drop(wanted)  # refused: the next sync names other holders
        self.pump(now)
