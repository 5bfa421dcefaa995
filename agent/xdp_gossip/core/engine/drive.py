# SPDX-License-Identifier: MIT
"""The native protocol: rumors relayed once, an exchange with a random member each cycle, silence turned into removal.

``Engine`` is a state machine without I/O (see ``interface.py``). It joins the parts: ``membership`` (who is known),
``detector`` (who is alive), ``metadata`` (the documents), ``exchange`` and ``fetch`` (anti-entropy), ``outbox``
(what leaves). ``reception`` takes packets in. Here are the operations and what happens in each cycle.
"""

from __future__ import annotations

import heapq
import math
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Callable, TypeVar

from ..admission import Admission
from ..applied import AppliedSource, FilesSource
from ..detector import Detector, snapshot, standing_of
from ..dispatcher import Dispatcher
from ..documents.metadata import Metadata
from ..documents.table import DocumentTable, entry_of
from ..events import (
    Event,
    HeartbeatSent,
    IncarnationChanged,
    Joined,
    MemberChanged,
    Paused,
    Resumed,
    Rumor,
    Transmit,
    Warned,
)
from ..identity import Identity
from ..interface import InvalidError, Known, ProtocolError, Settings
from ..kernel_view import KernelView, Observation
from ..members.membership import FORGET_AFTER, Membership
from ..members.peer import Peer
from ..members.ring import RelayRing
from ..members.timing import Timing
from ..messages import Announce, Documents, Entry, RecordRumor
from ..outbox import Local, Outbox, UnstoredSource
from ..packets import Codec, PacketType
from ..paths import LONG, Paths
from ..peer_selection import PeerSelection
from ..queries import Queries
from ..registry import Message
from ..runs import following, later, latest
from ..sync.anti_entropy import AntiEntropy
from ..sync.catchup import CatchUp
from ..sync.fetch import Fetcher
from ..sync.handover import hand_over
from ..sync.records import NodeRecords
from ..sync.supply import Supply
from ..timers import Timers
from ..types import Address, Document, Member, Node, Now, Prepared, Record, State, Version, Write

T = TypeVar("T")

