# SPDX-License-Identifier: MIT
"""A member of a PekoNode cluster: its protocol as a state machine, without its packet storms.

PekoNode (github.com/dpwgc/pekonode) is the Go toolkit whose interface this project keeps. Heartbeats, metadata
rumors and the periodic exchange follow it exactly as far as other nodes can see; docs/pekonode.md lists what is done
better on this side, and what cannot be had while Go nodes take part.
"""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..core.applied import NO_FILES, AppliedSource, FilesSource, nothing_applied
from ..core.events import (
    CaughtUp,
    Event,
    HeartbeatSent,
    Joined,
    MemberChanged,
    Paused,
    QueryAnswered,
    Resumed,
    Rumor,
    SwapAnswered,
    SwapRequested,
    Transmit,
    Warned,
)
from ..core.interface import Known, ProtocolError, Settings
from ..core.outbox import UnstoredSource
from ..core.timers import Timers
from ..core.types import DEFAULT_KEY, Address, Document, Member, Node, Now, Prepared, Record, State, Version, Write
from .document import ClusterDocument, document_of
from .outbox import PekoNodeOutbox
from .packet import Packet, PacketCodec, PekoNodeId, Swap, WireError
from .peers import Peer, Peers, record_of
from .relay import Relay

_NO_EXPIRY = "PekoNode's wire has no documents that expire"

#: PekoNode's cycle, used when the settings leave it open: a node has to beat as often as the others expect.
DEFAULT_CYCLE = 6.0
#: Seconds after which a question that nobody answered is forgotten.
QUERY_EXPIRY = 60.0


