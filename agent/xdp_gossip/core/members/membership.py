# SPDX-License-Identifier: MIT
"""The NodeList: every known node, what was last heard of it, and a digest for two members to compare."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
import random
from collections.abc import Iterator
from typing import Callable

from ..messages import MemberInfo, Sighting
from ..packets import FLAG_CATCHING_UP, FLAG_UNSTORED, RUMORS, Header, Rejected
from ..revision import Revision
from ..runs import later
from ..types import Address, Now, State
from .peer import DIRECT_WINDOW, RUMOR_WINDOW, Peer, SyncState
from .window import ReplayWindow

#: Seconds for which a dead node stays known and is tried again.
FORGET_AFTER = 86_400.0

_MASK = (1 << 64) - 1


class Membership:
    """All known peers by address."""

    def __init__(self, local: Address, max_nodes: int, rng: random.Random) -> None:
        self._local = local
        self._max_nodes = max_nodes
        self._rng = rng
        self._peers: dict[Address, Peer] = {}
        #: The same peers by the key that a data plane uses.
        self.by_key: dict[bytes, Peer] = {}
        # Peers that need attention, so that no caller has to walk through all peers. Dicts keep the order.
        self.suspects: dict[Address, Peer] = {}
        self.gone: dict[Address, Peer] = {}
        self.incomplete: dict[Address, Peer] = {}
        self._left: dict[Address, Peer] = {}
        #: Grows with every visible change of a peer.
        self.revision = Revision()
        self.on_forget: Callable[[Peer], None] = lambda peer: None
        #: Liveness data is complete up to this monotonic time; silence after it does not count. Infinite unless a data
        #: plane records signs of life, which are read only now and then.
        self.informed_until = math.inf
        self._present: list[Address] | None = None
        self._ordered: list[Address] | None = None
        self._digest = 0

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, address: Address) -> Peer | None:
        """The peer with that address; None if unknown."""
        return self._peers.get(address)

    def add(self, address: Address, now: Now) -> Peer:
        """Add a new peer. Every address that becomes a peer passes this method, from whatever source.

        Raises ``Rejected``: bad_address (no other host can have it), table_full (all entries are present nodes).
        """
        if not address.may_be_node(self._local):
            raise Rejected("bad_address")
        if len(self._peers) >= self._max_nodes:
            if not self.gone:
                raise Rejected("table_full")
            self.forget(min(self.gone.values(), key=lambda peer: peer.liveness.last_heard))
        peer = Peer(address, now)
        self._peers[address] = self.by_key[peer.key] = peer
        self._ordered = None
        peer.watched_by(self.revision)
        self.revision.advance()
        self.changed(peer)
        return peer

    def forget(self, peer: Peer) -> None:
        """Drop every trace of a node."""
        del self._peers[peer.address]
        del self.by_key[peer.key]
        for kind in (self.suspects, self.gone, self.incomplete, self._left):
            kind.pop(peer.address, None)
        self._digest = (self._digest - peer.token) & _MASK
        self._present = self._ordered = None
        peer.watched_by(None)
        self.revision.advance()
        self.on_forget(peer)

    def changed(self, peer: Peer) -> None:
        """Update the digest and the lists. Call it after a peer's state, incarnation or record digest changed."""
        token = _token(peer.address, peer.incarnation, peer.record_digest) if peer.present and peer.heard else 0
        self._digest = (self._digest + token - peer.token) & _MASK
        peer.token = token
        self._present = None
        _sort(self.suspects, peer, peer.liveness.state is State.SUSPECT)
        _sort(self.gone, peer, not peer.present)
        _sort(self._left, peer, peer.liveness.state is State.LEFT)
        _sort(self.incomplete, peer, peer.present and peer.record_missing)

    def digest(self, local_incarnation: int, local_record_digest: int) -> int:
        """64-bit digest over all present members, the local one included. Equal on members with the same NodeList."""
        return (self._digest + _token(self._local, local_incarnation, local_record_digest)) & _MASK

    @property
    def present(self) -> list[Address]:
        """Addresses of all present peers. The caller must not change the list."""
        if self._present is None:
            self._present = [peer.address for peer in self._peers.values() if peer.present]
        return self._present

    def after(self, address: Address | None) -> Iterator[Peer]:
        """The peers after ``address`` (None: all), by address."""
        if self._ordered is None:
            self._ordered = sorted(self._peers, key=Address.order)
        first = 0 if address is None else bisect.bisect_right(self._ordered, address)
        return (self._peers[each] for each in itertools.islice(self._ordered, first, None))

    def pick(self, amount: int, *exclude: Address) -> list[Address]:
        """Up to ``amount`` different present peers, uniformly at random, none of ``exclude``."""
        present = self.present
        if len(present) <= amount:
            chosen = [address for address in present if address not in exclude]
            self._rng.shuffle(chosen)
            return chosen
        chosen = self._rng.sample(present, min(len(present), amount + len(exclude)))
        return [address for address in chosen if address not in exclude][:amount]

    def screen(self, header: Header, screened: bool = False) -> Peer | None:
        """The cheap test before any crypto. Returns the origin's peer, or None if it is unknown.

        ``screened``: the data plane has already dropped duplicates. Raises ``Rejected``: duplicate, stale_incarnation.
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
        """Take over what an earlier run of this member knew. The caller must call :meth:`changed`."""
        self._begin(peer, incarnation)
        peer.sighted = sequence

    def commit(self, peer: Peer, header: Header) -> bool:
        """Take over the fields of an authentic header. Returns whether its incarnation or its record digest changed."""
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
            self._holds(peer.sync, header.state_digest, header.flags)
            peer.record_digest = header.record_digest
        if peer.key_slot != header.key_id:
            peer.key_slot = header.key_id
        news = (peer.incarnation, peer.record_digest) != before
        if news:
            self.changed(peer)
        return news

    def told(self, peer: Peer, info: MemberInfo) -> None:
        """Take over what another member heard of a peer. Only the peer's own packets tell what is on its disk."""
        sync = peer.sync
        if later(info.incarnation, peer.incarnation):
            self._begin(peer, info.incarnation)
            sync.stored = False
        sync.stored = sync.stored and info.state_digest == sync.state_digest
        peer.sighted = info.sequence
        peer.record_digest, sync.state_digest = info.record_digest, info.state_digest
        self.changed(peer)

    def recorded_run(self, peer: Peer, incarnation: int, record_digest: int) -> None:
        """Take over a new run or record of a peer that a data plane recorded."""
        if later(incarnation, peer.incarnation):
            self._begin(peer, incarnation)
        peer.record_digest = record_digest
        self.changed(peer)

    def recorded(self, peer: Peer, highest: int, window: int, state_digest: int, flags: int) -> None:
        """Take over what a data plane recorded of a peer's rumors: the replay window, and fields of the newest one."""
        peer.rumors.merge(highest, window)
        if highest > peer.sighted:
            peer.sighted = highest
        self._holds(peer.sync, state_digest, flags)

    def _begin(self, peer: Peer, incarnation: int) -> None:
        """Begin a new run of the node: its sequences start again."""
        peer.incarnation = incarnation
        peer.sync.caught_up = False
        peer.sighted = 0
        peer.rumors = ReplayWindow(RUMOR_WINDOW)
        peer.directs = ReplayWindow(DIRECT_WINDOW)

    @staticmethod
    def _holds(sync: SyncState, state_digest: int, flags: int) -> None:
        sync.state_digest = state_digest
        sync.stored = not flags & FLAG_UNSTORED
        sync.caught_up = not flags & FLAG_CATCHING_UP

    def tally(self, local: State) -> dict[State, int]:
        """How many nodes are in each state. The local node is included; its state is ``local``."""
        left = len(self._left)
        counts = {
            State.ALIVE: len(self._peers) - len(self.suspects) - len(self.gone),
            State.SUSPECT: len(self.suspects),
            State.DEAD: len(self.gone) - left,
            State.LEFT: left,
        }
        counts[local] += 1
        return counts

    def silence(self, peer: Peer, now: Now) -> float:
        """Seconds for which a peer was not heard, up to :attr:`informed_until`."""
        return min(now.mono, self.informed_until) - peer.liveness.last_heard

    def overdue(self, silence: float, limit: int, now: Now) -> tuple[Sighting, ...]:
        """Up to ``limit`` present peers that were not heard for ``silence`` seconds, the longest silence first."""
        before = min(now.mono, self.informed_until) - silence
        late = [peer for peer in self if peer.liveness.last_heard < before and peer.present and peer.heard]
        late.sort(key=lambda peer: peer.liveness.last_heard)
        return tuple(Sighting(peer.address, peer.incarnation, peer.sighted) for peer in late[:limit])

    def info(self, peer: Peer, now: Now) -> MemberInfo:
        """What this member tells other members about a peer."""
        return MemberInfo(
            address=peer.address,
            incarnation=peer.incarnation,
            sequence=peer.sighted,
            state=peer.liveness.state,
            age_ms=max(0, int((now.mono - peer.liveness.last_heard) * 1000)),
            record_digest=peer.record_digest,
            state_digest=peer.sync.state_digest,
        )


def _sort(kind: dict[Address, Peer], peer: Peer, belongs: bool) -> None:
    if belongs:
        kind[peer.address] = peer
    else:
        kind.pop(peer.address, None)


def _token(address: Address, incarnation: int, record_digest: int) -> int:
    raw = address.packed + address.port.to_bytes(2, "big") + incarnation.to_bytes(4, "big")
    raw += record_digest.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8, person=b"xg-member").digest(), "big")