DATAGRAM_BYTES = LONG


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
        self._out = Outbox(codec, self._local, lambda: table.digest, rng)
        self._codec = codec
        self._membership = Membership(node.address, settings.max_nodes, rng)
        self._metadata = Metadata(node.address, settings, self._out, table)
        self._timing = Timing(settings, self._membership)
        self._detector = Detector(self._local, self._membership, self._out, self._timing)
        waits = (settings.wait_for_members, settings.expects_seeds)
        self._catch_up = CatchUp(self._local, self._membership, self._metadata, self._out, self._timing, *waits)
        frame = settings.size
        self._supply = Supply(table, self._out, frame)
        self._fetcher = Fetcher(self._metadata, self._out, self._supply, self._membership, settings.max_documents)
        self._anti_entropy = AntiEntropy(
            self._local,
            self._membership,
            self._detector,
            self._metadata,
            self._fetcher,
            self._supply,
            self._out,
            self._timing,
            frame,
            self._catch_up,
        )
        self._admission = Admission(
            codec,
            self._local,
            self._membership,
            self._detector,
            self._anti_entropy,
            self._out,
            self._timing,
            settings.max_clock_drift,
        )
        self._identity = Identity(self._local, self._membership, self._out, self._timing)
        self._records = NodeRecords(self._local, self._membership, self._identity, self._out, frame)
        self._paths = Paths(self._membership, self._out, self._identity.shared)
        self._admission.on_stale_run = self._identity.stale_run
        self._admission.on_accused = self._refute
        self._metadata.on_change = self._state_changed
        self._detector.on_accused = self._refute
        self._timers = Timers()
        self._selection = PeerSelection(
            self._local,
            self._membership,
            self._detector,
            self._anti_entropy,
            self._records,
            self._out,
            self._timing,
            self._timers,
            rng,
        )
        self._anti_entropy.on_claimed = self._go_beyond
        self._anti_entropy.on_alias = self._selection.seeds.is_alias
        self._membership.on_forget = self._forget
        self._kernel_view = KernelView(
            self._membership, self._admission, self._detector, self._selection, self._records, self._out, self._timing
        )
        self._queries = Queries(self._metadata, self._out)
        self._dispatcher = Dispatcher(
            codec,
            self._admission,
            self._membership,
            self._detector,
            self._selection,
            self._anti_entropy,
            self._fetcher,
            self._supply,
            self._records,
            self._queries,
            self._kernel_view,
            self._identity,
            self._paths,
            self._out,
            self._timing,
            self._catch_up,
        )
        self._ring = RelayRing(self._membership, rng)
        self._last_heartbeat = -math.inf
        self._next_heartbeat = math.inf
        self._next_tick = -math.inf
        self._next_expiry = math.inf

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
        return self._timing.cycle

    @property
    def timeout(self) -> float:
        """Seconds of silence after which a member is suspected now (the seed's rule for its default)."""
        return self._timing.timeout

    @property
    def tells_ancestry(self) -> bool:
        """True: documents name what their authors had read."""
        return True

    @property
    def catching_up(self) -> str:
        """What this node waits for until it has caught up with the cluster; "" once it has."""
        return self._catch_up.why

    @property
    def state_digest(self) -> int:
        """64-bit digest of all documents."""
        return self._metadata.table.digest

    @property
    def clock_offset(self) -> float:
        """Seconds that the cluster's clock is ahead of the local one."""
        return self._metadata.offset

    def tally(self) -> dict[State, int]:
        """How many nodes are known in each state."""
        return self._membership.tally(State.LEFT if self.status == "left" else State.ALIVE)

    @property
    def local(self) -> Member:
        """The local node."""
        return Member(
            self._local.address,
            State.LEFT if self.status == "left" else State.ALIVE,
            self.incarnation,
            self._out.rumor_sequence,
            self._local.record,
            0.0,
            self.state_digest,
            local=True,
            stored=not self._local.unstored(),
            problems=self._local.problems,
        )

    @property
    def revision(self) -> int:
        """Grows with every change of the other nodes but signs of life."""
        return self._membership.revision.number

    def members(self, now: Now) -> list[Member]:
        """Every node known, the local one first."""
        return [self.local, *self.members_after(None, now)]

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """The other nodes behind ``address`` (None: all), by address."""
        return (snapshot(peer, now) for peer in self._membership.after(address))

    def document(self, key: str) -> Document | None:
        """The document held here."""
        held = self.held(key)
        return None if held is None or held.deleted else held

    def held(self, key: str) -> Document | None:
        """The document or the tombstone held here."""
        return self._metadata.table.get(key)

    def documents(self, prefix: str = "") -> list[Document]:
        """All documents under ``prefix``, by key."""
        return list(self.documents_after("", prefix))

    def documents_after(self, key: str, prefix: str = "") -> Iterator[Document]:
        """Those behind ``key`` ("": all), by key."""
        return self._metadata.table.live_after(key, prefix)

    @property
    def documents_held(self) -> tuple[int, int]:
        """How many documents there are, and the bytes of their values."""
        return self._metadata.table.live, self._metadata.table.bytes

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
        known = list(known)
        self._metadata.load(documents, now)
        self._metadata.expire(now)
        self._catch_up.begin(now)
        self._local.status = "running"
        self._out.emit(Joined(self.node))
        self._warn_of_absence(known, now)
        self._announce(now)
        self._selection.start(known, now)
        self._tick(now)
        self._schedule_expiry(now)

    def _warn_of_absence(self, known: Sequence[Known], now: Now) -> None:
        """Documents that come from so long ago may have been deleted, and nobody may be left who remembers that."""
        if not known or not self._metadata.table.live:
            return
        away = (now.wall_ns - max(item.last_heard_ns for item in known)) / 1e9
        if away > self.settings.tombstone_grace:
            text = f"the last member was heard {away / 86_400:.1f} days ago, longer than deletions are told of"
            text += ": what was deleted since comes back if no member that knew of it is left; to prevent that, stop"
            self._out.emit(Warned("was_away", f"{text} this agent and empty its state directory"))

    def handle_timer(self, now: Now) -> None:
        """Do what is due."""
        self._look_at_clocks(now)
        self._timers.run(now)

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` now and whenever it is absent; it counts as present until the timeout, as in the seed."""
        self._selection.seed(node, now)

    def unseed(self, address: Address) -> None:
        """``address`` is no seed any more."""
        self._selection.unseed(address)

    def former(self, now: Now) -> list[Known]:
        """Members that are forgotten and are tried all the same; to be kept for the next run."""
        long_ago = now.wall_ns - int(FORGET_AFTER * 1e9)
        return [Known(address, 1, 0, long_ago) for address in self._selection.seeds.former]

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the local record and spread it. Raises ``ProtocolError`` for text that is too long."""
        try:
            node = replace(
                self.node,
                name=self.node.name if name is None else name,
                private_data=self.node.private_data if private_data is None else private_data,
            )
        except ValueError as error:
            raise InvalidError("invalid_node", str(error)) from None
        if node == self.node:
            return False
        before, self._local.node = self.node.name, node
        if node.name != before:
            self._identity.named_here(before)
        self._spread_record(replace(self._local.record, name=node.name, private_data=node.private_data), now)
        return True

    def set_plane(self, plane: str, now: Now) -> None:
        """Say how packets travel from now on; part of the local record."""
        if self.status == "new":
            self._local.record = replace(self._local.record, plane=plane)  # nobody knows another
        elif plane != self._local.record.plane:
            self._spread_record(replace(self._local.record, plane=plane), now)

    def _spread_record(self, record: Record, now: Now) -> None:
        self._local.record = replace(record, stamp=(self.incarnation, self._out.rumor_sequence + 1))
        if self.status == "running":
            self._spread(PacketType.RECORD, RecordRumor(self._local.record), now)
        self._out.emit(MemberChanged(self.local, State.ALIVE))

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
        hand_over(self._metadata.table, self._membership, self._supply, self._out, now)
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
        content_type: str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | None = None,
    ) -> tuple[Document, bool]:
        """Write a document and spread it; see ``ProtocolEngine.publish``."""
        write = Write(key, value, content_type, expected, absent, expires_in)
        document, changed = self.publish_many([write], now, author=author, comment=comment)[0]
        assert document is not None
        return document, changed

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """Write several documents; see ``ProtocolEngine.publish_many``."""
        self._look_at_clocks(now)
        self._metadata.expire(now)  # what is over must not count in a comparison
        written = self._metadata.write(writes, now, author=author, comment=comment)
        self._spread_documents([document for document, changed in written if changed and document is not None], now)
        return written

    def prepare(
        self,
        writes: Sequence[Write],
        now: Now,
        *,
        author: str = "",
        comment: str = "",
        pending: Sequence[Prepared] = (),
    ) -> list[Prepared] | None:
        """The first half of a publish; see ``ProtocolEngine.prepare``."""
        self._look_at_clocks(now)
        self._metadata.expire(now)  # what is over must not count in a comparison
        return self._metadata.prepare(writes, now, author=author, comment=comment, pending=pending)

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """The second half; see ``ProtocolEngine.commit``."""
        if not self._metadata.commit(prepared, now):
            return False
        self._spread_documents([item.document for item in prepared if item.changed and item.document is not None], now)
        return True

    @property
    def reaches(self) -> Callable[[Address], bool]:
        """Whether this host has an address family in common with an address; the shell's to say."""
        return self._out.reaches

    @reaches.setter
    def reaches(self, answer: Callable[[Address], bool]) -> None:
        self._out.reaches = answer

    @property
    def unstored_source(self) -> UnstoredSource:
        """What tells which documents are not on the disk yet; others are told, when they ask or compare."""
        return self._local.unstored

    @unstored_source.setter
    def unstored_source(self, source: UnstoredSource) -> None:
        self._local.unstored = source

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Write a tombstone and spread it."""
        return self.publish_many([Write(key, expected=expected, deleted=True)], now)[0]

    def repair(self, now: Now) -> int:
        """Exchange at once with every member that shows other documents."""
        differing = [peer for peer in self._membership if peer.present and peer.sync.state_digest != self.state_digest]
        for peer in differing:
            self._anti_entropy.request(peer.address, now)
        return len(differing)

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members what they hold of ``key``."""
        return self._queries.ask(key, to, now)

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members what became of ``key`` in their rendered files."""
        return self._queries.ask_applied(key, to, now)

    @property
    def applied_source(self) -> AppliedSource:
        """What tells others, when they ask, what became of a document here."""
        return self._queries.applied_source

    @applied_source.setter
    def applied_source(self, source: AppliedSource) -> None:
        self._queries.applied_source = source

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """Ask members which of their rendered files are in trouble."""
        return self._queries.ask_files(to, now)

    @property
    def files_source(self) -> FilesSource:
        """What tells others, when they ask, which rendered files are in trouble here."""
        return self._queries.files_source

    @files_source.setter
    def files_source(self, source: FilesSource) -> None:
        self._queries.files_source = source

    # -- packets -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Take one packet; see ``ProtocolEngine.receive``."""
        if self.status in ("new", "left"):
            self._out.count("rx_not_running")
            return None
        self._look_at_clocks(now)
        taken = self._dispatcher.receive(data, source, now, screened)
        self._attend(now)
        return taken

    # -- a data plane that works by itself ---------------------------------------------------------------------

    def observe(self, rows: Iterable[Observation], now: Now) -> None:
        """Take note of what a data plane recorded; from the first call on, the engine counts on being told."""
        self._look_at_clocks(now)
        if self.status not in ("new", "left"):
            self._kernel_view.take(rows, self.state_digest, now)
            self._attend(now)

    def stop_observing(self) -> None:
        """The data plane is gone: all packets come through :meth:`receive` from now on."""
        self._kernel_view.stop()

    @property
    def observation_due(self) -> float:
        """Monotonic time at which :meth:`observe` is wanted next; it may move with every input."""
        return math.inf if self.status in ("new", "left") else self._kernel_view.due

    def relay_targets(self, limit: int) -> list[Address]:
        """Up to ``limit`` members for a data plane to relay to, in random order; a part of them changes each time."""
        return self._ring.refresh(limit)

    def destinations(self, limit: int) -> list[Address]:
        """Up to ``limit`` addresses of this node's family that packets go to: members, and while there are none the
        seeds. They are of any part of the range of addresses, and the same ones as long as nothing changes."""
        six = ":" in self.node.address.ip
        for known in (self._membership.present, self._selection.seeds.given):
            alike = (address for address in known if (":" in address.ip) == six)
            chosen = heapq.nsmallest(limit, alike, key=lambda address: (zlib.crc32(address.packed), address.port))
            if chosen:
                return chosen
        return []

    # -- time --------------------------------------------------------------------------------------------------

    def _tick(self, now: Now) -> None:
        """Detection, retries, housekeeping: several times a cycle when there is something to attend to.

        Else along with the heartbeat: a wake-up costs an idle agent more than all that is done in it.
        """
        if now.mono < self._next_tick:
            return
        interval = self._timing.tick if self._busy else self.cycle
        if self.status == "running" and not self._busy:
            self._next_tick = math.inf
        else:
            self._schedule_tick(now.mono + interval)
        self._detector.tick(now, interval)
        self._update_clock(now)
        self._selection.tick(now)
        self._fetcher.tick(now)
        self._anti_entropy.tick(now)
        self._admission.tick(now)
        self._identity.tick(now)
        self._paths.tick(now)
        self._metadata.tick(now)
        seeds = self._selection.seeds
        self._catch_up.tick(seeds.absent, bool(seeds.given), now)

    @property
    def _busy(self) -> bool:
        """Whether somebody is suspected, or something awaited that may have to be asked for again."""
        waiting = self._selection.waiting or self._catch_up.fetching
        return bool(self._membership.suspects or len(self._fetcher) or waiting or self._paths.testing)

    def _schedule_tick(self, when: float) -> None:
        """A timer that a later call has overtaken does nothing when it fires."""
        self._next_tick = when
        self._timers.at(when, self._tick)

    def _attend(self, now: Now) -> None:
        """After an input: something to attend to does not wait for a tick that was set when all was calm."""
        soon = now.mono + self._timing.tick
        if soon < self._next_tick and self._busy:
            self._schedule_tick(soon)

    def _heartbeat(self, now: Now) -> None:
        if now.mono < self._next_heartbeat:
            return
        if self.status == "running":
            self._spread(PacketType.HEARTBEAT, None, now)
            self._out.emit(HeartbeatSent(self.node))
            self._last_heartbeat = now.mono
            self._schedule_heartbeat(now.mono + self.cycle * self._rng.uniform(0.95, 1.05))
        if self._next_tick == math.inf:
            self._next_tick = now.mono
            self._tick(now)

    def _schedule_heartbeat(self, when: float) -> None:
        """A timer that a later call has overtaken does nothing when it fires."""
        self._next_heartbeat = when
        self._timers.at(when, self._heartbeat)

    def _state_changed(self, now: Now) -> None:
        """Tell soon that this node holds something new: the next heartbeat comes early.

        Spread over a time that grows with the cluster, so that a publish is not followed by everybody at once.
        """
        self._schedule_expiry(now)
        size = self._timing.members
        soon = now.mono + self._rng.uniform(0.0, min(0.5, size * 0.002))
        soon = max(soon, self._last_heartbeat + min(self.cycle, max(0.1, size * 0.004)))
        if soon < self._next_heartbeat and self.status == "running":
            self._schedule_heartbeat(soon)

    def _schedule_expiry(self, now: Now) -> None:
        """Wake when the next document is over; a wake-up that a later one has overtaken does nothing."""
        left = self._metadata.until_expiry(now)
        if left is None:
            return
        # Not far ahead: the cluster's clock may be corrected until then.
        when = now.mono + min(max(left, 0.0), 60.0) + 0.001
        if when < self._next_expiry or self._next_expiry <= now.mono:
            self._next_expiry = when
            self._timers.at(when, self._expire)

    def _expire(self, now: Now) -> None:
        if now.mono < self._next_expiry:
            return
        self._next_expiry = math.inf
        self._metadata.expire(now)
        self._schedule_expiry(now)

    def _update_clock(self, now: Now) -> None:
        self._metadata.offset = self._admission.known_offset()
        self._admission.mark_clocks(self._metadata.offset)

    def _look_at_clocks(self, now: Now) -> None:
        woke_up = self._admission.woke_up(now)
        if woke_up:
            self._kernel_view.woke_up_at = now.mono
        if self._admission.clock_was_set(now) or woke_up:
            self._update_clock(now)
            self._metadata.expire(now)

    # -- spreading ---------------------------------------------------------------------------------------------

    def _spread(self, kind: PacketType, message: Message | None, now: Now) -> None:
        """Start a rumor at random members."""
        ttl = math.ceil(math.log2(self._timing.members + 1)) + 4
        self._out.broadcast(kind, message, self._membership.pick(self._timing.copies(kind)), ttl, now)

    def _spread_documents(self, documents: Sequence[Document], now: Now) -> None:
        """As rumors of one datagram each: as many small documents as fit, of larger ones what they are."""
        if self.status != "running":
            return
        small: list[Document] = []
        large: list[Entry] = []
        for document in documents:
            if self._codec.size_of(Documents((document,))) > DATAGRAM_BYTES:
                large.append(entry_of(document))
            else:
                small.append(document)
        for documents_message in self._packed(small, lambda group: Documents(group)):
            self._spread(PacketType.METADATA, documents_message, now)
        for announcement in self._packed(large, lambda group: Announce(group)):
            self._spread(PacketType.METADATA, announcement, now)

    def _packed(self, items: Sequence[T], message: Callable[[tuple[T, ...]], Message]) -> Iterator[Message]:
        """Messages that carry all ``items``, each in one datagram."""
        group: list[T] = []
        for item in items:
            if group and self._codec.size_of(message((*group, item))) > DATAGRAM_BYTES:
                yield message(tuple(group))
                group = []
            group.append(item)
        if group:
            yield message(tuple(group))

    def _announce(self, now: Now) -> None:
        """Who we are, and a heartbeat."""
        self._spread(PacketType.RECORD, RecordRumor(self._local.record), now)
        self._schedule_heartbeat(now.mono)
        self._heartbeat(now)

    def _forget(self, peer: Peer) -> None:
        """A peer was silent for a day, gave way to another in a full table, or never was one."""
        if peer.heard and peer.liveness.state is not State.LEFT:
            self._selection.seeds.add_former(peer.address)
        self._identity.forget(peer)
        self._paths.forget(peer.address)
        self._out.emit(standing_of(peer, "forgotten"))

    def _refute(self, incarnation: int, now: Now) -> None:
        """Somebody holds us for gone under ``incarnation``: go beyond it, and say so at once."""
        if later(self.incarnation, incarnation) or self.status != "running":
            return
        if later(incarnation, self.incarnation):
            self._go_beyond(incarnation, now)
            return
        self._out.count("refutations")
        self._raise_incarnation(incarnation)
        self._announce(now)

    def _go_beyond(self, incarnation: int, now: Now) -> None:
        """Somebody else says, or said, that it is this node under ``incarnation``."""
        if self._identity.may_go_beyond(now):
            self._out.count("refutations")
            self._raise_incarnation(incarnation)
            self._announce(now)

    def _raise_incarnation(self, beyond: int) -> None:
        self._local.incarnation = following(latest(beyond, self.incarnation))
        self._out.restart_sequences()
        self._local.record = replace(self._local.record, stamp=(self.incarnation, 0))
        self._out.emit(IncarnationChanged(self.incarnation))
