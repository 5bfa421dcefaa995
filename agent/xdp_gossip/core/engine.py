# SPDX-License-Identifier: MIT
"""The native protocol: rumors relayed once, an exchange with a random member each cycle, silence turned into removal.

``Engine`` is a state machine without I/O (see ``interface.py``). It joins the parts: ``membership`` (who is known),
``detector`` (who is alive), ``metadata`` (the documents), ``exchange`` and ``fetch`` (anti-entropy), ``outbox``
(what leaves). Here is what a packet goes through and what happens in each cycle.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

from .contacts import Contacts
from .detector import Detector, snapshot, standing_of
from .documents import DocumentTable, entry_of
from .events import (
    Event,
    HeartbeatSent,
    IncarnationChanged,
    Joined,
    MemberChanged,
    Paused,
    QueryAnswered,
    Resumed,
    Rumor,
    Transmit,
)
from .exchange import Exchange
from .fetch import Fetcher
from .gate import Gate
from .interface import Known, ProtocolError, Settings
from .membership import Membership, Peer
from .messages import (
    FLAG_PAUSED,
    RUMORS,
    Ack,
    Announce,
    Answer,
    Chunk,
    Codec,
    Documents,
    FetchRequest,
    Header,
    IndirectAck,
    ListRequest,
    ListResponse,
    MemberList,
    Message,
    NotHere,
    PacketType,
    Ping,
    PingRequest,
    Query,
    RecordRumor,
    Records,
    RecordsRequest,
    Rejected,
    SyncRequest,
    SyncResponse,
)
from .metadata import Metadata
from .observer import Observation, Observer
from .outbox import Local, Outbox
from .pace import Pace
from .ring import RelayRing
from .timers import Timers
from .types import Address, Document, Member, Node, Now, Record, State, Version

#: Largest packet sent as a datagram: what IPv6 carries everywhere (1,280) less its and UDP's headers.
DATAGRAM_BYTES = 1232
#: What is rare and urgent goes to so many times ``amount`` members: at 50 nodes and Amount 4, one rumor in 3,000 then
#: misses anybody, instead of most of them.
WIDE = 3
WIDE_RUMORS = frozenset({PacketType.METADATA, PacketType.LEAVE})
MAX_COPIES = 64


class Engine:
    """One member of a cluster that speaks the native wire.

    ``node``: the local node. ``codec``: bytes of packets (``wire.native.NativeCodec``). ``rng``: all randomness.
    ``incarnation``: higher than in any earlier run (the store sees to that). ``agent_version`` and ``plane`` become
    part of the node's record.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        codec: Codec,
        rng: random.Random,
        incarnation: int,
        *,
        agent_version: str = "",
        plane: str = "",
    ) -> None:
        self.settings = settings
        self._rng = rng
        record = Record(node.name, node.private_data, agent_version, plane, (incarnation, 0))
        self._local = Local(node, record, incarnation)
        table = DocumentTable()
        self._out = Outbox(codec, self._local, table, rng)
        self._codec = codec
        self._membership = Membership(node.address, settings.max_nodes, rng)
        self._metadata = Metadata(node.address, settings, self._out, table)
        self._pace = Pace(settings, self._membership)
        self._detector = Detector(self._local, self._membership, self._out, self._pace)
        frame = settings.size
        self._fetcher = Fetcher(self._metadata, self._out, frame)
        self._exchange = Exchange(
            self._local, self._membership, self._detector, self._metadata, self._fetcher, self._out, self._pace, frame
        )
        self._gate = Gate(
            codec,
            self._local,
            self._membership,
            self._detector,
            self._exchange,
            self._out,
            self._pace,
            settings.max_clock_drift,
        )
        self._gate.on_accused = self._refute
        self._metadata.on_change = self._state_changed
        self._detector.on_accused = self._refute
        self._timers = Timers()
        self._contacts = Contacts(
            self._local, self._membership, self._exchange, self._out, self._pace, self._timers, rng
        )
        self._exchange.on_alias = self._contacts.answered
        self._membership.on_forget = lambda peer: self._out.emit(standing_of(peer, "forgotten"))
        self._observer = Observer(self._membership, self._detector, self._contacts, self._out, self._pace)
        self._ring = RelayRing(self._membership, rng)
        self._last_heartbeat = -math.inf
        self._next_heartbeat = math.inf
        self._next_tick = -math.inf
        self._queries: dict[int, str] = {}

    # -- what the shell reads ----------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The local node."""
        return self._local.node

    @property
    def incarnation(self) -> int:
        """The current run of the local node."""
        return self._local.incarnation

    @property
    def status(self) -> str:
        """new, running, paused or left."""
        return self._local.status

    @property
    def counters(self) -> Mapping[str, int]:
        """Counters by name."""
        return self._out.counters

    @property
    def cycle(self) -> float:
        """Seconds between two heartbeats now."""
        return self._pace.cycle

    @property
    def timeout(self) -> float:
        """Seconds of silence after which a member is suspected now (the seed's rule for its default)."""
        return self._pace.timeout

    @property
    def state_digest(self) -> int:
        """64-bit digest of all documents."""
        return self._metadata.table.digest

    @property
    def clock_offset(self) -> float:
        """Seconds that the cluster's clock is ahead of the local one."""
        return self._metadata.offset

    def members(self, now: Now) -> list[Member]:
        """Every node known, the local one first."""
        local = Member(
            self._local.address,
            State.LEFT if self.status == "left" else State.ALIVE,
            self.incarnation,
            self._out.rumor_sequence,
            self._local.record,
            0.0,
            self.state_digest,
            local=True,
        )
        return [local, *(snapshot(peer, now) for peer in sorted(self._membership, key=lambda peer: peer.address))]

    def document(self, key: str) -> Document | None:
        """The document held here."""
        held = self._metadata.table.get(key)
        return None if held is None or held.deleted else held

    def documents(self, prefix: str = "") -> list[Document]:
        """All documents under ``prefix``, by key."""
        found = [d for d in self._metadata.table if not d.deleted and d.key.startswith(prefix)]
        return sorted(found, key=lambda document: document.key)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called."""
        return self._timers.next()

    def take_transmits(self) -> list[Transmit | Rumor]:
        """Packets to send."""
        return self._out.take_transmits()

    def take_events(self) -> list[Event]:
        """Events since the last call."""
        return self._out.take_events()

    # -- operations --------------------------------------------------------------------------------------------

    def start(self, now: Now, known: Iterable[Known] = (), documents: Iterable[Document] = ()) -> None:
        """Join the cluster."""
        if self.status != "new":
            raise ProtocolError("already_joined", "the node has joined already")
        self._metadata.load(documents)
        self._local.status = "running"
        self._out.emit(Joined(self.node))
        self._announce(now)
        self._contacts.start(known, now)
        self._tick(now)

    def handle_timer(self, now: Now) -> None:
        """Do what is due."""
        self._look_at_clocks(now)
        self._timers.run(now)

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` until it answers; it counts as present until the timeout, as in the seed."""
        self._contacts.seed(node, now)

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the local record and spread it. Raises ``ProtocolError`` for text that is too long."""
        try:
            node = replace(
                self.node,
                name=self.node.name if name is None else name,
                private_data=self.node.private_data if private_data is None else private_data,
            )
        except ValueError as error:
            raise ProtocolError("invalid_node", str(error)) from None
        if node == self.node:
            return False
        self._local.node = node
        stamp = (self.incarnation, self._out.rumor_sequence + 1)
        self._local.record = replace(self._local.record, name=node.name, private_data=node.private_data, stamp=stamp)
        if self.status == "running":
            self._spread(PacketType.RECORD, RecordRumor(self._local.record), now)
        self._out.emit(MemberChanged(self.members(now)[0], State.ALIVE))
        return True

    def pause(self, now: Now) -> bool:
        """Stop publishing heartbeats: others drop this node after their timeout (the seed's ``Stop``)."""
        if self.status != "running":
            return False
        self._local.status = "paused"
        self._out.emit(Paused(self.node))
        return True

    def resume(self, now: Now) -> bool:
        """Publish heartbeats again (the seed's ``Start``), also after a leave."""
        if self.status not in ("paused", "left"):
            return False
        self._local.status = "running"
        self._raise_incarnation(self.incarnation)
        self._out.emit(Resumed(self.node))
        self._announce(now)
        return True

    def leave(self, now: Now) -> bool:
        """Tell everybody that this node goes."""
        if self.status not in ("running", "paused"):
            return False
        self._local.status = "left"
        self._spread(PacketType.LEAVE, None, now)
        return True

    def publish(
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
    ) -> tuple[Document, bool]:
        """Write a document and spread it; see ``ProtocolEngine.publish``."""
        self._look_at_clocks(now)
        document, changed = self._metadata.write(
            key,
            value,
            now,
            expected=expected,
            absent=absent,
            content_type=content_type,
            author=author,
            comment=comment,
        )
        if changed:
            self._spread_document(document, now)
        return document, changed

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Write a tombstone and spread it."""
        self._look_at_clocks(now)
        if self.document(key) is None and expected is None:
            return self._metadata.table.get(key), False
        document, changed = self._metadata.write(key, b"", now, expected=expected, deleted=True)
        if changed:
            self._spread_document(document, now)
        return document, changed

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members what they hold of ``key``."""
        nonce = self._rng.getrandbits(63)
        self._queries[nonce] = key
        while len(self._queries) > 256:
            del self._queries[next(iter(self._queries))]
        for address in to:
            self._out.send(Query(nonce, key), address, now)
        return nonce

    # -- a packet's way ----------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> None:
        """Take one packet. Checks come in the order of their cost (docs/protocol.md).

        ``screened``: a data plane has found it authentic, fresh and new, and has relayed it.
        """
        if self.status in ("new", "left"):
            self._out.count("rx_not_running")
            return
        self._look_at_clocks(now)
        try:
            peer, header, message = self._gate.admit(data, now, screened)
        except Rejected as rejected:
            self._out.count(f"rx_{rejected.reason}")
            return
        self._accept(peer, header, now)
        if header.type in RUMORS and not screened:
            self._relay_on(data, header, source)
            if self._observer.observing:  # the plane did not know what to make of it: tell it
                self._out.emit(standing_of(peer))
        self._dispatch(peer, header, message, source, now)
        self._attend(now)

    def _accept(self, peer: Peer, header: Header, now: Now) -> None:
        """An authentic, fresh packet: commit it, and take note of its sender."""
        before = (peer.incarnation, peer.record_digest)
        self._membership.commit(peer, header)
        peer.clock_ahead = (header.wall_ns - now.wall_ns) / 1e9
        if (peer.incarnation, peer.record_digest) != before:
            self._membership.changed(peer)
            peer.record_due, peer.record_tries = now.mono + 0.3, 0
        late = (header.incarnation, header.sequence) <= peer.gone_at
        silent = header.flags & FLAG_PAUSED or header.type is PacketType.LEAVE
        if not late and not silent and (header.type in RUMORS or peer.state is not State.LEFT):
            self._detector.heard(peer, now)
        if header.state_digest != self.state_digest and peer.present:
            self._contacts.differs(now)
        self._contacts.answered(peer.address)

    def _dispatch(self, peer: Peer, header: Header, message: Message | None, source: Address, now: Now) -> None:
        origin = header.origin
        if isinstance(message, Documents):
            self._fetcher.on_documents(message, now)
        elif isinstance(message, Announce):
            relay = self._membership.get(source)
            holders = [origin] if relay is None or source == origin else [source, origin]
            self._exchange.on_announce(message, holders, now)
        elif isinstance(message, RecordRumor):
            self._take_record(peer, message.record, now)
        elif isinstance(message, SyncRequest):
            self._exchange.on_request(message, header.state_digest, origin, now)
        elif isinstance(message, SyncResponse):
            self._exchange.on_response(message, peer, now)
        elif isinstance(message, MemberList):
            self._exchange.merge_members(message.members, now)
        elif isinstance(message, ListRequest):
            self._exchange.on_list_request(message, origin, now)
        elif isinstance(message, ListResponse):
            self._exchange.on_list(message, peer, now)
        elif isinstance(message, FetchRequest):
            self._fetcher.on_request(message, origin, now)
        elif isinstance(message, Chunk):
            self._fetcher.on_chunk(message, origin, now)
        elif isinstance(message, NotHere):
            self._fetcher.on_not_here(message, now)
        elif isinstance(message, RecordsRequest):
            self._exchange.on_records_request(message, origin, now)
        elif isinstance(message, Records):
            for address, record in message.records:
                described = self._membership.get(address)
                if described is not None:
                    self._take_record(described, record, now)
        elif isinstance(message, Ping):
            self._detector.on_ping(message, origin, now)
        elif isinstance(message, Ack):
            self._detector.on_ack(message, peer, now)
        elif isinstance(message, PingRequest):
            self._detector.on_ping_request(message, origin, now)
        elif isinstance(message, IndirectAck):
            self._detector.on_indirect_ack(message, now)
        elif isinstance(message, Query):
            self._answer_query(message, origin, now)
        elif isinstance(message, Answer):
            self._take_answer(message, origin)
        elif header.type is PacketType.LEAVE:
            self._detector.left(peer, header.incarnation, header.sequence, now)

    def _relay_on(self, data: bytes, header: Header, source: Address) -> None:
        onward = self._codec.relayed(data)
        if onward is None:
            self._out.count("relay_ttl_exceeded")
            return
        targets = self._membership.pick(self._copies(header.type), header.origin, source)
        self._out.forward(onward, targets)
        self._out.count("relayed", len(targets))

    def _take_record(self, peer: Peer, record: Record, now: Now) -> None:
        if peer.record is not None and record.stamp <= peer.record.stamp:
            return
        fresh = peer.record is None or peer.record.digest != record.digest
        peer.record = record
        if peer.record_missing:
            self._membership.changed(peer)  # it goes on missing
        else:
            peer.record_tries = 0
        if fresh and peer.introduced:
            self._out.emit(MemberChanged(snapshot(peer, now), peer.state))

    def _answer_query(self, query: Query, origin: Address, now: Now) -> None:
        held = self.document(query.key)
        answer = Answer(query.nonce, query.key, held.version if held else None, held.content_hash if held else b"")
        self._out.send(answer, origin, now)

    def _take_answer(self, answer: Answer, origin: Address) -> None:
        if self._queries.get(answer.nonce) != answer.key:
            self._out.count("rx_unasked_response")
            return
        version = str(answer.version) if answer.version else None
        digest = f"sha256:{answer.content_hash.hex()}" if answer.version else None
        self._out.emit(QueryAnswered(answer.nonce, origin, version, digest))

    # -- a data plane that works by itself ---------------------------------------------------------------------

    def observe(self, rows: Iterable[Observation], now: Now) -> None:
        """Take note of what a data plane recorded; from the first call on, the engine counts on being told."""
        self._look_at_clocks(now)
        if self.status not in ("new", "left"):
            self._observer.take(rows, self.state_digest, now)
            self._attend(now)

    def stop_observing(self) -> None:
        """The data plane is gone: all packets come through :meth:`receive` from now on."""
        self._observer.stop()

    @property
    def observation_due(self) -> float:
        """Monotonic time at which :meth:`observe` is wanted next; it may move with every input."""
        return math.inf if self.status in ("new", "left") else self._observer.due

    def relay_targets(self, limit: int) -> list[Address]:
        """Up to ``limit`` members for a data plane to relay to, in random order; a part of them changes each time."""
        return self._ring.refresh(limit)

    # -- time --------------------------------------------------------------------------------------------------

    def _tick(self, now: Now) -> None:
        """Detection, retries, housekeeping: several times a cycle when there is something to attend to."""
        if now.mono < self._next_tick:
            return
        interval = self._pace.tick if self._busy else max(self._pace.tick, self.cycle / 2)
        self._schedule_tick(now.mono + interval)
        self._detector.tick(now, interval)
        self._update_clock(now)
        self._contacts.tick(now)
        self._fetcher.tick(now)
        self._exchange.tick(now)
        self._gate.tick(now)

    @property
    def _busy(self) -> bool:
        """Whether somebody is suspected, or something awaited that may have to be asked for again."""
        return bool(self._membership.suspects or len(self._fetcher) or self._contacts.waiting)

    def _schedule_tick(self, when: float) -> None:
        """A timer that a later call has overtaken does nothing when it fires."""
        self._next_tick = when
        self._timers.at(when, self._tick)

    def _attend(self, now: Now) -> None:
        """After an input: something to attend to does not wait for a tick that was set when all was calm."""
        soon = now.mono + self._pace.tick
        if soon < self._next_tick and self._busy:
            self._schedule_tick(soon)

    def _heartbeat(self, now: Now) -> None:
        if self.status != "running" or now.mono < self._next_heartbeat:
            return
        self._spread(PacketType.HEARTBEAT, None, now)
        self._out.emit(HeartbeatSent(self.node))
        self._last_heartbeat = now.mono
        self._schedule_heartbeat(now.mono + self.cycle * self._rng.uniform(0.95, 1.05))

    def _schedule_heartbeat(self, when: float) -> None:
        """A timer that a later call has overtaken does nothing when it fires."""
        self._next_heartbeat = when
        self._timers.at(when, self._heartbeat)

    def _state_changed(self, now: Now) -> None:
        """Tell soon that this node holds something new: the next heartbeat comes early.

        Spread over a time that grows with the cluster, so that a publish is not followed by everybody at once.
        """
        size = self._pace.members
        soon = now.mono + self._rng.uniform(0.0, min(0.5, size * 0.002))
        soon = max(soon, self._last_heartbeat + min(self.cycle, max(0.1, size * 0.004)))
        if soon < self._next_heartbeat and self.status == "running":
            self._schedule_heartbeat(soon)

    def _update_clock(self, now: Now) -> None:
        offset = self._gate.cluster_offset()
        self._metadata.offset = offset or 0.0
        if offset is not None:
            self._metadata.restamp(2 * self._pace.timeout, now)

    def _look_at_clocks(self, now: Now) -> None:
        if self._gate.clock_was_set(now):
            self._update_clock(now)

    # -- spreading ---------------------------------------------------------------------------------------------

    def _spread(self, kind: PacketType, message: Message | None, now: Now) -> None:
        """Start a rumor at random members."""
        ttl = math.ceil(math.log2(self._pace.members + 1)) + 4
        self._out.broadcast(kind, message, self._membership.pick(self._copies(kind)), ttl, now)

    def _copies(self, kind: PacketType) -> int:
        """To how many members a node passes a rumor on: with k, about one in e^k misses it (docs/protocol.md)."""
        amount = self.settings.amount
        return min(MAX_COPIES, WIDE * amount) if kind in WIDE_RUMORS else amount

    def _spread_document(self, document: Document, now: Now) -> None:
        message: Message = Documents((document,))
        if self._codec.size_of(message) > DATAGRAM_BYTES:
            message = Announce((entry_of(document),))
        if self.status == "running":
            self._spread(PacketType.METADATA, message, now)

    def _announce(self, now: Now) -> None:
        """Who we are, and a heartbeat."""
        self._spread(PacketType.RECORD, RecordRumor(self._local.record), now)
        self._schedule_heartbeat(now.mono)
        self._heartbeat(now)

    def _refute(self, incarnation: int, now: Now) -> None:
        """Somebody holds us for gone under ``incarnation``: go beyond it, and say so at once."""
        if incarnation < self.incarnation or self.status != "running":
            return
        self._out.count("refutations")
        self._raise_incarnation(incarnation)
        self._announce(now)

    def _raise_incarnation(self, beyond: int) -> None:
        self._local.incarnation = max(beyond, self.incarnation) + 1
        self._out.restart_sequences()
        self._local.record = replace(self._local.record, stamp=(self.incarnation, 0))
        self._out.emit(IncarnationChanged(self.incarnation))
