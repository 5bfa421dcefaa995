# SPDX-License-Identifier: MIT
"""The protocol part of a PekoNode engine: its inputs are packets and time, its outputs are packets and events.

PekoNode (github.com/dpwgc/pekonode) is a Go library for gossip clusters, whose interface this project also provides.
Other nodes cannot distinguish this node's heartbeats, metadata rumors and swaps from those of a Go node.
docs/pekonode.md lists the improvements over a Go node, and the features that are not possible in a cluster with Go
nodes.
"""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable, Iterable, Mapping

from ..core.applied import NO_FILES, AppliedSource, FilesSource, nothing_applied
from ..core.events import (
    CaughtUp,
    Event,
    HeartbeatSent,
    Joined,
    MemberChanged,
    QueryAnswered,
    Rumor,
    SwapAnswered,
    SwapRequested,
    Transmit,
    Warned,
)
from ..core.interface import Known
from ..core.outbox import UnstoredSource
from ..core.settings import Settings
from ..core.timers import Timers
from ..core.types import Address, Document, Member, Node, Now, Record, State
from . import codec
from .document import ClusterDocument, document_of
from .outbox import PekoNodeOutbox
from .packet import Packet, PekoNodeId, Swap, WireError
from .peers import Peer, Peers, record_of
from .relay import Relay

#: PekoNode's cycle in seconds, which applies if the setting ``cycle`` is 0. All nodes of a cluster must use the same
#: cycle, because each node expects heartbeats from the others at its own rate.
DEFAULT_CYCLE = 6.0
#: Seconds after which an unanswered query is dropped.
QUERY_EXPIRY = 60.0


