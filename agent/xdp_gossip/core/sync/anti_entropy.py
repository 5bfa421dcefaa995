# SPDX-License-Identifier: MIT
"""Anti-entropy: two members compare digests and sync the differences (PekoNode's swap; Demers et al. 1987).

If both members have equal NodeLists and documents, a sync costs one request and one response. Two members find the
differing documents in several steps: they compare their documents digests, the digests of 256 buckets, and the entries
of the buckets that differ. Finally each member fetches the documents that it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Callable

from ..documents.metadata import Metadata
from ..documents.table import BUCKETS, bucket_of, entry_of
from ..events import SwapAnswered, SwapRequested, Warned
from ..members.membership import Membership
from ..members.peer import Peer
from ..members.timing import Timing
from ..messages import (
    Announce,
    Documents,
    Entry,
    ListRequest,
    ListResponse,
    SyncRequest,
    SyncResponse,
)
from ..outbox import Local, Outbox
from ..packets import RUMORS
from ..received import Received
from ..types import Address, Document, Now, State
from .allowance import Allowance
from .catchup import CatchUp
from .fetch import Fetcher
from .nodelists import NodeLists, halves
from .supply import Supply

#: Maximum number of documents for which a response lists all entries at once, without bucket digests.
FEW_DOCUMENTS = 32
#: Maximum bytes of documents that this node pushes at once to a member that lacks them. This node only announces
#: further documents, and the member fetches the announced documents at its own pace.
PUSH_BYTES = 64 * 1024
#: Maximum bytes of announcements that this node sends at once to one member. If the member still lacks documents
#: afterwards, its documents digest still differs, so the member requests an entry list.
ANNOUNCE_BYTES = 64 * 1024
#: With ``BUSY`` or more pending fetches, this member neither requests nor sends entry lists, because most entries are
#: already in flight. Even then, one list every ``_BUSY_LISTS`` seconds is allowed, because the pending fetches may
#: never end: a malicious member can list documents that do not exist.
BUSY, _BUSY_LISTS = 256, 10.0
#: KNOWN: maximum number of state hashes in one list request; the answer omits the documents with these hashes.
#: MOSTLY_EQUAL: if more buckets than this number differ, probably most documents differ, so the list request contains
#: no hashes.
KNOWN = 512
MOSTLY_EQUAL = 192
#: Maximum bytes on the wire of one state hash, and of one entry without its key.
_HASH_BYTES = 9
_ENTRY_BYTES = 112
#: A member gets at most _ENTRIES list entries in each window of its allowance, plus four list entries for each document
#: of this node.
_ENTRIES = 4096
#: Seconds within which a member answers a request if no datagram is lost.
_ANSWER_WITHIN = 0.5
#: If a member has left this number of requests unanswered although its heartbeats arrive, the member gets the problem
#: ``unreached``.
_UNANSWERED = 5
#: Seconds after which this node forgets an unanswered request and an incomplete entry list of a peer.
_LIST_LIFETIME = 30.0


class AntiEntropy:
    """Implements both roles in a sync: the requester and the responder."""

    def __init__(
        self,
        local: Local,
        membership: Membership,
        lists: NodeLists,
        metadata: Metadata,
        fetcher: Fetcher,
        supply: Supply,
        out: Outbox,
        timing: Timing,
        frame_bytes: int,
        catch_up: CatchUp,
    ) -> None:
        self._local = local
        self._membership = membership
        self._lists = lists
        self._metadata = metadata
        self._fetcher = fetcher
        self._supply = supply
        self._out = out
        self._timing = timing
        self._frame_bytes = frame_bytes
        self._catch_up = catch_up
        self.on_alias: Callable[[Address, Address], None] = lambda given, own: None
        # nonce of a sync request -> destination of the request, time of the request
        self._open: dict[int, tuple[Address, float]] = {}
        self._entries = Allowance()
        # Per address: time of the first unanswered request, number of unanswered requests.
        self._silent: dict[Address, tuple[float, int]] = {}
        self._asked: dict[Address, float] = {}  # Member -> time of the last request for entries.
        self._listed_at = {"asked": -math.inf, "told": -math.inf}
        #: For each member and bucket: the keys of this node's documents that the member has listed so far. A list of
        #: entries may arrive in several messages.
        self._seen: dict[tuple[Address, int], tuple[set[str], float]] = {}

    @property
    def documents_digest(self) -> int:
        """This node's documents digest."""
        return self._metadata.table.digest

    # -- the asking side ---------------------------------------------------------------------------------------

    def request(self, to: Address, now: Now) -> None:
        """Open a sync with the node ``to`` by sending a sync request."""
        nonce = self._out.rng.getrandbits(63)
        self._open[nonce] = (to, now.mono)
        request = SyncRequest(nonce, self._lists.digest, self._lists.overdue(now))
        self._out.send(request, to, now, reliable=self._stays_silent(to, now))
        self._out.emit(SwapRequested(self._local.address, to))

    def _stays_silent(self, to: Address, now: Now) -> bool:
        """Count one more request that this node sends to the member ``to``.

        Return True if the request should go over TCP, because ``to`` has not answered earlier requests. If a member
        that is alive answers no request for a while, the method gives the member the problem ``unreached``.
        """
        since, asked = self._silent.get(to, (now.mono, 0))
        self._silent[to] = (since, asked + 1)
        peer = self._membership.get(to)
        if peer is None or peer.liveness.state is not State.ALIVE:
            return False
        vain = asked >= _UNANSWERED and now.mono - since > self._timing.timeout and self._out.reaches(to)
        if vain and peer.mark("unreached", True):
            self._out.count("members_unreached")
            text = (
                f"node {to} is heard and answers nothing, {asked} requests by now: it does not get what is sent to the "
                "address that it tells (a security group, a firewall, NAT without a forwarded port)"
            )
            self._out.emit(Warned("unreached", text))
        return now.mono - since > _ANSWER_WITHIN

    def on_response(self, response: SyncResponse, packet: Received) -> None:
        """Merge the members and entries of a response.

        Send the responder the member data and documents that the responder lacks.
        """
        peer, now = packet.peer, packet.now
        opened = self._open.get(response.nonce)
        if opened is None:
            self._out.count("rx_unasked_response")
            return
        self._silent.pop(opened[0], None)
        peer.mark("unreached", False)
        self._forget_alias(opened[0], peer)
        self._out.emit(SwapAnswered(self._local.address, peer.address))
        self._lists.on_response(response, packet)
        if response.entries_complete:
            self._catch_up.compared(peer, self._compare(response.entries, range(BUCKETS), peer.address, now))
        elif response.buckets:
            own = halves(self._metadata.table.buckets, response.nonce)
            differing = tuple(i for i, digest in enumerate(response.buckets) if digest != own[i])
            if differing and not self._busy("asked", now):
                self._catch_up.compared(peer, (), differing)
                self._ask_for_lists(differing, peer.address, now)

    def _busy(self, what: str, now: Now) -> bool:
        """Whether so many fetches are pending that this node must not request or send an entry list.

        ``what``: "asked" if this node would request an entry list, "told" if this node would send one. Before the
        method returns False, it stores the present time as the time of the last such list.
        """
        if len(self._fetcher) >= BUSY and now.mono - self._listed_at[what] < _BUSY_LISTS:
            return True
        self._listed_at[what] = now.mono
        return False

    def _ask_for_lists(self, buckets: tuple[int, ...], peer: Address, now: Now) -> None:
        self._asked[peer] = now.mono
        if len(buckets) > MOSTLY_EQUAL:
            self._out.send(ListRequest(buckets), peer, now)
            return
        asked: list[int] = []
        known: list[int] = []
        for bucket in buckets:
            hashes = [document.state_hash for document in self._metadata.table.in_bucket(bucket)]
            if len(hashes) > KNOWN:
                self._out.send(ListRequest((bucket,)), peer, now)
                continue
            if asked and len(known) + len(hashes) > KNOWN:
                self._out.send(ListRequest(tuple(asked), tuple(known)), peer, now)
                asked, known = [], []
            asked.append(bucket)
            known.extend(hashes)
        if asked:
            self._out.send(ListRequest(tuple(asked), tuple(known)), peer, now)

    def _forget_alias(self, asked: Address, peer: Peer) -> None:
        """Remove ``asked`` from the NodeList if it is an alias of ``peer``, which answered a request to ``asked``.

        An alias is a seed address of a node that differs from the address which the node itself uses.
        """
        alias = self._membership.get(asked)
        if asked != peer.address and alias is not None and not alias.heard:
            self._membership.forget(alias)
            self.on_alias(asked, peer.address)

    def answered(self, nonce: int) -> bool:
        """Whether ``nonce`` belongs to a sync that this node opened.

        A packet with the nonce of an open sync cannot be a replayed recording. The origin of the answer may differ from
        the destination of the request, because a node can have several addresses, and a seed may be any of these
        addresses.
        """
        return nonce in self._open

    def on_list(self, response: ListResponse, packet: Received) -> None:
        """Fetch the listed documents that this node lacks, and send documents that the sender lacks.

        The method rejects the list if this node has not requested an entry list from the sender in the last 30 s.
        """
        peer, now = packet.peer, packet.now
        if peer.address not in self._asked:
            self._out.count("rx_unasked_response")
            return
        owed: list[Entry] = []
        for entry in response.entries:
            # store only keys of documents that this node has, so that a malicious member cannot fill our memory
            if entry.key in self._metadata.table:
                seen, _ = self._seen.setdefault((peer.address, bucket_of(entry.key)), (set(), now.mono))
                seen.add(entry.key)
            if self._take_entry(entry, peer.address, now):
                owed.append(entry)
        self._catch_up.listed(peer, owed, response.finished)
        lacking: list[Document] = []
        for bucket in response.finished:
            seen, _ = self._seen.pop((peer.address, bucket), (set(), 0.0))
            lacking.extend(self._unknown_to_peer(seen, bucket, response.unknown))
        self._give(lacking, peer.address, now)
        self._fetcher.pump(now)

    def tick(self, now: Now) -> None:
        """Forget requests that got no answer within 30 s, and entry lists that stayed incomplete for 30 s."""
        self._lists.tick(now)
        self._open = {nonce: item for nonce, item in self._open.items() if now.mono - item[1] < _LIST_LIFETIME}
        for to, (since, _) in list(self._silent.items()):
            peer = self._membership.get(to)
            if (peer is None or peer.liveness.state is not State.ALIVE) and now.mono - since > _LIST_LIFETIME:
                del self._silent[to]
                if peer is not None:
                    peer.mark("unreached", False)
        self._asked = {to: when for to, when in self._asked.items() if now.mono - when < _LIST_LIFETIME}
        self._seen = {key: item for key, item in self._seen.items() if now.mono - item[1] < _LIST_LIFETIME}

    # -- the answering side ------------------------------------------------------------------------------------

    def on_request(self, request: SyncRequest, packet: Received) -> None:
        """Answer a sync request with a response, and with the NodeList if the digests of the NodeLists differ."""
        requester, now = packet.origin, packet.now
        self._out.emit(SwapRequested(requester, self._local.address))
        table = self._metadata.table
        entries: tuple[Entry, ...] = ()
        buckets: tuple[int, ...] = ()
        complete = False
        # While many fetches are pending, this member sends no list. When the fetched documents have arrived, this
        # member opens a sync itself.
        if packet.header.documents_digest != table.digest and not self._busy("told", now):
            complete = len(table) <= FEW_DOCUMENTS
            if complete:
                entries = tuple(entry for _, group in table.entries() for entry in group)
                complete = self._out.codec.size_of(SyncResponse(0, (), False, entries)) <= self._frame_bytes // 2
            if not complete:
                entries, buckets = (), halves(table.buckets, request.nonce)
        response = replace(
            self._lists.answer(request, now), entries=entries, entries_complete=complete, buckets=buckets
        )
        self._out.send(response, requester, now)
        if response.want_members:
            self._lists.send_all(requester, now)
        self._out.emit(SwapAnswered(requester, self._local.address))

    def on_list_request(self, request: ListRequest, packet: Received) -> None:
        """Send the entries of the requested buckets, in as many frames as necessary."""
        requester, now = packet.origin, packet.now
        table = self._metadata.table
        buckets = sorted(set(request.buckets))
        wanted = sum(table.size_of_bucket(bucket) for bucket in buckets) + len(buckets)
        if self._entries.take(requester, wanted, _ENTRIES + 4 * len(table), now) < wanted:
            self._out.count("entry_lists_withheld")
            return
        known = set(request.known[:KNOWN])
        held = {document.state_hash for bucket in buckets for document in table.in_bucket(bucket)} if known else set()
        unknown = tuple(sorted(known - held)) if known else None
        batch: list[Entry] = []
        finished: list[int] = []
        room = self._frame_bytes - 1024 - _HASH_BYTES * len(unknown or ())
        used = 0
        for bucket in buckets:
            for document in table.in_bucket(bucket):
                if document.state_hash in known:
                    continue
                size = len(document.key.encode()) + _ENTRY_BYTES
                if batch and used + size > room:
                    self._out.send(ListResponse(tuple(batch), tuple(finished), unknown), requester, now)
                    batch, finished, used = [], [], 0
                batch.append(entry_of(document))
                used += size
            finished.append(bucket)
        self._out.send(ListResponse(tuple(batch), tuple(finished), unknown), requester, now)

    def on_documents(self, message: Documents, packet: Received) -> None:
        """Apply whole documents from a rumor, an answer or a push.

        If an answer or a push contains a document whose deletion this member remembers, the method sends back the
        tombstone.
        """
        documents = message.documents
        if packet.header.type not in RUMORS:
            documents = tuple(d for d in documents if not self._buried(entry_of(d), packet.origin, packet.now))
        self._fetcher.take(documents, packet.origin, packet.now)

    def on_announce(self, announce: Announce, packet: Received) -> None:
        """Fetch newer documents from the member that announced them or the member that relayed the announcement."""
        origin, source = packet.origin, packet.source
        relay = self._membership.get(source)
        for holder in [origin] if relay is None or source == origin else [source, origin]:
            for entry in announce.entries:
                if not self._buried(entry, holder, packet.now):
                    self._fetcher.want(entry, holder, packet.now)
        self._fetcher.pump(packet.now)

    # -- documents ---------------------------------------------------------------------------------------------

    def _compare(self, entries: Iterable[Entry], buckets: Iterable[int], peer: Address, now: Now) -> list[Entry]:
        """Compare ``entries``, the complete list of ``peer`` for ``buckets``, with this node's documents.

        Fetches the documents that are newer at ``peer``, and sends documents that ``peer`` lacks. Returns the entries
        that are being fetched.
        """
        seen = set()
        owed = []
        for entry in entries:
            seen.add(entry.key)
            if self._take_entry(entry, peer, now):
                owed.append(entry)
        unknown = [d for bucket in buckets for d in self._unknown_to_peer(seen, bucket)]
        self._give(unknown, peer, now)
        self._fetcher.pump(now)
        return owed

    def _take_entry(self, entry: Entry, peer: Address, now: Now) -> bool:
        """Compare one entry of ``peer`` with this node's version.

        Fetch the peer's version or send this node's version, whichever is newer. Returns whether the entry is being
        fetched.
        """
        held = self._metadata.table.get(entry.key)
        if self._buried(entry, peer, now):
            return False
        if self._metadata.outranked_by(entry, now):
            self._fetcher.want(entry, peer, now)
        elif held is not None and held.rank != entry.rank and not self._metadata.awaited(entry):
            self._give([held], peer, now)
        return entry.key in self._fetcher or self._metadata.awaited(entry)

    def _buried(self, entry: Entry, peer: Address, now: Now) -> bool:
        """If ``peer`` offers a document that was deleted long ago, send ``peer`` the tombstone and return True."""
        tombstone = self._metadata.buried(entry, now)
        if tombstone is not None:
            self._give([tombstone], peer, now)
        return tombstone is not None

    def _unknown_to_peer(self, seen: set[str], bucket: int, unknown: Iterable[int] | None = None) -> list[Document]:
        """Documents in ``bucket`` that a peer lacks.

        The peer lacks a document if ``seen``, the set of the keys that the peer listed, does not contain the key of the
        document. ``unknown``: the state hashes that the peer reported as unknown. If ``unknown`` is given, the method
        returns only documents with these state hashes.
        """
        lacking = [document for document in self._metadata.table.in_bucket(bucket) if document.key not in seen]
        if unknown is None:
            return lacking
        hashes = set(unknown)
        return [document for document in lacking if document.state_hash in hashes]

    def _give(self, documents: list[Document], to: Address, now: Now) -> None:
        """Push the small ones of ``documents`` to ``to``, up to ``PUSH_BYTES`` in total, and announce the others."""
        pushed: list[Document] = []
        announced: list[Entry] = []
        budget = PUSH_BYTES
        for document in documents:
            if self._supply.is_large(document) or document.size > budget:
                announced.append(entry_of(document))
            else:
                budget -= document.size
                pushed.append(document)
        self._supply.push(pushed, to, now)
        self._announce(announced, to, now)

    def _announce(self, entries: list[Entry], to: Address, now: Now) -> None:
        batch: list[Entry] = []
        used = total = 0
        for entry in entries:
            size = len(entry.key.encode()) + _ENTRY_BYTES
            if batch and used + size > self._frame_bytes - 1024:
                self._out.send(Announce(tuple(batch)), to, now)
                batch, used = [], 0
            if total + size > ANNOUNCE_BYTES:
                break
            batch.append(entry)
            used += size
            total += size
        if batch:
            self._out.send(Announce(tuple(batch)), to, now)
