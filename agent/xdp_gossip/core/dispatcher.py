# SPDX-License-Identifier: MIT
"""The dispatcher admits packets, updates the liveness of their origins, relays rumors, and calls message handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .admission import Admission
from .detector import Detector, standing_of
from .identity import Identity
from .kernel_view import KernelView
from .members.membership import Membership
from .members.peer import Peer
from .members.timing import Timing
from .messages import (
    Ack,
    Alerts,
    Announce,
    Answer,
    AppliedAnswer,
    AppliedQuery,
    Chunk,
    Documents,
    FetchRequest,
    FilesAnswer,
    FilesQuery,
    IndirectAck,
    ListRequest,
    ListResponse,
    MemberList,
    NodeListRequest,
    NotHere,
    Ping,
    PingRequest,
    Query,
    RecordRumor,
    Records,
    RecordsRequest,
    Removed,
    SyncRequest,
    SyncResponse,
)
from .observers.answers import Answers
from .observers.cuts import Cuts
from .observers.edges import Acknowledgement, Edges
from .observers.rings import K
from .outbox import Outbox
from .packets import EDGES, FLAG_PAUSED, LONG, RUMORS, Codec, Header, PacketType, Rejected
from .paths import Paths
from .peer_selection import PeerSelection
from .queries import Queries
from .received import Received
from .registry import Message
from .runs import after
from .sync.anti_entropy import AntiEntropy
from .sync.catchup import CatchUp
from .sync.fetch import Fetcher
from .sync.nodelists import NodeLists
from .sync.records import NodeRecords
from .sync.supply import Supply
from .types import Address, Now, State

#: Type of a message handler. The arguments of a handler are the message, and the packet that carried the message.
Handler = Callable[[Any, Received], None]


class Dispatcher:
    """Processes each packet by the steps in docs/protocol.md, "What a packet goes through".

    ``handlers`` maps each message class of ``messages.py`` to its handler.
    """

    def __init__(
        self,
        codec: Codec,
        admission: Admission,
        membership: Membership,
        detector: Detector,
        selection: PeerSelection,
        anti_entropy: AntiEntropy,
        lists: NodeLists,
        fetcher: Fetcher,
        supply: Supply,
        records: NodeRecords,
        queries: Queries,
        kernel_view: KernelView,
        identity: Identity,
        paths: Paths,
        edges: Edges,
        answers: Answers,
        cuts: Cuts,
        out: Outbox,
        timing: Timing,
        catch_up: CatchUp,
    ) -> None:
        self._codec = codec
        self._admission = admission
        self._membership = membership
        self._detector = detector
        self._selection = selection
        self._anti_entropy = anti_entropy
        self._lists = lists
        self._records = records
        self._kernel_view = kernel_view
        self._identity = identity
        self._paths = paths
        self._edges = edges
        self._answers = answers
        edges.on_answer = self._on_edge_answer
        #: Called when a member tells this node that it removed the node under an incarnation.
        self.on_removed: Callable[[int, Now], None] = lambda incarnation, now: None
        self._out = out
        self._timing = timing
        self._catch_up = catch_up
        self.handlers: dict[type[Message], Handler] = {
            SyncRequest: anti_entropy.on_request,
            SyncResponse: anti_entropy.on_response,
            MemberList: self._on_members,
            NodeListRequest: lists.on_request,
            ListRequest: anti_entropy.on_list_request,
            ListResponse: anti_entropy.on_list,
            Documents: anti_entropy.on_documents,
            Announce: anti_entropy.on_announce,
            FetchRequest: supply.on_request,
            Chunk: fetcher.on_chunk,
            NotHere: fetcher.on_not_here,
            RecordRumor: records.on_rumor,
            RecordsRequest: records.on_request,
            Records: records.on_records,
            Ping: detector.on_ping,
            Ack: self._on_ack,
            PingRequest: detector.on_ping_request,
            IndirectAck: detector.on_indirect_ack,
            Query: queries.on_query,
            Answer: queries.on_answer,
            AppliedQuery: queries.on_applied_query,
            AppliedAnswer: queries.on_applied_answer,
            FilesQuery: queries.on_files_query,
            FilesAnswer: queries.on_files_answer,
            Alerts: cuts.on_alerts,
            Removed: self._on_removed,
        }

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Process one packet that came from ``source``. The cheapest checks come first (docs/protocol.md).

        ``screened``: a data plane has already found that the packet is authentic, recent and not a duplicate, and has
        relayed it. Returns True for an accepted rumor, False for a rejected packet, None for any other accepted packet.
        """
        try:
            header = self._admission.parse(data)
            if header.type in EDGES:
                self._admission.admit_edge(data, header, now)
                self._take_edge(header, now)
                return None
            peer, message = self._admission.admit(data, header, now, screened)
        except Rejected as rejected:
            self._out.count(f"rx_{rejected.reason}")
            return False
        self._accept(peer, header, now)
        if header.type in RUMORS and not screened:
            self._relay_on(data, header, source)
            # The data plane passed this packet on unchecked, so send the data plane the current state of the packet's
            # origin.
            if self._kernel_view.observing:
                self._out.emit(standing_of(peer))
        over_stream = source != header.origin and header.type not in RUMORS
        if over_stream and header.type is PacketType.SWAP_REQUEST and len(data) <= LONG:
            self._paths.asked_again(peer, now)
        self._out.over_stream = header.origin if over_stream else None
        try:
            if message is not None:
                self.handlers[type(message)](message, Received(peer, header, source, now))
            elif header.type is PacketType.LEAVE:
                self._detector.left(peer, header.incarnation, header.sequence, now)
        finally:
            self._out.over_stream = None
        return True if header.type in RUMORS else None

    def _accept(self, peer: Peer, header: Header, now: Now) -> None:
        """Mark an admitted packet as seen, and update the clock, liveness and documents digest of its origin."""
        if self._membership.commit(peer, header):
            self._records.expect(peer, now)
        self._admission.note_clock(peer, (header.wall_ns - now.wall_ns) / 1e9)
        late = not after((header.incarnation, header.sequence), peer.liveness.gone_at)
        silent = header.flags & FLAG_PAUSED or header.type is PacketType.LEAVE
        if not late and not silent and (header.type in RUMORS or peer.liveness.state is not State.LEFT):
            self._detector.heard(peer, now)
            if self._detector.is_condemned(peer):
                self._tell_removed(peer, header, now)
        if header.documents_digest == self._anti_entropy.documents_digest:
            self._catch_up.equals(peer)
        elif peer.present:
            self._selection.differs(now)
        self._selection.answered(peer.address)

    def _take_edge(self, header: Header, now: Now) -> None:
        if header.type is PacketType.EDGE_PROBE:
            self._answers.answer(header, now)
        else:
            self._edges.receive(header, now)

    def _on_edge_answer(self, peer: Peer, answer: Acknowledgement, now: Now) -> None:
        """Update what an acknowledgement tells of its origin. It replaces a heartbeat for the observer."""
        _, incarnation, _, _, last_seen, clock_ahead, documents_digest, record_digest, flags, _ = answer
        if self._membership.acknowledged(peer, incarnation, documents_digest, record_digest, flags):
            self._records.expect(peer, now)
        if last_seen >= self._kernel_view.woke_up_at:  # as in ``KernelView.take``
            self._admission.note_clock(peer, clock_ahead)
        if documents_digest == self._anti_entropy.documents_digest:
            self._catch_up.equals(peer)
        elif peer.present:
            self._selection.differs(now)
        self._selection.answered(peer.address)

    def _on_removed(self, message: Removed, packet: Received) -> None:
        self.on_removed(message.incarnation, packet.now)

    def _tell_removed(self, peer: Peer, header: Header, now: Now) -> None:
        """Tell a node that this member removed it, so that it returns as soon as it hears others again.

        Each member hears its heartbeats, so only about K of them answer a heartbeat. Nothing but heartbeats and
        requests is answered: two members that removed each other would answer the answers forever.
        """
        heard_by_all = header.type is PacketType.HEARTBEAT and self._out.rng.random() * self._timing.members < K
        if heard_by_all or header.type is PacketType.SWAP_REQUEST:
            self._out.send(Removed(peer.liveness.condemned), peer.address, now)

    def _on_members(self, message: MemberList, packet: Received) -> None:
        if not self._lists.shares_nodes(packet.origin):
            self._identity.met(packet.peer, message.members, packet.now)
        self._lists.on_list(message, packet)

    def _on_ack(self, ack: Ack, packet: Received) -> None:
        self._detector.on_ack(ack, packet)
        self._paths.on_ack(ack.nonce, packet.peer)

    def _relay_on(self, data: bytes, header: Header, source: Address) -> None:
        onward = self._codec.relayed(data)
        if onward is None:
            self._out.count("relay_ttl_exceeded")
            return
        targets = self._membership.targets(self._timing.copies(header.type), header.origin, source)
        self._out.forward(onward, targets)
        self._out.count("relayed", len(targets))
