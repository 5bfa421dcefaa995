# SPDX-License-Identifier: MIT
"""Node records: each node writes its own and names the current one in every packet; any member passes it on."""

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

#: Most records that one member gets in each window of an allowance.
_MOST = 4096
#: Seconds from a packet that names a new record until that is requested: mostly it is on its way as a rumor.
_FIRST_ASK = 0.3
#: Seconds between the first two requests, and the longest pause. Each pause is twice the one before.
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
#: Most tries that are counted. After these the pause does not grow.
_MOST_TRIES = 10


class NodeRecords:
    """Takes records, requests missing ones, and supplies those held here.

    ``frame_bytes``: most bytes of a packet.
    """

    def __init__(self, local: Local, membership: Membership, identity: Identity, out: Outbox, frame_bytes: int) -> None:
        self._local = local
        self._membership = membership
        self._identity = identity
        self._out = out
        self._frame_bytes = frame_bytes
        self._sent = Allowance()

    def remember(self, peer: Peer, name: str, private_data: str) -> None:
        """Set what is known of a peer that was not heard in this run. Its own record will replace it."""
        if name or private_data:
            peer.record.value = Record(name, private_data)

    def expect(self, peer: Peer, now: Now) -> None:
        """Expect a record: the newest packet of ``peer`` began a run or named another record.

        Request it if it does not come.
        """
        peer.record.ask_at, peer.record.asks = now.mono + _FIRST_ASK, 0

    def on_rumor(self, rumor: RecordRumor, packet: Received) -> None:
        """Take a node's own record."""
        self._take(packet.peer, rumor.record, packet.now)

    def on_records(self, message: Records, packet: Received) -> None:
        """Take records that were requested from a member."""
        for address, record in message.records:
            peer = self._membership.get(address)
            if peer is not None:
                self._take(peer, record, packet.now)

    def on_request(self, request: RecordsRequest, packet: Received) -> None:
        """Send the requested records, as many to a frame as fit.

        A request from another address than its origin's came over a connection, because datagrams were lost. The answer
        goes the same way.
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
        """Request missing records, first from their owners, then also from other members."""
        for peer in list(self._membership.incomplete.values()):
            if not peer.record_missing:
                del self._membership.incomplete[peer.address]
                continue
            if now.mono < peer.record.ask_at:
                continue
            again = peer.record.asks > 0  # a datagram had no result, so use TCP
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
        if fresh:
            self._identity.named(peer)
        if peer.record_missing:
            self._membership.changed(peer)  # the record is still missing
        else:
            peer.record.asks = 0
        if fresh and peer.liveness.introduced:
            self._out.emit(MemberChanged(snapshot(peer, now), peer.liveness.state))

    def _of(self, address: Address) -> Record | None:
        if address == self._local.address:
            return self._local.record
        peer = self._membership.get(address)
        return peer.record.value if peer else None