class PekoNodeDrive:
    """A member of a PekoNode cluster. Implements ``core.interface.Driven``, the interface that the runtime uses.

    ``secret_key``: the cluster's key as text; empty if the cluster has no key. In ``settings``, a ``cycle`` of 0 means
    PekoNode's 6 s, and ``size`` must be equal to the other nodes' ``Size``.

    Raises ``ProtocolError`` (node_too_large) if the node's name and private data do not fit into a packet.
    """

    def __init__(self, node: Node, settings: Settings, rng: random.Random, secret_key: str = "") -> None:
        self.node = node
        self.settings = settings
        self.incarnation = 0
        self.status = "new"
        self.cycle = settings.cycle or DEFAULT_CYCLE
        automatic = settings.timeout_cycles * self.cycle + 2
        self.timeout = settings.timeout if settings.timeout > self.cycle else automatic
        self._address = node.address
        self._timers = Timers()
        self._out = PekoNodeOutbox(node, settings.size, secret_key)
        self.documents = ClusterDocument(settings, self._out)
        self.documents.on_publish = self._spread
        self._peers = Peers(settings.limits.nodes, rng)
        self._relay = Relay(self.cycle / 2, settings.limits.nodes, rng, self._timers)
        self._relay.send = self._pass_on
        self.counters: Mapping[str, int] = self._out.counters
        self._sweep_every = min(1.0, self.cycle / 4)
        self._swept = self._began = 0.0
        # Monotonic time at which this node first heard another node.
        self._heard_at: float | None = None
        self._caught_up = False
        self._query = 0
        self.applied_source: AppliedSource = nothing_applied
        self.files_source: FilesSource = lambda: NO_FILES
        # Unused, because this wire has no probes.
        self.reaches: Callable[[Address], bool] = lambda address: True
        # Unused on this wire.
        self.unstored_source: UnstoredSource = frozenset
        # Query -> monotonic time in seconds at which the query was sent.
        self._queries: dict[tuple[Address, int], float] = {}

    @property
    def local(self) -> Member:
        """The local node."""
        record = Record(self.node.name, self.node.private_data)
        state = State.LEFT if self.status == "left" else State.ALIVE
        sequence = self.counters["heartbeats"]
        return Member(self._address, state, 0, sequence, record, 0.0, self.documents.digest, local=True)

    # -- packets ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Process one packet. Returns False, because this wire has no data plane (see ``Driven.receive``)."""
        self._take(data, source, now)
        return False

    def _take(self, data: bytes, source: Address, now: Now) -> None:
        """Process one packet.

        The packet's origin is the node named in the packet, because a packet does not show who relayed it.
        """
        if self.status in ("new", "left"):
            return self._out.count("rx_ignored")
        try:
            packet = codec.decode(data, self.settings.size)
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

    def _on_rumor(self, packet: Packet, origin: Address, now: Now) -> None:
        """Process a heartbeat or a metadata rumor. A metadata rumor also counts as a heartbeat of its origin."""
        peer = self._hear(packet.node, origin, now)
        if peer is None:
            return
        self._out.count("rx_heartbeats")
        if not packet.is_update:
            return self._out.count(f"rumors_{self._relay.offer(packet.node, packet, now)}")
        document = self._show(packet, peer)
        key = (packet.stamp, document.content_hash)
        if self.documents.take(document, packet.stamp, now):
            return self._out.count(f"rumors_{self._relay.offer(key, packet, now)}")
        self._relay.merge(key, packet)
        self._out.count("updates_known")

    def _on_swap_request(self, packet: Packet, origin: Address, now: Now) -> None:
        self._out.count("rx_swap_requests")
        self._out.emit(SwapRequested(origin, self._address))
        document = self._show(packet, self._peers.get(origin))
        self.documents.take(document, packet.stamp, now)
        # If stamps are equal and contents differ, a Go node keeps its own content. An agent stores the content with the
        # higher rank.
        if self.documents.outranks(document):
            self._out.swap(Swap.RESPONSE, self.documents.current, self.documents.stamp, origin)
            self._out.emit(SwapAnswered(origin, self._address))

    def _on_swap_response(self, packet: Packet, origin: Address, now: Now) -> None:
        self._out.count("rx_swap_responses")
        self._out.emit(SwapAnswered(self._address, origin))
        document = self._show(packet, self._peers.get(origin))
        held = (str(document.version), document.digest) if packet.stamp else (None, None)
        for address, query in [question for question in self._queries if question[0] == origin]:
            del self._queries[address, query]
            self._out.emit(QueryAnswered(query, origin, *held))
        self.documents.take(document, packet.stamp, now)

    def _show(self, packet: Packet, peer: Peer | None) -> Document:
        """Return the packet's document, and store its state hash as the digest of ``peer``."""
        document = document_of(packet.stamp, packet.data)
        if peer is not None and packet.stamp:
            peer.digest = document.state_hash
        return document

    def _hear(self, node: PekoNodeId, origin: Address, now: Now) -> Peer | None:
        """Record a sign of life of ``origin``, and return its peer.

        Returns None for a packet that must not be relayed: the node record in the packet is out of date, or the node
        list is full.
        """
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
            # This packet is a late copy with the origin's former name or private data. Go nodes use both as a part of a
            # node's key, so the relayed copy would keep the entry for the former values alive on Go nodes.
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

    def _pass_on(self, packet: Packet) -> None:
        """Relay a rumor to ``amount`` nodes: first to nodes that are not infected, then to infected nodes.

        An infected node may have missed the rumor, because the datagram with the rumor may have been lost. An infected
        node that has the rumor does not relay the additional copy.
        """
        amount, origin = self.settings.amount, packet.node.label
        targets = self._peers.pick(amount, packet.infected | {origin})
        chosen = {origin, *(peer.id.label for peer in targets)}
        self._out.spread(packet, targets + self._peers.pick(amount - len(targets), chosen))

    def _spread(self) -> None:
        """Send the document that was published on this node to ``amount`` nodes."""
        document = self.documents.current
        if document is not None and self.status in ("running", "paused"):
            update = self._out.update(document, self.documents.stamp)
            self._out.spread(update, self._peers.pick(self.settings.amount))

    def take_transmits(self) -> list[Transmit | Rumor]:
        """Return all packets queued since the last call.

        Each packet is sent without framing, because PekoNode has no frames.
        """
        return [*self._out.take_transmits()]

    def take_events(self) -> list[Event]:
        """Return all events queued since the last call."""
        return self._out.take_events()

    # -- time ---------------------------------------------------------------------------------------------------

    def start(self, now: Now, known: Iterable[Known] = (), documents: Iterable[Document] = ()) -> None:
        """Join the cluster: load the stored document, and contact seeds and nodes known from an earlier run.

        A second call has no effect.
        """
        if self.status != "new":
            return
        for document in documents:
            self.documents.restore(document)
        for entry in known:
            age = max(0.0, (now.wall_ns - entry.last_heard_ns) / 1e9)
            node = PekoNodeId(entry.address.ip, entry.address.port, entry.name, entry.private_data)
            if entry.address == self._address or self._peers.get(entry.address) is not None:
                continue
            if not entry.address.may_be_node(self._address):
                self._out.count("rx_bad_address")
                continue
            peer = Peer(entry.address, node, now.mono - age)
            peer.heard = entry.sequence
            if not self._peers.add(peer):
                self._out.count("members_full")
        self.status = "running"
        self._out.emit(Joined(self.node))
        self._swept = self._began = now.mono
        self._timers.at(now.mono + self._sweep_every, self._sweep)
        self._tick(now)

    def next_timer(self) -> float | None:
        """Monotonic time in seconds at which ``handle_timer`` is due."""
        return self._timers.next()

    def handle_timer(self, now: Now) -> None:
        """Run all timers that are due at ``now``."""
        self._timers.run(now)

    def _tick(self, now: Now) -> None:
        self._timers.at(now.mono + self.cycle, self._tick)
        if self.status == "running":
            self._beat(now)

    def _beat(self, now: Now) -> None:
        self._heartbeat()
        partner = self._peers.pick(1) or self._peers.pick_silent(1)
        if partner:
            self._out.swap(Swap.REQUEST, self.documents.current, self.documents.stamp, partner[0].address)
            self._out.emit(SwapRequested(self._address, partner[0].address))

    def _heartbeat(self) -> None:
        """Send a heartbeat to ``amount`` live nodes, and to at least one silent node, so that partitions heal."""
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
            # This process did not run for a while, so the silence of peers during that time does not count.
            self._out.count("stalls")
            for peer in self._peers.alive:
                peer.last_heard += late
        for peer in self._peers.alive:
            if now.mono - peer.last_heard > self.timeout:
                former = self._peers.move(peer, State.DEAD)
                self._out.emit(MemberChanged(peer.member(now.mono), former))
        for peer in [peer for peer in self._peers if peer.state is State.SUSPECT]:
            if now.mono - peer.last_heard > self.timeout:
                # The peer is a seed that never answered, so no event is needed.
                self._peers.move(peer, State.DEAD)
        self._peers.forget(now.mono)
        self._relay.sweep(now)
        if not self._caught_up:
            self._look_whether_caught_up(now)
        for question in [key for key, asked in self._queries.items() if now.mono - asked > QUERY_EXPIRY]:
            del self._queries[question]

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

    def former(self, now: Now) -> list[Known]:
        """Return no members: on this wire, a node that was silent for a day is contacted only if it is a seed."""
        return []
