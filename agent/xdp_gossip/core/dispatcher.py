# SPDX-License-Identifier: MIT
"""The way of a packet: it is let in, taken note of, relayed, and given to whom it concerns."""

from __future__ import annotations

from .admission import Admission
from .detector import Detector, snapshot, standing_of
from .events import MemberChanged
from .identity import Identity
from .kernel_view import KernelView
from .members.membership import Membership, Peer
from .members.timing import Timing
from .messages import (
    Ack,
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
    Message,
    NotHere,
    Ping,
    PingRequest,
    Query,
    RecordRumor,
    Records,
    RecordsRequest,
    SyncRequest,
    SyncResponse,
)
from .outbox import Outbox
from .packets import FLAG_PAUSED, RUMORS, Codec, Header, PacketType, Rejected
from .paths import LONG, Paths
from .peer_selection import PeerSelection
from .queries import Queries
from .runs import after
from .sync.anti_entropy import AntiEntropy
from .sync.catchup import CatchUp
from .sync.fetch import Fetcher
from .sync.supply import Supply
from .types import Address, Now, Record, State


class Dispatcher:
    """Takes packets; docs/protocol.md, "What a packet goes through"."""

    def __init__(
        self,
        codec: Codec,
        admission: Admission,
        membership: Membership,
        detector: Detector,
        selection: PeerSelection,
        anti_entropy: AntiEntropy,
        fetcher: Fetcher,
        supply: Supply,
        queries: Queries,
        kernel_view: KernelView,
        identity: Identity,
        paths: Paths,
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
        self._fetcher = fetcher
        self._supply = supply
        self._queries = queries
        self._kernel_view = kernel_view
        self._identity = identity
        self._paths = paths
        self._out = out
        self._timing = timing
        self._catch_up = catch_up

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Take one packet. Checks come in the order of their cost (docs/protocol.md).

        ``screened``: a data plane has found it authentic, fresh and new, and has relayed it. Returns True for another
        node's rumor that was taken: authentic, fresh and not seen before; False for what is refused.
        """
        try:
            peer, header, message = self._admission.admit(data, now, screened)
        except Rejected as rejected:
            self._out.count(f"rx_{rejected.reason}")
            return False
        self._accept(peer, header, now)
        if header.type in RUMORS and not screened:
            self._relay_on(data, header, source)
            if self._kernel_view.observing:  # the plane did not know what to make of it: tell it
                self._out.emit(standing_of(peer))
        over_stream = source != header.origin and header.type not in RUMORS
        if over_stream and header.type is PacketType.SWAP_REQUEST and len(data) <= LONG:
            self._paths.asked_again(peer, now)
        self._out.over_stream = header.origin if over_stream else None
        try:
            self._dispatch(peer, header, message, source, now)
        finally:
            self._out.over_stream = None
        return True if header.type in RUMORS else None

    def _accept(self, peer: Peer, header: Header, now: Now) -> None:
        """An authentic, fresh packet: commit it, and take note of its sender."""
        before = (peer.incarnation, peer.record_digest)
        self._membership.commit(peer, header)
        peer.clock_ahead = (header.wall_ns - now.wall_ns) / 1e9
        if peer.key_slot != header.key_id:
            peer.key_slot = header.key_id
        if (peer.incarnation, peer.record_digest) != before:
            self._membership.changed(peer)
            peer.record_due, peer.record_tries = now.mono + 0.3, 0
        late = not after((header.incarnation, header.sequence), peer.gone_at)
        silent = header.flags & FLAG_PAUSED or header.type is PacketType.LEAVE
        if not late and not silent and (header.type in RUMORS or peer.state is not State.LEFT):
            self._detector.heard(peer, now)
        if header.state_digest == self._anti_entropy.state_digest:
            self._catch_up.equals(peer)
        elif peer.present:
            self._selection.differs(now)
        self._selection.answered(peer.address)

    def _dispatch(self, peer: Peer, header: Header, message: Message | None, source: Address, now: Now) -> None:
        origin = header.origin
        if isinstance(message, Documents):
            if header.type not in RUMORS:
                message = self._anti_entropy.admissible(message, peer, now)
            self._fetcher.on_documents(message, origin, now)
        elif isinstance(message, Announce):
            relay = self._membership.get(source)
            holders = [origin] if relay is None or source == origin else [source, origin]
            self._anti_entropy.on_announce(message, holders, now)
        elif isinstance(message, RecordRumor):
            self._take_record(peer, message.record, now)
        elif isinstance(message, SyncRequest):
            self._anti_entropy.on_request(message, header.state_digest, origin, now)
        elif isinstance(message, SyncResponse):
            self._anti_entropy.on_response(message, peer, now)
        elif isinstance(message, MemberList):
            self._identity.met(peer, message.members, now)
            self._anti_entropy.merge_members(message.members, origin, now)
            self._catch_up.members_told(peer, now)
        elif isinstance(message, ListRequest):
            self._anti_entropy.on_list_request(message, origin, now)
        elif isinstance(message, ListResponse):
            self._anti_entropy.on_list(message, peer, now)
        elif isinstance(message, FetchRequest):
            self._supply.on_request(message, origin, now)
        elif isinstance(message, Chunk):
            self._fetcher.on_chunk(message, origin, now)
        elif isinstance(message, NotHere):
            self._fetcher.on_not_here(message, origin, now)
        elif isinstance(message, RecordsRequest):
            # What came over a connection comes from another port: its datagrams were lost, so answer in the same way.
            self._anti_entropy.on_records_request(message, origin, now, reliable=source != origin)
        elif isinstance(message, Records):
            for address, record in message.records:
                described = self._membership.get(address)
                if described is not None:
                    self._take_record(described, record, now)
        elif isinstance(message, Ping):
            self._detector.on_ping(message, origin, now)
        elif isinstance(message, Ack):
            self._detector.on_ack(message, peer, now)
            self._paths.on_ack(message.nonce, peer)
        elif isinstance(message, PingRequest):
            self._detector.on_ping_request(message, origin, now)
        elif isinstance(message, IndirectAck):
            self._detector.on_indirect_ack(message, now)
        elif isinstance(message, Query):
            self._queries.on_query(message, origin, now)
        elif isinstance(message, Answer):
            self._queries.on_answer(message, origin)
        elif isinstance(message, AppliedQuery):
            self._queries.on_applied_query(message, origin, now)
        elif isinstance(message, AppliedAnswer):
            self._queries.on_applied_answer(message, origin)
        elif isinstance(message, FilesQuery):
            self._queries.on_files_query(message, origin, now)
        elif isinstance(message, FilesAnswer):
            self._queries.on_files_answer(message, origin)
        elif header.type is PacketType.LEAVE:
            self._detector.left(peer, header.incarnation, header.sequence, now)

    def _relay_on(self, data: bytes, header: Header, source: Address) -> None:
        onward = self._codec.relayed(data)
        if onward is None:
            self._out.count("relay_ttl_exceeded")
            return
        targets = self._membership.pick(self._timing.copies(header.type), header.origin, source)
        self._out.forward(onward, targets)
        self._out.count("relayed", len(targets))

    def _take_record(self, peer: Peer, record: Record, now: Now) -> None:
        if peer.record is not None and not after(record.stamp, peer.record.stamp):
            return
        fresh = peer.record is None or peer.record.digest != record.digest
        peer.record = record
        if fresh:
            self._identity.named(peer)
        if peer.record_missing:
            self._membership.changed(peer)  # it goes on missing
        else:
            peer.record_tries = 0
        if fresh and peer.introduced:
            self._out.emit(MemberChanged(snapshot(peer, now), peer.state))
