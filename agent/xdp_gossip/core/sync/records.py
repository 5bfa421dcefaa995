# SPDX-License-Identifier: MIT
"""Node records: each node writes its own record, and puts the record's digest into every packet.

Any member can supply the records of all nodes on request.
"""

from __future__ import annotations

from ..detector import snapshot
from ..events import MemberChanged
from ..identity import Identity
from ..members.membership import Membership
from ..members.peer import Peer
from ..messages import RecordRumor, Records, RecordsRequest
from ..outbox import Local, Outbox
from ..received import Received
from ..runs import after
from ..types import Address, Now, Record
from .allowance import Allowance

#: Maximum number of records that this node sends to one member in each window of its allowance.
_MOST = 4096
#: Seconds from a packet with a new record digest until the record is requested. Usually the record arrives within this
#: time, as a rumor.
_FIRST_ASK = 0.3
#: Seconds between the first and the second request for a record, and maximum seconds between two requests for it. Each
#: pause between two requests is twice the pause before.
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
#: The counter of requests for a record stops at this value, because the pause between requests grows exponentially with
#: the counter.
_MOST_TRIES = 10


class NodeRecords:
    """Stores received node records, requests missing records, and supplies records to other members.

    ``frame_bytes``: maximum bytes of a packet.
    """

    def __init__(self, local: Local, membership: Membership, identity: Identity, out: Outbox, frame_bytes: int) -> None:
        self._local = local
        self._membership = membership
        self._identity = identity
        self._out = out
        self._frame_bytes = frame_bytes
        self._sent = Allowance()

    def remember(self, peer: Peer, name: str, private_data: str, zone: str = "") -> None:
        """Give a peer that was not heard in this run a provisional record from stored values.

        The peer's own record will replace this record.
        """
        if name or private_data or zone:
            peer.record.value = Record(name, private_data, zone=zone)
            self._membership.zoned(peer)

    def expect(self, peer: Peer, now: Now) -> None:
        """Schedule a request for the record of ``peer``, whose newest packet has a new incarnation or record digest.

        If the record arrives as a rumor before the scheduled time, this node sends no request.
        """
        peer.record.ask_at, peer.record.asks = now.mono + _FIRST_ASK, 0

    def on_rumor(self, rumor: RecordRumor, packet: Received) -> None:
        """Store the record that the origin of the rumor spread about itself."""
        self._take(packet.peer, rumor.record, packet.now)

    def on_records(self, message: Records, packet: Received) -> None:
        """Store the records that a member sent as the answer to a request."""
        for address, record in message.records:
            peer = self._membership.get(address)
            if peer is not None:
                self._take(peer, record, packet.now)

    def on_request(self, request: RecordsRequest, packet: Received) -> None:
        """Send the requested records, with as many records in each frame as fit into it.

        If the source address of a request is not the address of its origin, the request came over TCP, because
        datagrams were lost. The answer to a request over TCP also goes over TCP.
        """
        requester, now = packet.origin, packet.now
        reliable = packet.source != requester
        batch: list[tuple[Address, Record]] = []
        used = 0
        for address in dict.fromkeys(request.addresses):
            record = self._of(address)
            if record is None:
                continue
            if not self._sent.take(requester, 1, _MOST, now):
                self._out.count("records_withheld")
                continue
            size = self._out.codec.size_of(Records(((address, record),)))
            if batch and used + size > self._frame_bytes:
                self._out.send(Records(tuple(batch)), requester, now, reliable)
                batch, used = [], 0
            batch.append((address, record))
            used += size
        if batch:
            self._out.send(Records(tuple(batch)), requester, now, reliable)

    def tick(self, now: Now) -> None:
        """Request each missing record, alternately from the node that the record describes and from a random member."""
        for peer in list(self._membership.incomplete.values()):
            if not peer.record_missing:
                del self._membership.incomplete[peer.address]
                continue
            if now.mono < peer.record.ask_at:
                continue
            again = peer.record.asks > 0  # the first request was a datagram and is lost, so use TCP now
            helpers = self._membership.pick(1, peer.address) if peer.record.asks % 2 else []
            peer.record.ask_at = now.mono + min(_LONGEST_PAUSE, _PAUSE * 2**peer.record.asks)
            peer.record.asks = min(_MOST_TRIES, peer.record.asks + 1)
            target = helpers[0] if helpers else peer.address
            self._out.send(RecordsRequest((peer.address,)), target, now, reliable=again)

    def _take(self, peer: Peer, record: Record, now: Now) -> None:
        if peer.record.value is not None and not after(record.stamp, peer.record.value.stamp):
            return
        fresh = peer.record.value is None or peer.record.value.digest != record.digest
        peer.record.value = record
        self._membership.zoned(peer)
        if fresh:
            self._identity.named(peer)
        if peer.record_missing:
            self._membership.changed(peer)  # the received record is older than the stored record
        else:
            peer.record.asks = 0
        if fresh and peer.liveness.introduced:
            self._out.emit(MemberChanged(snapshot(peer, now), peer.liveness.state))

    def _of(self, address: Address) -> Record | None:
        if address == self._local.address:
            return self._local.record
        peer = self._membership.get(address)
        return peer.record.value if peer else None
