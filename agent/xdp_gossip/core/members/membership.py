# SPDX-License-Identifier: MIT
"""The NodeList: every known node with its newest data, and a digest of the list that two members compare."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Callable

from ..messages import MemberInfo, Sighting
from ..packets import FLAG_CATCHING_UP, FLAG_UNSTORED, RUMORS, Header, Rejected
from ..revision import Revision
from ..runs import later
from ..types import Address, Now, State
from .peer import DIRECT_WINDOW, MEMBER_BUCKETS, RUMOR_WINDOW, Peer, SyncState, bucket_of
from .window import ReplayWindow
from .zones import RENEWED, Zones

#: Minimum seconds for which a dead node stays in the NodeList (see :meth:`Membership.forget_old`). While a dead
#: node is in the NodeList, this member tries from time to time to contact it.
FORGET_AFTER = 86_400.0

_MASK = (1 << 64) - 1


class Membership:
    """All known peers by address."""

    def __init__(self, local: Address, max_nodes: int, rng: random.Random, zone: str = "") -> None:
        self._local = local
        self.zones = Zones(zone, rng)
        self._max_nodes = max_nodes
        self._rng = rng
        self._peers: dict[Address, Peer] = {}
        #: The same peers as in ``_peers``, by their keys in a data plane's table.
        self.by_key: dict[bytes, Peer] = {}
        # Indexes, so that no caller has to search all peers: suspect peers, absent peers, present peers whose record is
        # missing, and peers that left. Dicts keep the order of insertion.
        self.suspects: dict[Address, Peer] = {}
        self.gone: dict[Address, Peer] = {}
        self.incomplete: dict[Address, Peer] = {}
        self._left: dict[Address, Peer] = {}
        self._watched: dict[Address, Peer] = {}
        #: Absent peers whose host answers although the agent does not run.
        self.down: dict[Address, Peer] = {}
        #: The revision number, which increases with every visible change of a peer.
        self.revision = Revision()
        self.on_forget: Callable[[Peer], None] = lambda peer: None
        #: Absent nodes that made room for new nodes while this member saw no majority of the voters. They stay voters,
        #: so that a minority cannot become a majority by a full NodeList.
        self.displaced: dict[Address, None] = {}
        #: Returns whether this member has forgotten the node with this address, so that the word of another member who
        #: lists the node as dead does not add the node again.
        self.disowns: Callable[[Address], bool] = lambda address: False
        #: Monotonic time up to which this member knows all signs of life; silence after this time does not count. While
        #: no data plane is active, ``informed_until`` is infinite. While a data plane is active, this member reads the
        #: recorded signs of life only once a cycle.
        self.informed_until = math.inf
        #: Every alive peer was last heard at this monotonic time or later, so that nobody has to search all peers for
        #: silent ones. Whoever sets an earlier time lowers the bound.
        self.heard_since = -math.inf
        self._present: list[Address] | None = None
        self._observed: list[Address] | None = None
        self._ordered: list[Address] | None = None
        self._digest = 0
        #: The bucket of the local node.
        self.local_bucket = bucket_of(local)
        self._buckets = [0] * MEMBER_BUCKETS
        self._by_bucket: list[dict[Address, Peer]] = [{} for _ in range(MEMBER_BUCKETS)]

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, address: Address) -> Peer | None:
        """The peer with the address ``address``; None if there is no such peer."""
        return self._peers.get(address)

    def add(self, address: Address, now: Now) -> Peer:
        """Add a new peer and return it.

        No other method adds peers, so the checks of this method apply to every new address. If the NodeList is full,
        the absent peer that was silent longest makes room. Raises ``Rejected``: bad_address (no remote node can have
        the address), table_full (all entries are present nodes).
        """
        if not address.may_be_node(self._local):
            raise Rejected("bad_address")
        if len(self._peers) >= self._max_nodes:
            self._make_room()
        self.displaced.pop(address, None)
        peer = Peer(address, now)
        self._peers[address] = self.by_key[peer.key] = self._by_bucket[peer.bucket][address] = peer
        self._ordered = None
        peer.watched_by(self.revision)
        self.revision.advance()
        if self._present is not None:
            self._present.append(address)
        self.changed(peer)
        return peer

    def _make_room(self) -> None:
        """Forget one absent peer: one that left or was never heard, else a dead one, else one without agent.

        A peer that was heard and has not left stays a voter in :attr:`displaced` unless this member sees a majority.
        Raises ``Rejected``.
        """

        def rank(peer: Peer) -> tuple[bool, bool, float]:
            live = peer.liveness
            return (live.state is State.AGENT_DOWN, live.state is State.DEAD and peer.heard, live.last_heard)

        if not self.gone:
            raise Rejected("table_full")
        peer = min(self.gone.values(), key=rank)
        if any(rank(peer)[:2]) and not self.sees_majority:
            self.displaced[peer.address] = None
        self.forget(peer)

    @property
    def sees_majority(self) -> bool:
        """Whether the alive nodes, including the local node, are a majority of the voters.

        The voters are all known nodes that were ever heard and have not left. If no other node was ever heard, the
        configured seeds are voters as well, because one of them may be a member of a running cluster.
        """
        heard = [peer for peer in self if peer.heard and peer.liveness.state is not State.LEFT]
        alive = sum(peer.liveness.state is State.ALIVE for peer in heard)
        voters = len(heard) or len(self._peers) - len(self._left)
        return 1 + alive > (1 + voters + len(self.displaced)) // 2

    def forget_old(self, now: Now) -> None:
        """Forget the nodes that left or died more than :data:`FORGET_AFTER` seconds ago.

        A dead node is a voter until it is forgotten. So dead nodes are forgotten only while this member sees a majority
        of the voters. A node whose host still answers (``AGENT_DOWN``) is never forgotten.
        """
        old = [peer for peer in self.gone.values() if now.mono - peer.liveness.last_heard > FORGET_AFTER]
        majority = bool(old or self.displaced) and self.sees_majority
        if majority:
            self.displaced.clear()
        states = {State.LEFT, State.DEAD} if majority else {State.LEFT}
        for peer in old:
            if peer.liveness.state in states:
                self.forget(peer)

    def forget(self, peer: Peer) -> None:
        """Remove a peer from the NodeList and from all indexes."""
        del self._peers[peer.address]
        del self.by_key[peer.key], self._by_bucket[peer.bucket][peer.address]
        for kind in (self.suspects, self.gone, self.incomplete, self._left, self._watched, self.down):
            kind.pop(peer.address, None)
        self._set_state_hash(peer, 0)
        self.zones.place(peer.address, None)
        self._present = self._observed = self._ordered = None
        peer.watched_by(None)
        self.revision.advance()
        self.on_forget(peer)

    def _set_state_hash(self, peer: Peer, state_hash: int) -> None:
        """Make ``state_hash`` the summand of a peer in the digests of the NodeList and of the peer's bucket."""
        change = state_hash - peer.state_hash
        peer.state_hash = state_hash
        self._digest = (self._digest + change) & _MASK
        self._buckets[peer.bucket] = (self._buckets[peer.bucket] + change) & _MASK

    def changed(self, peer: Peer) -> None:
        """Update the digest and the indexes after a change of a peer's state, incarnation or record digest."""
        state_hash = (
            _state_hash(peer.address, peer.incarnation, peer.record_digest) if peer.present and peer.heard else 0
        )
        self._set_state_hash(peer, state_hash)
        if peer.present is (peer.address in self.gone):
            self._present = None
        watched = peer.heard and (peer.present or peer.liveness.state is State.AGENT_DOWN)
        if watched is (peer.address not in self._watched):
            self._observed = None
        self.zoned(peer)
        _sort(self._watched, peer, watched)
        _sort(self.suspects, peer, peer.liveness.state is State.SUSPECT)
        _sort(self.gone, peer, not peer.present)
        _sort(self._left, peer, peer.liveness.state is State.LEFT)
        _sort(self.down, peer, peer.liveness.state is State.AGENT_DOWN)
        _sort(self.incomplete, peer, peer.present and peer.record_missing)

    def zoned(self, peer: Peer) -> None:
        """Update the index of zones after a change of a peer's state or record."""
        self.zones.place(peer.address, peer.zone if peer.present else None)

    @property
    def number_present(self) -> int:
        """Number of present peers."""
        return len(self._peers) - len(self.gone)

    @property
    def number_alive(self) -> int:
        """Number of alive peers."""
        return self.number_present - len(self.suspects)

    def digest(self, local_incarnation: int, local_record_digest: int) -> int:
        """64-bit digest over all present members, including the local member. Equal NodeLists have equal digests."""
        return (self._digest + self.local_hash(local_incarnation, local_record_digest)) & _MASK

    def buckets(self, local_incarnation: int, local_record_digest: int) -> list[int]:
        """64-bit digests of the buckets: each is :meth:`digest` over the nodes of one bucket."""
        buckets = list(self._buckets)
        state_hash = self.local_hash(local_incarnation, local_record_digest)
        buckets[self.local_bucket] = (buckets[self.local_bucket] + state_hash) & _MASK
        return buckets

    def size_of_bucket(self, bucket: int) -> int:
        """Number of known peers in the bucket with the number ``bucket``."""
        return len(self._by_bucket[bucket])

    def in_bucket(self, bucket: int) -> Iterator[Peer]:
        """Iterate over the known peers in the bucket with the number ``bucket``."""
        return iter(self._by_bucket[bucket].values())

    def local_hash(self, incarnation: int, record_digest: int) -> int:
        """The summand of the local node in the digest of the NodeList."""
        return _state_hash(self._local, incarnation, record_digest)

    @property
    def present(self) -> list[Address]:
        """Addresses of all present peers. The caller must not change the list."""
        if self._present is None:
            self._present = [peer.address for peer in self._peers.values() if peer.present]
        return self._present

    @property
    def observed(self) -> list[Address]:
        """Addresses of the members that observe each other: the local node, and all peers that were heard and are
        present or whose host answers. The same object is returned until one comes or goes.
        """
        if self._observed is None:
            self._observed = [self._local, *self._watched]
        return self._observed

    def after(self, address: Address | None) -> Iterator[Peer]:
        """Iterate over the peers whose addresses come after ``address`` (None: all peers), sorted by address."""
        if self._ordered is None:
            self._ordered = sorted(self._peers, key=Address.order)
        first = 0 if address is None else bisect.bisect_right(self._ordered, address)
        return (self._peers[each] for each in itertools.islice(self._ordered, first, None))

    def pick(self, amount: int, *exclude: Address) -> list[Address]:
        """Addresses of up to ``amount`` present peers, chosen uniformly at random.

        Addresses in ``exclude`` are never chosen.
        """
        present = self.present
        if len(present) <= amount:
            chosen = [address for address in present if address not in exclude]
            self._rng.shuffle(chosen)
            return chosen
        chosen = self._rng.sample(present, min(len(present), amount + len(exclude)))
        return [address for address in chosen if address not in exclude][:amount]

    def targets(self, copies: int, *exclude: Address) -> list[Address]:
        """Addresses of up to ``copies`` present peers for one rumor, chosen at random, most of them in the own zone.

        Addresses in ``exclude`` are never chosen.
        """
        return self.zones.targets(copies, exclude) if self.zones.several else self.pick(copies, *exclude)

    def sample(self, limit: int, least: int, former: Sequence[Address]) -> list[Address]:
        """Up to ``limit`` present peers in random order, from which a data plane takes the targets of its rumors.

        The sample replaces a part of the sample ``former``. ``least``: the largest number of copies of a rumor.
        """
        if self.zones.several:
            return self.zones.sample(limit, least, former)
        present, rng = self.present, self._rng
        sample = list(present)
        if len(present) > limit:
            members = set(present)
            sample = [address for address in former if address in members]
            rng.shuffle(sample)
            del sample[limit - limit // RENEWED :]
            chosen = set(sample)
            while len(sample) < limit:
                address = rng.choice(present)
                if address not in chosen:
                    chosen.add(address)
                    sample.append(address)
        rng.shuffle(sample)
        return sample

    def screen(self, header: Header, screened: bool = False) -> Peer | None:
        """Check a header against the replay window, without cryptography.

        Returns the origin's peer; None if the origin is unknown. ``screened``: the data plane has already dropped
        duplicates. Raises ``Rejected``: duplicate, stale_incarnation.
        """
        peer = self._peers.get(header.origin)
        if peer is None or later(header.incarnation, peer.incarnation):
            return peer
        if header.incarnation != peer.incarnation:
            raise Rejected("stale_incarnation")
        window = peer.rumors if header.type in RUMORS else peer.directs
        if not screened and not window.fresh(header.sequence):
            raise Rejected("duplicate")
        return peer

    def remember(self, peer: Peer, incarnation: int, sequence: int) -> None:
        """Set a peer's incarnation and sequence to the values that an earlier run of this member stored.

        The caller must call :meth:`changed` afterwards.
        """
        self._begin(peer, incarnation)
        peer.sighted = sequence

    def commit(self, peer: Peer, header: Header) -> bool:
        """Update ``peer`` from an authentic header. Returns whether the peer's incarnation or record digest changed."""
        before = (peer.incarnation, peer.record_digest)
        if later(header.incarnation, peer.incarnation):
            self._begin(peer, header.incarnation)
        if header.type in RUMORS:
            peer.rumors.commit(header.sequence)
            newest = header.sequence >= peer.rumors.highest
            peer.sighted = max(peer.sighted, header.sequence)
        else:
            peer.directs.commit(header.sequence)
            newest = True
        if newest:
            self._holds(peer.sync, header.documents_digest, header.flags)
            peer.record_digest = header.record_digest
        if peer.key_id != header.key_id:
            peer.key_id = header.key_id
        news = (peer.incarnation, peer.record_digest) != before
        if news:
            self.changed(peer)
        return news

    def told(self, peer: Peer, info: MemberInfo) -> None:
        """Update a peer from another member's report ``info``.

        ``info`` does not say whether the peer's documents are on the peer's disk. Only the peer's own packets say so.
        """
        sync = peer.sync
        if later(info.incarnation, peer.incarnation):
            self._begin(peer, info.incarnation)
            sync.stored = False
        sync.stored = sync.stored and info.documents_digest == sync.documents_digest
        peer.sighted = info.sequence
        peer.record_digest, sync.documents_digest = info.record_digest, info.documents_digest
        self.changed(peer)

    def recorded_run(self, peer: Peer, incarnation: int, record_digest: int) -> None:
        """Update a peer's incarnation and record digest to the values that a data plane observed."""
        if later(incarnation, peer.incarnation):
            self._begin(peer, incarnation)
        peer.record_digest = record_digest
        self.changed(peer)

    def acknowledged(self, peer: Peer, incarnation: int, documents_digest: int, record_digest: int, flags: int) -> bool:
        """Update a peer from its acknowledgement of an edge probe.

        Returns whether the peer's incarnation or record digest changed.
        """
        news = (incarnation, record_digest) != (peer.incarnation, peer.record_digest)
        if news:
            self.recorded_run(peer, incarnation, record_digest)
        self._holds(peer.sync, documents_digest, flags)
        return news

    def recorded(self, peer: Peer, highest: int, window: int, documents_digest: int, flags: int) -> None:
        """Add what a data plane has observed: the peer's replay window, and header fields of its newest rumor."""
        peer.rumors.merge(highest, window)
        if highest > peer.sighted:
            peer.sighted = highest
        self._holds(peer.sync, documents_digest, flags)

    def _begin(self, peer: Peer, incarnation: int) -> None:
        """Reset a peer for its new incarnation. The sequence numbers of a new run start again at 1."""
        peer.incarnation = incarnation
        peer.sync.caught_up = False
        peer.sighted = 0
        peer.rumors = ReplayWindow(RUMOR_WINDOW)
        peer.directs = ReplayWindow(DIRECT_WINDOW)

    @staticmethod
    def _holds(sync: SyncState, documents_digest: int, flags: int) -> None:
        sync.documents_digest = documents_digest
        sync.stored = not flags & FLAG_UNSTORED
        sync.caught_up = not flags & FLAG_CATCHING_UP

    def tally(self, local: State) -> dict[State, int]:
        """The number of nodes in each state, including the local node, whose state is ``local``."""
        left = len(self._left)
        counts = {
            State.ALIVE: self.number_alive,
            State.SUSPECT: len(self.suspects),
            State.DEAD: len(self.gone) - left - len(self.down),
            State.LEFT: left,
            State.AGENT_DOWN: len(self.down),
        }
        counts[local] += 1
        return counts

    def silence(self, peer: Peer, now: Now) -> float:
        """Seconds for which a peer has been silent. The time after :attr:`informed_until` does not count as silence."""
        return min(now.mono, self.informed_until) - peer.liveness.last_heard

    def overdue(self, silence: float, limit: int, now: Now) -> tuple[Sighting, ...]:
        """Sightings of up to ``limit`` present peers silent for at least ``silence`` seconds, longest silence first."""
        late = [p for p in self.suspects.values() if p.heard and self.silence(p, now) > silence]
        late += (peer for peer in self.alive_but_silent(silence, now) if peer.heard)
        late.sort(key=lambda peer: peer.liveness.last_heard)
        return tuple(Sighting(peer.address, peer.incarnation, peer.sighted) for peer in late[:limit])

    def alive_but_silent(self, silence: float, now: Now) -> list[Peer]:
        """The alive peers that have been silent for more than ``silence`` seconds.

        All peers are searched only if :attr:`heard_since` does not exclude that there are such peers.
        """
        before = min(now.mono, self.informed_until) - silence
        if self.heard_since >= before:
            return []
        found = []
        oldest = math.inf
        for peer in self._peers.values():
            live = peer.liveness
            if live.state is State.ALIVE:
                if live.last_heard < oldest:
                    oldest = live.last_heard
                if live.last_heard < before:
                    found.append(peer)
        self.heard_since = oldest
        return found

    def info(self, peer: Peer, now: Now) -> MemberInfo:
        """The data about ``peer`` that this member sends to other members."""
        return MemberInfo(
            address=peer.address,
            incarnation=peer.incarnation,
            sequence=peer.sighted,
            state=peer.liveness.state,
            age_ms=max(0, int((now.mono - peer.liveness.last_heard) * 1000)),
            record_digest=peer.record_digest,
            documents_digest=peer.sync.documents_digest,
        )


def _sort(kind: dict[Address, Peer], peer: Peer, belongs: bool) -> None:
    if belongs:
        kind[peer.address] = peer
    else:
        kind.pop(peer.address, None)


def _state_hash(address: Address, incarnation: int, record_digest: int) -> int:
    raw = address.packed + address.port.to_bytes(2, "big") + incarnation.to_bytes(4, "big")
    raw += record_digest.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8, person=b"xg-member").digest(), "big")
