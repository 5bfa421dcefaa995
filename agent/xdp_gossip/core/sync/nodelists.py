# SPDX-License-Identifier: MIT
"""Compares this node's NodeList with that of another member, and merges what the other member tells.

Two members with short NodeLists send each other everything. With long ones they compare the digests of 128 buckets, and
then the nodes in the buckets that differ. So one new node among ten thousand costs them less than 4 kB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Callable

from ..detector import Detector
from ..members.membership import FORGET_AFTER, Membership
from ..members.peer import Peer
from ..members.timing import Timing
from ..messages import MemberInfo, MemberList, NodeListRequest, Sighting, SyncRequest, SyncResponse
from ..outbox import Local, Outbox
from ..packets import Rejected
from ..received import Received
from ..runs import after, later
from ..types import PRESENT, Address, Now, State
from .allowance import Allowance
from .catchup import CatchUp

#: Maximum number of known nodes with which a member sends its whole NodeList at once, without bucket digests.
FEW_NODES = 64
#: Maximum number of hashes in one request for the nodes of some buckets.
KNOWN = 1024
#: Maximum bytes on the wire of one member's data and of one state hash.
_MEMBER_BYTES = 80
_HASH_BYTES = 9
_OVERDUE_LIMIT = 200
#: Limits for one member in each window of its allowance. The member gets at most _LISTS complete member lists. Its
#: requests may name buckets with at most _MEMBERS nodes, plus four for each node that this node knows. The member may
#: report at most _NEWCOMERS unknown nodes.
_LISTS = 10
_MEMBERS = 4096
_NEWCOMERS = 2048
#: Seconds after which this node forgets an unanswered request.
_ANSWER_LIFETIME = 30.0


@dataclass(frozen=True)
class _Awaited:
    """What a member was asked for: the ``buckets``, and when.

    ``due``: number of answers until all buckets that differ are compared.
    """

    due: int
    buckets: tuple[int, ...]
    when: float


def halves(digests: Iterable[int], nonce: int) -> tuple[int, ...]:
    """The lower or the upper 32 bits of each 64-bit digest, as the nonce of a sync selects.

    If two different digests match in one half by chance, their other halves differ, and a later sync detects it.
    """
    shift = 32 if nonce & 1 else 0
    return tuple(digest >> shift & 0xFFFFFFFF for digest in digests)


class NodeLists:
    """Compares, sends and merges NodeLists."""

    def __init__(
        self,
        local: Local,
        membership: Membership,
        detector: Detector,
        out: Outbox,
        timing: Timing,
        frame_bytes: int,
        catch_up: CatchUp,
    ) -> None:
        self._local = local
        self._membership = membership
        self._detector = detector
        self._out = out
        self._timing = timing
        self._frame_bytes = frame_bytes
        self._catch_up = catch_up
        self._most_overdue = min(_OVERDUE_LIMIT, frame_bytes // _MEMBER_BYTES // 2)
        self._most_known = min(KNOWN, (frame_bytes - 1024) // _HASH_BYTES)
        self._whole = Allowance()
        self._parts = Allowance()
        self._newcomers = Allowance()
        self._awaited: dict[Address, _Awaited] = {}
        # Members that have told more unknown nodes, in a list that has not ended, than they may at once.
        self._withheld: set[Address] = set()
        # Members whose NodeLists had a bucket in common with this node's at the last comparison.
        self._sharing: set[Address] = set()
        self.on_claimed: Callable[[int, Now], None] = lambda incarnation, now: None
        #: Whether this node may have missed reports about a member that is suspect because of others.
        self.misses_reports: Callable[[Address, Now], bool] = lambda address, now: False

    @property
    def digest(self) -> int:
        """The digest of this node's NodeList."""
        return self._membership.digest(self._local.incarnation, self._local.record.digest)

    def overdue(self, now: Now) -> tuple[Sighting, ...]:
        """What this node knows of the members of which it has not heard for a while, for a sync request."""
        return self._membership.overdue(self._timing.overdue, self._most_overdue, now)

    # -- comparing ---------------------------------------------------------------------------------------------

    def answer(self, request: SyncRequest, now: Now) -> SyncResponse:
        """Compare the digest in another member's sync request with this node's.

        Returns the answer as far as it is about nodes. If it asks for the requester's whole NodeList, the caller sends
        the requester this node's, too.
        """
        answer = SyncResponse(request.nonce)
        if request.members_digest == self.digest:
            return replace(answer, members=tuple(self._newer(request.overdue[: self._most_overdue], now)))
        if len(self._membership) <= FEW_NODES:
            return replace(answer, want_members=True)
        return replace(answer, member_buckets=self._halves(request.nonce), nodes=len(self._membership) + 1)

    def on_response(self, response: SyncResponse, packet: Received) -> None:
        """Merge what an answer tells of members, and go on with the comparison if the NodeLists differ."""
        peer, now = packet.peer, packet.now
        self.merge(response.members, peer.address, now)
        if response.want_members:
            self.send_all(peer.address, now)
            return
        own = self._halves(response.nonce)
        differing = [i for i, digest in enumerate(response.member_buckets) if digest != own[i]]
        of_these_two = (peer.bucket, self._membership.local_bucket)
        equal = (i for i, digest in enumerate(response.member_buckets) if digest == own[i] and i not in of_these_two)
        self._shares(peer.address, any(own[i] for i in equal))
        if differing:
            self._ask(differing, response.nodes, peer.address, now)
        else:
            self._catch_up.members_told(peer, now)

    def _halves(self, nonce: int) -> tuple[int, ...]:
        return halves(self._membership.buckets(self._local.incarnation, self._local.record.digest), nonce)

    def _ask(self, buckets: list[int], nodes: int, to: Address, now: Now) -> None:
        """Request what ``to``, which knows ``nodes`` nodes, has in ``buckets``, and tell it which are absent here.

        If all nodes there may be unknown here, and more than ``to`` may report now, random ones of the buckets must do.
        The next syncs bring the others.
        """
        room = self._newcomers.left(to, _NEWCOMERS, now)
        if not room:
            return
        room = max(1, room * len(buckets) // max(1, nodes - len(self._membership)))
        part = sorted(self._out.rng.sample(buckets, min(len(buckets), room)))
        requests = [NodeListRequest((), ())]
        absent: list[Peer] = []
        for bucket in part:
            former, hashes = requests[-1], self._hashes(bucket)
            if former.buckets and len(former.known) + len(hashes) > self._most_known:
                former = NodeListRequest((), ())
                requests.append(former)
            requests[-1] = NodeListRequest((*former.buckets, bucket), (*former.known, *hashes[: self._most_known]))
            absent += (peer for peer in self._in_bucket(bucket) if not peer.state_hash)
        self._awaited[to] = _Awaited(len(requests) + (len(part) < len(buckets)), tuple(part), now.mono)
        for request in requests:
            self._out.send(request, to, now)
        self._send(absent, to, now)

    def on_request(self, request: NodeListRequest, packet: Received) -> None:
        """Send the nodes of some buckets that the requester does not know as this node does, and the absent ones."""
        requester, now = packet.origin, packet.now
        buckets = sorted(set(request.buckets))
        wanted = sum(self._membership.size_of_bucket(bucket) for bucket in buckets) + len(buckets)
        if self._parts.take(requester, wanted, _MEMBERS + 4 * len(self._membership), now) < wanted:
            self._out.count("member_lists_withheld")
            return
        known = set(request.known[:KNOWN])
        told: list[Peer] = []
        held: set[int] = set()
        for bucket in buckets:
            held.update(self._hashes(bucket))
            told += (peer for peer in self._in_bucket(bucket) if peer.state_hash not in known)
        unknown = tuple(sorted(known - held))
        differing = sum(peer.present for peer in told if peer is not packet.peer)
        self._shares(requester, self._membership.number_present - packet.peer.present > differing)
        self._send(told, requester, now, unknown, last=True)

    def on_list(self, message: MemberList, packet: Received) -> None:
        """Merge nodes that another member tells of, and tell it of those that it says not to know."""
        peer, now = packet.peer, packet.now
        self.merge(message.members, peer.address, now)
        if not message.last:
            return
        asked = self._awaited.pop(peer.address, None)
        whole = peer.address not in self._withheld
        self._withheld.discard(peer.address)
        if asked is not None and (asked.due > 1 or not whole):
            self._awaited[peer.address] = replace(asked, due=asked.due - whole)
        elif whole:
            self._catch_up.members_told(peer, now)
        if asked is None and message.unknown:
            self._out.count("rx_unasked_response")
        elif asked is not None:
            unknown = set(message.unknown[:KNOWN]) - {0}
            nodes = (each for bucket in asked.buckets for each in self._in_bucket(bucket))
            self._send([each for each in nodes if each.state_hash in unknown], peer.address, now)

    def shares_nodes(self, member: Address) -> bool:
        """Whether a part of the NodeList of ``member`` is known to be equal here, so that it is no other fleet's."""
        return member in self._sharing

    def _shares(self, member: Address, shares: bool) -> None:
        if shares:
            self._sharing.add(member)
        else:
            self._sharing.discard(member)

    def forget(self, member: Address) -> None:
        """Forget what was compared with ``member``."""
        self._awaited.pop(member, None)
        self._withheld.discard(member)
        self._sharing.discard(member)

    def tick(self, now: Now) -> None:
        """Forget requests that got no answer within 30 s."""
        self._awaited = {to: item for to, item in self._awaited.items() if now.mono - item.when < _ANSWER_LIFETIME}

    def _hashes(self, bucket: int) -> list[int]:
        """The hashes of the present nodes in a bucket, this node included."""
        hashes = [peer.state_hash for peer in self._in_bucket(bucket) if peer.state_hash]
        if bucket == self._membership.local_bucket:
            hashes.append(self._membership.local_hash(self._local.incarnation, self._local.record.digest))
        return hashes

    def _in_bucket(self, bucket: int) -> list[Peer]:
        return [peer for peer in self._membership.in_bucket(bucket) if peer.heard]

    # -- sending -----------------------------------------------------------------------------------------------

    def send_all(self, to: Address, now: Now) -> None:
        """Send ``to`` the data of all peers that were ever heard, if the member ``to`` has some allowance left.

        If these are more than a member believes at once, it gets random ones. It asks for the others itself.
        """
        if not self._whole.take(to, 1, _LISTS, now):
            self._out.count("member_lists_withheld")
            return
        peers = [peer for peer in self._membership if peer.heard]
        if len(peers) > _NEWCOMERS:
            self._send(self._out.rng.sample(peers, _NEWCOMERS), to, now)
        else:
            self._send(peers, to, now, last=True)

    def _send(
        self, peers: list[Peer], to: Address, now: Now, unknown: tuple[int, ...] = (), last: bool = False
    ) -> None:
        """Send the data of ``peers`` in as many frames as necessary.

        ``unknown`` and ``last`` are fields of the last message. If ``last`` is set, at least one message is sent.
        """
        step = max(1, (self._frame_bytes - 256 - _HASH_BYTES * len(unknown)) // _MEMBER_BYTES)
        infos = [self._membership.info(peer, now) for peer in peers]
        while len(infos) > step:
            self._out.send(MemberList(tuple(infos[:step])), to, now)
            del infos[:step]
        if infos or last:
            self._out.send(MemberList(tuple(infos), last, unknown), to, now)

    def _newer(self, overdue: Iterable[Sighting], now: Now) -> Iterator[MemberInfo]:
        for sighting in overdue:
            peer = self._membership.get(sighting.address)
            if peer is None or peer.liveness.state is State.DEAD:
                continue
            if after((peer.incarnation, peer.sighted), (sighting.incarnation, sighting.sequence)):
                yield self._membership.info(peer, now)

    # -- merging -----------------------------------------------------------------------------------------------

    def merge(self, infos: Iterable[MemberInfo], teller: Address, now: Now) -> None:
        """Update the NodeList from ``infos``, another member's data, where these data are newer than this node's.

        The member ``teller`` may report at most ``_NEWCOMERS`` unknown nodes per window of its allowance. The limit
        does no harm to nodes that exist, because this node also hears such nodes directly or from other members.
        Without the limit, a member could report nodes that do not exist, and this node would probe these nodes in vain.
        """
        for info in infos:
            if info.address == self._local.address:
                self._hear_of_myself(info, now)
            elif self._membership.get(info.address) is not None:
                self._merge_member(info, now)
            elif self._newcomers.take(teller, 1, _NEWCOMERS, now):
                self._merge_member(info, now)
            else:
                self._withheld.add(teller)
                self._out.count("members_withheld")

    def _hear_of_myself(self, info: MemberInfo, now: Now) -> None:
        """Refute a report that this node left, or that this node has a later incarnation than it really has.

        A report that this node is dead needs no answer: the next sign of life ends it, or ``Removed`` tells more.
        If the report contains a rumor sequence that this node has not reached in this incarnation, a twin (another host
        with this address) uses the same incarnation.
        """
        if self._local.status != "running":
            return
        if info.incarnation == self._local.incarnation and info.sequence > self._out.rumor_sequence:
            self.on_claimed(info.incarnation, now)
            return
        if later(info.incarnation, self._local.incarnation) or (
            info.incarnation == self._local.incarnation and info.state is State.LEFT
        ):
            self._detector.on_accused(info.incarnation, now)

    def _merge_member(self, info: MemberInfo, now: Now) -> None:
        age = info.age_ms / 1000
        if info.incarnation == 0 or age > FORGET_AFTER:
            return
        peer = self._membership.get(info.address)
        fresh = info.state in PRESENT and age < self._timing.timeout
        if peer is None and not fresh and self._membership.disowns(info.address):
            return
        if peer is None:
            try:
                peer = self._membership.add(info.address, now)
            except Rejected as rejected:
                self._out.count(f"rx_{rejected.reason}")
                return
            self._membership.told(peer, info)
            state = State.ALIVE if fresh else info.state if info.state not in PRESENT else State.DEAD
            self._detector.enter(peer, state, now.mono - age, now)
            return
        if info.state is State.DEAD and info.incarnation == peer.incarnation and self.misses_reports(info.address, now):
            # The observers' reports made it suspect here, and removed it there: this node has missed some of them.
            self._detector.condemn(peer, now)
        if not after((info.incarnation, info.sequence), (peer.incarnation, peer.sighted)):
            if info.state is State.LEFT and (info.incarnation, info.sequence) == (peer.incarnation, peer.sighted):
                self._detector.left(peer, info.incarnation, info.sequence, now)
            return
        self._membership.told(peer, info)
        if info.state is State.LEFT:
            self._detector.left(peer, info.incarnation, info.sequence, now)
        elif fresh:
            self._detector.heard(peer, now, age)
