# SPDX-License-Identifier: MIT
"""A remote node: its address, incarnation, replay windows, liveness, record and documents digest."""

from __future__ import annotations

import hashlib

from ..revision import Revision, Shown
from ..types import PRESENT, Address, Now, Record
from .liveness import Liveness
from .window import ReplayWindow

#: Number of rumors in a replay window. Rumors of one origin arrive out of order only during the short time in which
#: they spread, so a short window suffices. The data plane's replay window has the same size.
RUMOR_WINDOW = 64
#: Number of packets in the replay window for direct packets, which a node sends to one node only. Packets over UDP and
#: TCP arrive out of order, and a transfer has a few dozen packets in flight.
DIRECT_WINDOW = 1024
#: Number of buckets into which the nodes of a NodeList are divided, so that two members find what differs in their
#: NodeLists.
MEMBER_BUCKETS = 128


class PeerRecord(Shown):
    """The newest known record of a node, and the progress of requests for a newer record.

    Only ``NodeRecords`` writes it.
    """

    __slots__ = ("value", "ask_at", "asks")

    SHOWN = frozenset({"value"})

    def __init__(self) -> None:
        self.revision = None
        self.value: Record | None = None
        self.ask_at = 0.0  # Time of the next request, monotonic seconds.
        self.asks = 0  # Number of requests that this node has sent for the current record.


class SyncState(Shown):
    """The state of a node's documents, as the headers of the node's packets report it.

    Only the membership writes this object.
    """

    __slots__ = ("documents_digest", "stored", "caught_up")

    SHOWN = frozenset({"documents_digest"})

    def __init__(self) -> None:
        self.revision = None
        self.documents_digest = 0
        self.stored = True  # Whether all documents in the digest are on the node's disk.
        self.caught_up = False  # Whether the node has caught up since its last start (see ``catchup``).


class Peer(Shown):
    """A remote node. The object is mutable, so the protocol core never passes it to other code.

    Each attribute has one writer (``tests/agent/test_core_members.py``): the detector writes ``liveness``,
    ``NodeRecords`` writes ``record``, and the membership writes ``sync`` and the fields from packet headers.
    """

    __slots__ = (
        "address", "key", "bucket", "incarnation", "sighted", "rumors", "directs", "record_digest", "key_id",
        "clock_ahead", "state_hash", "problems", "liveness", "record", "sync",
    )  # fmt: skip

    SHOWN = frozenset({"incarnation", "problems", "key_id"})

    def __init__(self, address: Address, now: Now) -> None:
        self.revision = None
        self.address = address
        self.key = key_of(address)
        self.bucket = bucket_of(address)
        self.incarnation = 0
        self.sighted = 0  # sequence of the peer's newest rumor that any member has received
        self.rumors = ReplayWindow(RUMOR_WINDOW)
        self.directs = ReplayWindow(DIRECT_WINDOW)
        self.record_digest = 0  # Record digest in the node's newest packet.
        self.key_id: int | None = None  # Id of the key that signed the node's newest packet.
        self.clock_ahead: float | None = None  # The node's wall clock minus ours, in seconds.
        self.state_hash = 0  # The term for this peer in the digest of the NodeList, which is a sum.
        self.problems: tuple[str, ...] = ()  # The node's problems (``types.PROBLEMS``).
        self.liveness = Liveness(now)
        self.record = PeerRecord()
        self.sync = SyncState()

    def watched_by(self, revision: Revision | None) -> None:
        """From now on, advance ``revision`` whenever a visible attribute of this peer changes.

        None: advance no revision.
        """
        self.revision = self.liveness.revision = self.record.revision = self.sync.revision = revision

    @property
    def present(self) -> bool:
        """Whether the peer counts as a present member: it is alive or suspect."""
        return self.liveness.state in PRESENT

    @property
    def heard(self) -> bool:
        """Whether any member has heard the peer at least once. For a seed that never answered, the result is False."""
        return self.incarnation > 0

    @property
    def zone(self) -> str:
        """The zone in the stored record; "" if the record is unknown."""
        return self.record.value.zone if self.record.value is not None else ""

    @property
    def record_missing(self) -> bool:
        """Whether the record digest in the peer's newest packet differs from the digest of the stored record."""
        held = self.record.value
        return self.record_digest != 0 and (held is None or held.digest != self.record_digest)

    def mark(self, problem: str, on: bool) -> bool:
        """Add a problem to this peer if ``on`` is True, otherwise remove the problem.

        Returns whether the peer's problems changed.
        """
        before = self.problems
        self.problems = with_mark(before, problem, on)
        return self.problems != before


def with_mark(problems: tuple[str, ...], problem: str, on: bool) -> tuple[str, ...]:
    """A sorted copy of ``problems`` with ``problem`` if ``on`` is True, without ``problem`` if ``on`` is False."""
    if (problem in problems) is on:
        return problems
    return tuple(sorted({*problems, problem})) if on else tuple(name for name in problems if name != problem)


def bucket_of(address: Address) -> int:
    """The number of a node's bucket (docs/wire.md)."""
    raw = address.packed + address.port.to_bytes(2, "big")
    return hashlib.blake2b(raw, digest_size=1, person=b"xg-node-bucket").digest()[0] % MEMBER_BUCKETS


def key_of(address: Address) -> bytes:
    """The key of a node in a data plane's table, 20 bytes: address, port, two zeros (``bpf/maps.h``, xg_node_key)."""
    return address.packed + address.port.to_bytes(2, "big") + b"\0\0"
