# SPDX-License-Identifier: MIT
"""The NodeList by PekoNode's rule: a node that was heard within the timeout is present.

There is one entry for each address and port.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator

from ..core.revision import Revision, Shown
from ..core.types import MAX_NAME, MAX_PRIVATE_DATA, Address, Member, Record, State
from .packet import PekoNodeId

#: Seconds for which a node that is gone stays known and is tried again.
FORGET_AFTER = 86_400.0


class Peer(Shown):
    """One other node. Mutable; only the engine holds it."""

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
        self.state = State.DEAD  # a suspect is a seed that has not answered yet
        self.heard = 0  # heartbeats, in any number of copies; 0: a seed that never answered
        self.last_heard = last_heard  # monotonic seconds
        self.digest = 0
        self.pinned = False  # given as a seed: tried forever

    @property
    def listed(self) -> bool:
        """Whether it was ever heard, or named a timeout ago at most."""
        return self.heard > 0 or self.state is State.SUSPECT

    def member(self, mono: float) -> Member:
        """A snapshot of it. There is no incarnation on this wire; ``sequence`` counts sightings."""
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
        #: Of what the peers show.
        self.revision = Revision()

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, address: Address) -> Peer | None:
        """The peer of that address."""
        return self._peers.get(address)

    def add(self, peer: Peer) -> bool:
        """Take a new peer in; False when the table is full of nodes that are alive."""
        if len(self._peers) >= self._max_nodes:
            gone = [other for other in self if other.state is not State.ALIVE]
            if not gone:
                return False
            del self._peers[min(gone, key=lambda other: other.last_heard).address]
        self._peers[peer.address] = peer
        peer.revision = self.revision
        self.revision.advance()
        self._alive = None
        return True

    def move(self, peer: Peer, state: State) -> State:
        """Change a peer's state; returns the former one."""
        former, peer.state = peer.state, state
        self._alive = None
        return former

    def forget(self, mono: float) -> None:
        """Drop what was not heard for a day, unless it was given as a seed."""
        for peer in [
            peer
            for peer in self
            if peer.state is not State.ALIVE and not peer.pinned and mono - peer.last_heard > FORGET_AFTER
        ]:
            del self._peers[peer.address]
            self.revision.advance()

    @property
    def alive(self) -> list[Peer]:
        """All peers that were heard within the timeout. Not to be changed by the caller."""
        if self._alive is None:
            self._alive = [peer for peer in self if peer.state is State.ALIVE]
        return self._alive

    def pick(self, amount: int, infected: Container[str] = ()) -> list[Peer]:
        """Up to ``amount`` different live peers that are not infected, uniformly at random."""
        candidates = [peer for peer in self.alive if peer.id.label not in infected]
        return self._rng.sample(candidates, min(amount, len(candidates)))

    def pick_silent(self, amount: int) -> list[Peer]:
        """Up to ``amount`` peers that are to be tried: seeds that never answered, and nodes that are gone."""
        candidates = [peer for peer in self if peer.state is not State.ALIVE]
        return self._rng.sample(candidates, min(amount, len(candidates)))


def record_of(node: PekoNodeId) -> tuple[Record, bool]:
    """What the node says of itself, and whether it had to be shortened: PekoNode knows no limits, we do."""
    name, private_data = _shorten(node.name, MAX_NAME), _shorten(node.private_data, MAX_PRIVATE_DATA)
    return Record(name, private_data), name != node.name or private_data != node.private_data


def _shorten(text: str, limit: int) -> str:
    raw = text.encode("utf-8")
    return text if len(raw) <= limit else raw[:limit].decode("utf-8", "ignore")
