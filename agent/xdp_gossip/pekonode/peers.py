# SPDX-License-Identifier: MIT
"""The known nodes of a PekoNode cluster. By PekoNode's rule, another node counts as present if its last sign of life
arrived within the timeout.

The list has one entry for each address and port.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator

from ..core.revision import Revision, Shown
from ..core.types import MAX_NAME, MAX_PRIVATE_DATA, Address, Member, Record, State
from .packet import PekoNodeId

#: Seconds of silence until a node is removed. Before that, this node contacts a silent node from time to time.
FORGET_AFTER = 86_400.0


class Peer(Shown):
    """A remote node. The object is mutable and never leaves the engine."""

    __slots__ = (
        "address",
        "changed_at",
        "digest",
        "former",
        "heard",
        "id",
        "last_heard",
        "pinned",
        "record",
        "state",
    )

    SHOWN = frozenset({"state", "record", "digest"})

    def __init__(self, address: Address, node: PekoNodeId, last_heard: float) -> None:
        self.revision = None
        self.address = address
        self.id = node
        self.former: PekoNodeId | None = None
        self.changed_at = last_heard
        self.record, _ = record_of(node)
        #: The state SUSPECT means a new seed that has not answered yet.
        self.state = State.DEAD
        #: Number of received heartbeats, including copies; 0 for a seed that never answered.
        self.heard = 0
        #: Monotonic time in seconds at which the peer was last heard.
        self.last_heard = last_heard
        self.digest = 0
        #: Whether the peer is a seed, which is never removed.
        self.pinned = False

    @property
    def listed(self) -> bool:
        """Whether the node list contains the peer, because it was heard at least once or is a new seed before its
        timeout.
        """
        return self.heard > 0 or self.state is State.SUSPECT

    def member(self, mono: float) -> Member:
        """Return a snapshot of the peer at the monotonic time ``mono``.

        The snapshot has the incarnation 0. Its sequence number is ``heard``, the number of received heartbeats.
        """
        return Member(
            self.address,
            self.state,
            0,
            self.heard,
            self.record,
            max(0.0, mono - self.last_heard),
            self.digest,
        )


class Peers:
    """All peers by address."""

    def __init__(self, max_nodes: int, rng: random.Random) -> None:
        self._max_nodes = max_nodes
        self._rng = rng
        self._peers: dict[Address, Peer] = {}
        self._alive: list[Peer] | None = None
        #: Dead nodes that made room in the full list while this node saw no majority. They stay voters.
        self.displaced: set[Address] = set()
        #: The revision number, which grows with every visible change of a peer.
        self.revision = Revision()

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, address: Address) -> Peer | None:
        """The peer with the address ``address``; None if there is no such peer."""
        return self._peers.get(address)

    def add(self, peer: Peer) -> bool:
        """Add a new peer. Returns False if the list is full and all peers in the list are alive.

        If the list is full, a dead peer makes room. It stays a voter in :attr:`displaced` unless this node sees a
        majority.
        """
        if len(self._peers) >= self._max_nodes:
            gone = [other for other in self if other.state is not State.ALIVE]
            if not gone:
                return False
            replaced = min(gone, key=lambda other: (other.heard > 0, other.last_heard))
            if replaced.heard and not self.sees_majority:
                self.displaced.add(replaced.address)
            del self._peers[replaced.address]
        self.displaced.discard(peer.address)
        self._peers[peer.address] = peer
        peer.revision = self.revision
        self.revision.advance()
        self._alive = None
        return True

    def move(self, peer: Peer, state: State) -> State:
        """Change a peer's state. Returns its former state."""
        former, peer.state = peer.state, state
        self._alive = None
        return former

    @property
    def sees_majority(self) -> bool:
        """Whether the alive nodes, including the local node, are a majority of all nodes that were ever heard."""
        return 1 + len(self.alive) > (1 + len(self.displaced) + sum(peer.heard > 0 for peer in self)) // 2

    def remove(self, peer: Peer) -> None:
        """Remove a peer that is not alive from the node list. A seed stays a peer, so that this node contacts it."""
        if peer.pinned:
            peer.heard = 0
        else:
            del self._peers[peer.address]
        self.revision.advance()

    def forget(self, mono: float) -> None:
        """Remove all peers that were silent for a day, except seeds, while this node sees a majority."""
        old = [
            peer
            for peer in self
            if peer.state is not State.ALIVE and not peer.pinned and mono - peer.last_heard > FORGET_AFTER
        ]
        if (old or self.displaced) and self.sees_majority:
            self.displaced.clear()
            for peer in old:
                self.remove(peer)

    @property
    def alive(self) -> list[Peer]:
        """All peers that were heard within the timeout. The caller must not change the list."""
        if self._alive is None:
            self._alive = [peer for peer in self if peer.state is State.ALIVE]
        return self._alive

    def pick(self, amount: int, infected: Container[str] = ()) -> list[Peer]:
        """Up to ``amount`` different live peers that are not infected, uniformly at random."""
        candidates = [peer for peer in self.alive if peer.id.label not in infected]
        return self._rng.sample(candidates, min(amount, len(candidates)))

    def pick_silent(self, amount: int) -> list[Peer]:
        """Up to ``amount`` random peers that are not alive: seeds that never answered, and dead nodes."""
        candidates = [peer for peer in self if peer.state is not State.ALIVE]
        return self._rng.sample(candidates, min(amount, len(candidates)))


def record_of(node: PekoNodeId) -> tuple[Record, bool]:
    """The record with name and private data of ``node``, and whether one of the two exceeded our limits and was
    shortened.
    """
    name, private_data = _shorten(node.name, MAX_NAME), _shorten(node.private_data, MAX_PRIVATE_DATA)
    return Record(name, private_data), name != node.name or private_data != node.private_data


def _shorten(text: str, limit: int) -> str:
    raw = text.encode("utf-8")
    return text if len(raw) <= limit else raw[:limit].decode("utf-8", "ignore")