class PekoNodeEngine:
    """``core.interface.ProtocolEngine`` for PekoNode's wire.

    ``codec`` is the module ``xdp_gossip.pekonode.codec``; ``secret_key`` the cluster's key as text, empty for none.
    Of the settings, ``cycle`` 0 means PekoNode's 6 s, and ``size`` has to equal the other nodes' ``Size``.
    Raises ``ProtocolError`` (node_too_large) when the node's name and private data do not fit a packet.
    """

    def __init__(
        self, node: Node, settings: Settings, rng: random.Random, codec: PacketCodec, secret_key: str = ""
    ) -> None:
        self.node = node
        self.settings = settings
        self.incarnation = 0
        self.status = "new"
        self.cycle = settings.cycle or DEFAULT_CYCLE
        automatic = settings.timeout_cycles * self.cycle + 2
        self.timeout = settings.timeout if settings.timeout > self.cycle else automatic
        self._codec = codec
        self._address = node.address
        self._timers = Timers()
        self._out = PekoNodeOutbox(codec, node, settings.size, secret_key)
        self._document = ClusterDocument(settings, self._out)
        self._peers = Peers(settings.max_nodes, rng)
        self._relay = Relay(self.cycle / 2, settings.max_nodes, rng, self._timers)
        self._relay.send = self._pass_on
        self.counters: Mapping[str, int] = self._out.counters
        self._sweep_every = min(1.0, self.cycle / 4)
        self._swept = self._began = 0.0
        self._heard_at: float | None = None  # the first other node
        self._caught_up = False
        self._query = 0
        self.applied_source: AppliedSource = nothing_applied
        self.files_source: FilesSource = lambda: NO_FILES
        self.reaches: Callable[[Address], bool] = lambda address: True  # nobody probes others on this wire
        self.unstored_source: UnstoredSource = frozenset  # nobody is told: packets of this wire say nothing of disks
        self._queries: dict[tuple[Address, int], float] = {}  # -> when it was asked, monotonic seconds

    # -- input -------------------------------------------------------------------------------------------------

    @property
    def tells_ancestry(self) -> bool:
        """False: a document on this wire is a value and a time."""
        return False

    def start(self, now: Now, known: Iterable[Known] = (), documents: Iterable[Document] = ()) -> None:
        """Join: contact seeds and nodes known from earlier, take the stored document over. A second call is idle."""
        if self.status != "new":
            return
        for document in documents:
            self._document.restore(document)
        for entry in known:
            age = max(0.0, (now.wall_ns - entry.last_heard_ns) / 1e9)
            node = PekoNodeId(entry.address.ip, entry.address.port, entry.name, entry.private_data)
            if entry.address == self._address or self._peers.get(entry.address) is not None:
                continue
            if not entry.address.may_be_node(self._address):
                self._out.count("rx_bad_address")
            elif not self._peers.add(Peer(entry.address, node, now.mono - age)):
                self._out.count("members_full")
        self.status = "running"
        self._out.emit(Joined(self.node))
        self._swept = self._began = now.mono
        self._timers.at(now.mono + self._sweep_every, self._sweep)
        self._tick(now)

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Take one packet; False, as no data plane works below this wire (``Driven.receive``)."""
        self._take(data, source, now)
        return False

    def _take(self, data: bytes, source: Address, now: Now) -> None:
        """One packet. The origin is who the packet says: relays do not show on this wire."""
        if self.status in ("new", "left"):
            return self._out.count("rx_ignored")
        try:
            packet = self._codec.decode(data, self.settings.size)
        except WireError as error:
            return self._out.count(f"rx_{error.reason}")
        if not hmac.compare_digest(packet.secret.encode(), self._out.secret.encode()):
            return self._out.count("rx_wrong_key")
        try:
            origin = packet.node.address
        except ValueError:
            return self._out.count("rx_bad_address")
        if origin == self._address:
            return self._out.count("rx_own")
        if not origin.may_be_node(self._address):
            return self._out.count("rx_bad_address")
        if packet.swap is Swap.REQUEST:
            self._on_swap_request(packet, origin, now)
        elif packet.swap is Swap.RESPONSE:
            self._on_swap_response(packet, origin, now)
        else:
            self._on_rumor(packet, origin, now)

    def handle_timer(self, now: Now) -> None:
        """Do what is due."""
        self._timers.run(now)

    # -- output ------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Monotonic deadline of the next ``handle_timer``."""
        return self._timers.next()

    def take_transmits(self) -> list[Transmit | Rumor]:
        """All packets queued since the last call. Each goes out whole: PekoNode has no framing."""
        return [*self._out.take_transmits()]

    def take_events(self) -> list[Event]:
        """All events queued since the last call."""
        return self._out.take_events()

    # -- operations --------------------------------------------------------------------------------------------

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` now and each cycle until it is heard."""
        address = node.address
        if address == self._address:
            return
        peer = self._peers.get(address)
        if peer is None:
            identity = PekoNodeId(node.addr, node.port, node.name, node.private_data)
            peer = Peer(address, identity, now.mono)
            if not self._peers.add(peer):
                self._out.count("members_full")
                return
        peer.pinned = True
        if not peer.heard and peer.state is State.DEAD:
            # As PekoNode's Set: listed until the timeout. Here it is a suspect, so that nobody takes it for heard.
            self._peers.move(peer, State.SUSPECT)
            peer.last_heard = now.mono
        if self.status == "running" and peer.state is not State.ALIVE:
            self._out.spread(self._out.heartbeat(), [peer])

    def unseed(self, address: Address) -> None:
        """A seed that is none any more is forgotten when it was silent for a day, as others are."""
        peer = self._peers.get(address)
        if peer is not None:
            peer.pinned = False

    def former(self, now: Now) -> list[Known]:
        """None: this wire has no memory beyond a day but its seeds."""
        return []

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the local record; a heartbeat says so at once.

        Go nodes hold the former record for a second node until their timeout: to them it is part of the identity.
        Raises ``ValueError`` for a bad record, ``ProtocolError`` (node_too_large) for one that fits no packet.
        """
        node = Node(
            self.node.addr,
            self.node.port,
            self.node.name if name is None else name,
            self.node.private_data if private_data is None else private_data,
        )
        if node == self.node:
            return False
        self._out.rename(node)
        self.node = node
        self._out.emit(MemberChanged(self.local, State.ALIVE))
        if self.status == "running":
            self._heartbeat()
        return True

    def pause(self, now: Now) -> bool:
        """Stop heartbeats and exchanges; rumors of others are still passed on, exchanges still answered."""
        if self.status != "running":
            return False
        self.status = "paused"
        self._out.emit(Paused(self.node))
        return True

    def resume(self, now: Now) -> bool:
        """Beat again, at once. Also after ``leave``."""
        if self.status not in ("paused", "left"):
            return False
        self.status = "running"
        self._out.emit(Resumed(self.node))
        self._beat(now)
        return True

    def leave(self, now: Now) -> bool:
        """Fall silent altogether. This wire has no farewell: others drop this node after their timeout."""
        if self.status in ("new", "left"):
            return False
        self.status = "left"
        self._relay.clear()
        self._out.emit(Paused(self.node))
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
        """Write the cluster's one document.

        Its version is later than any seen, however far in the future that is. ``content_type``, ``author`` and
        ``comment`` stay on this node; what comes from another is of type raw. Raises ``ProtocolError``:
        unsupported_key, version_mismatch, document_too_large, version_exhausted.
        """
        self._check_key(key)
        if expires_in is not None:
            raise ProtocolError("unsupported_operation", _NO_EXPIRY)
        kind = Write(key, content_type=content_type).type_over(self._document.held)
        changed = self._document.write(value, now, expected, absent, kind, author, comment)
        document = self._document.held
        assert document is not None
        if changed and self.status in ("running", "paused"):
            rumor = self._out.update(document, self._document.stamp)
            self._out.spread(rumor, self._peers.pick(self.settings.amount))
        return document, changed

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """The same for one document. Raises ``ProtocolError`` (unsupported_operation) for more, and for a deletion."""
        if len(writes) == 1 and writes[0].deleted:
            return [self.delete(writes[0].key, now)]
        if len(writes) != 1:
            raise ProtocolError("unsupported_operation", "PekoNode's wire has one document: expected one to publish")
        write = writes[0].typed(self._document.held)
        if write.expires:
            raise ProtocolError("unsupported_operation", _NO_EXPIRY)
        written = self.publish(
            write.key,
            write.value,
            now,
            expected=write.expected,
            absent=write.absent,
            content_type=write.content_type,
            author=author,
            comment=comment,
            expires_in=write.expires_in,
        )
        return [written]

    def prepare(
        self,
        writes: Sequence[Write],
        now: Now,
        *,
        author: str = "",
        comment: str = "",
        pending: Sequence[Prepared] = (),
    ) -> list[Prepared] | None:
        """None: here a document is on its way before it is on the disk."""
        return None

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """Never called, as nothing is prepared: raises ``ProtocolError``."""
        raise ProtocolError("unsupported_operation", "PekoNode's wire publishes in one step")

    def repair(self, now: Now) -> int:
        """Not possible: raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError("unsupported_operation", "PekoNode's wire does not tell who holds other documents")

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Not possible: raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError(
            "unsupported_operation",
            "PekoNode's wire cannot delete the document; publish an empty one instead",
        )

    def document(self, key: str) -> Document | None:
        """The document held here."""
        return self._document.held if key == DEFAULT_KEY else None

    def held(self, key: str) -> Document | None:
        """The same: this wire has no tombstones."""
        return self.document(key)

    def documents(self, prefix: str = "") -> list[Document]:
        """The document held here, in a list."""
        held = self._document.held
        return [held] if held and DEFAULT_KEY.startswith(prefix) else []

    def documents_after(self, key: str, prefix: str = "") -> Iterator[Document]:
        """The same, unless its key is not behind ``key``."""
        return iter(self.documents(prefix) if key < DEFAULT_KEY else ())

    @property
    def documents_held(self) -> tuple[int, int]:
        """Whether there is a document, and the bytes of its value."""
        held = self._document.held
        return (0, 0) if held is None else (1, held.size)

    def tally(self) -> dict[State, int]:
        """How many nodes are known in each state."""
        counts = dict.fromkeys(State, 0)
        for peer in self._peers:
            counts[peer.state] += peer.listed
        counts[self.local.state] += 1
        return counts

    def members(self, now: Now) -> list[Member]:
        """The local node, then every node that was ever heard or was named a timeout ago at most, by address."""
        return [self.local, *self.members_after(None, now)]

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """Those behind ``address`` (None: all), without the local one."""
        behind = [peer for peer in self._peers if peer.listed and (address is None or address < peer.address)]
        return (peer.member(now.mono) for peer in sorted(behind, key=lambda peer: peer.address.order()))

    @property
    def revision(self) -> int:
        """Grows with every change of the other nodes but signs of life."""
        return self._peers.revision.number

    @property
    def state_digest(self) -> int:
        """The state hash of the document held here, 0 without one."""
        return self._document.held.state_hash if self._document.held else 0

    @property
    def clock_offset(self) -> float:
        """Always 0: no packet of this wire tells its sender's time."""
        return 0.0

    @property
    def catching_up(self) -> str:
        """What this node waits for until it has asked a live one for its document; "" once it has.

        Who has nothing newer does not answer on this wire: so two exchanges without an answer count as one.
        """
        if self._caught_up:
            return ""
        return "no node has answered yet" if self._heard_at is None else "another node is asked for its document"

    def _look_whether_caught_up(self, now: Now) -> None:
        seeds = any(peer.pinned for peer in self._peers) or self.settings.expects_seeds
        waited = now.mono - self._began
        if self._heard_at is not None and now.mono - self._heard_at >= 2 * self.cycle:
            how = "a node was heard, and asked twice"
        elif self._heard_at is None and not seeds and waited >= self.timeout:
            how = "there is nobody else"
        elif self._heard_at is None and waited >= self.settings.wait_for_members:
            how = f"no node has answered, {self.settings.wait_for_members:g} s after the start"
        else:
            return
        self._caught_up = True
        self._out.emit(CaughtUp(how))

    @property
    def max_document(self) -> int:
        """Bytes of the largest document that can be published: what other nodes can receive, in base64, in ``size``."""
        return self._document.limit

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask nodes directly what they hold, Go nodes included.

        An exchange request with version 0 makes whoever holds a document send it. Who holds none stays silent.
        Raises ``ProtocolError`` (unsupported_key).
        """
        self._check_key(key)
        self._query += 1
        for address in to:
            self._queries[address, self._query] = now.mono
            self._out.swap(Swap.REQUEST, None, 0, address)
        return self._query

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """This wire has no such question. Raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError("unsupported_operation", "applied: members cannot be asked over wire pekonode")

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """This wire has no such question. Raises ``ProtocolError`` (unsupported_operation)."""
        raise ProtocolError("unsupported_operation", "rendered files: members cannot be asked over wire pekonode")

    # -- time --------------------------------------------------------------------------------------------------

    def _tick(self, now: Now) -> None:
        self._timers.at(now.mono + self.cycle, self._tick)
        if self.status == "running":
            self._beat(now)

    def _beat(self, now: Now) -> None:
        self._heartbeat()
        partner = self._peers.pick(1) or self._peers.pick_silent(1)
        if partner:
            self._out.swap(Swap.REQUEST, self._document.held, self._document.stamp, partner[0].address)
            self._out.emit(SwapRequested(self._address, partner[0].address))

    def _heartbeat(self) -> None:
        """To ``amount`` live nodes, and to at least one that is to be tried, so that partitions heal."""
        targets = self._peers.pick(self.settings.amount)
        targets += self._peers.pick_silent(max(1, self.settings.amount - len(targets)))
        self._out.spread(self._out.heartbeat(), targets)
        self._out.count("heartbeats")
        self._out.emit(HeartbeatSent(self.node))

    def _sweep(self, now: Now) -> None:
        self._timers.at(now.mono + self._sweep_every, self._sweep)
        late = now.mono - self._swept - self._sweep_every
        self._swept = now.mono
        if late > self.cycle:
            # This process was frozen: what it did not hear meanwhile says nothing of the others.
            self._out.count("stalls")
            for peer in self._peers.alive:
                peer.last_heard += late
        for peer in self._peers.alive:
            if now.mono - peer.last_heard > self.timeout:
                former = self._peers.move(peer, State.DEAD)
                self._out.emit(MemberChanged(peer.member(now.mono), former))
        for peer in [peer for peer in self._peers if peer.state is State.SUSPECT]:
            if now.mono - peer.last_heard > self.timeout:
                self._peers.move(peer, State.DEAD)  # a seed that never answered goes as silently as it came
        self._peers.forget(now.mono)
        self._relay.sweep(now)
        if not self._caught_up:
            self._look_whether_caught_up(now)
        for question in [key for key, asked in self._queries.items() if now.mono - asked > QUERY_EXPIRY]:
            del self._queries[question]

    # -- packets in --------------------------------------------------------------------------------------------

    def _on_rumor(self, packet: Packet, origin: Address, now: Now) -> None:
        """A heartbeat, or news of the document, which counts as one."""
        peer = self._hear(packet.node, origin, now)
        if peer is None:
            return
        self._out.count("rx_heartbeats")
        if not packet.is_update:
            return self._out.count(f"rumors_{self._relay.offer(packet.node, packet, now)}")
        document = self._show(packet, peer)
        key = (packet.stamp, document.content_hash)
        if self._document.take(document, packet.stamp, now):
            return self._out.count(f"rumors_{self._relay.offer(key, packet, now)}")
        self._relay.merge(key, packet)
        self._out.count("updates_known")

    def _on_swap_request(self, packet: Packet, origin: Address, now: Now) -> None:
        self._out.count("rx_swap_requests")
        self._out.emit(SwapRequested(origin, self._address))
        document = self._show(packet, self._peers.get(origin))
        self._document.take(document, packet.stamp, now)
        # Of equal stamps with different content a Go node keeps its own; another agent takes the winner.
        if self._document.outranks(document):
            self._out.swap(Swap.RESPONSE, self._document.held, self._document.stamp, origin)
            self._out.emit(SwapAnswered(origin, self._address))

    def _on_swap_response(self, packet: Packet, origin: Address, now: Now) -> None:
        self._out.count("rx_swap_responses")
        self._out.emit(SwapAnswered(self._address, origin))
        document = self._show(packet, self._peers.get(origin))
        held = (str(document.version), document.digest) if packet.stamp else (None, None)
        for address, query in [question for question in self._queries if question[0] == origin]:
            del self._queries[address, query]
            self._out.emit(QueryAnswered(query, origin, *held))
        self._document.take(document, packet.stamp, now)

    def _show(self, packet: Packet, peer: Peer | None) -> Document:
        """The packet's document; what a node shows that it holds is remembered."""
        document = document_of(packet.stamp, packet.data)
        if peer is not None and packet.stamp:
            peer.digest = document.state_hash
        return document

    def _hear(self, node: PekoNodeId, origin: Address, now: Now) -> Peer | None:
        """Note a sign of life. None for one that is not to be passed on: it is out of date, or there is no room."""
        peer = self._peers.get(origin)
        if peer is None:
            peer = Peer(origin, node, now.mono)
            if not self._peers.add(peer):
                self._out.count("members_full")
                return None
        peer.last_heard = now.mono
        self._heard_at = now.mono if self._heard_at is None else self._heard_at
        first = not peer.heard
        changed = first or peer.id != node
        if not first and node == peer.former and now.mono - peer.changed_at < self.cycle:
            # A late copy from before the node changed its record; passing it on would keep a ghost alive.
            self._out.count("rx_stale_record")
            return None
        if changed:
            peer.former = None if first else peer.id
            peer.id, peer.changed_at = node, now.mono
            peer.record, shortened = record_of(node)
            if shortened:
                self._out.count("records_shortened")
                self._out.emit(Warned("record_shortened", f"node {origin}: name or private data too long, shortened"))
        peer.heard += 1
        if peer.state is not State.ALIVE:
            former = self._peers.move(peer, State.ALIVE)
            self._out.emit(MemberChanged(peer.member(now.mono), None if first else former))
        elif changed:
            self._out.emit(MemberChanged(peer.member(now.mono), State.ALIVE))
        return peer

    # -- small things ------------------------------------------------------------------------------------------

    def _pass_on(self, packet: Packet) -> None:
        """To nodes that are not infected, and when these are too few to some that are: "infected" only says that
        somebody sent it to them, and a datagram may have been lost. Their copies infect nobody further."""
        amount, origin = self.settings.amount, packet.node.label
        targets = self._peers.pick(amount, packet.infected | {origin})
        chosen = {origin, *(peer.id.label for peer in targets)}
        self._out.spread(packet, targets + self._peers.pick(amount - len(targets), chosen))

    @property
    def local(self) -> Member:
        """The local node."""
        record = Record(self.node.name, self.node.private_data)
        state = State.LEFT if self.status == "left" else State.ALIVE
        sequence = self.counters["heartbeats"]
        return Member(self._address, state, 0, sequence, record, 0.0, self.state_digest, local=True)

    def _check_key(self, key: str) -> None:
        if key != DEFAULT_KEY:
            raise ProtocolError(
                "unsupported_key", f"document {key!r}: PekoNode's wire has one document only, {DEFAULT_KEY!r}"
            )
