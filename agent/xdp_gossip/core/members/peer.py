# SPDX-License-Identifier: MIT
"""One other node, as this member knows it."""

from __future__ import annotations

from ..revision import Revision, Shown
from ..types import PRESENT, Address, Now, Record
from .liveness import Liveness
from .window import ReplayWindow

#: Rumors of one origin arrive out of order only by the time that they take to spread. The kernel keeps 64, too.
RUMOR_WINDOW = 64
#: Direct packets take UDP and TCP, which overtake each other; a transfer has at most a few dozen in flight.
DIRECT_WINDOW = 1024


class PeerRecord(Shown):
    """A node's record as far as it is known, and the state of requests for it. ``NodeRecords`` writes it."""

    __slots__ = ("value", "ask_at", "asks")

    SHOWN = frozenset({"value"})

    def __init__(self) -> None:
        self.revision = None
        self.value: Record | None = None
        self.ask_at = 0.0  # monotonic seconds
        self.asks = 0  # since a packet named another record


class SyncState(Shown):
    """What a node says about the documents that it holds. The membership writes it."""

    __slots__ = ("state_digest", "stored", "caught_up")

    SHOWN = frozenset({"state_digest"})

    def __init__(self) -> None:
        self.revision = None
        self.state_digest = 0
        self.stored = True  # the node said that all documents in its digest are on its disk
        self.caught_up = False  # the node said so in this run (``catchup``)


class Peer(Shown):
    """One other node. It is mutable, and only the protocol core holds it.

    Each attribute has one writer (``tests/agent/test_core_members.py``): the detector writes ``liveness``,
    ``NodeRecords`` writes ``record``, and the membership writes ``sync`` and what packets say of themselves.
    """

    __slots__ = (
        "address", "key", "incarnation", "sighted", "rumors", "directs", "record_digest", "key_slot", "clock_ahead",
        "token", "problems", "liveness", "record", "sync",
    )  # fmt: skip

    SHOWN = frozenset({"incarnation", "problems", "key_slot"})

    def __init__(self, address: Address, now: Now) -> None:
        self.revision = None
        self.address = address
        self.key = key_of(address)
        self.incarnation = 0
        self.sighted = 0  # newest rumor sequence that any member heard of it
        self.rumors = ReplayWindow(RUMOR_WINDOW)
        self.directs = ReplayWindow(DIRECT_WINDOW)
        self.record_digest = 0  # as its newest packet says
        self.key_slot: int | None = None  # the slot that signed its newest packet in this run
        self.clock_ahead: float | None = None  # its wall clock minus ours, seconds; ``Admission`` writes it
        self.token = 0  # its part in the digest of the NodeList
        self.problems: tuple[str, ...] = ()  # what is wrong with it: twin, same_name, ...
        self.liveness = Liveness(now)
        self.record = PeerRecord()
        self.sync = SyncState()

    def watched_by(self, revision: Revision | None) -> None:
        """Advance ``revision`` with every change that a list of nodes shows; None: stop doing so."""
        self.revision = self.liveness.revision = self.record.revision = self.sync.revision = revision

    @property
    def present(self) -> bool:
        """Whether it counts as a member: alive, or suspected and not yet dead."""
        return self.liveness.state in PRESENT

    @property
    def heard(self) -> bool:
        """Whether any member has heard it at least once (not so for a seed that never answered)."""
        return self.incarnation > 0

    @property
    def record_missing(self) -> bool:
        """Whether its newest packet names a record that is not held here."""
        held = self.record.value
        return self.record_digest != 0 and (held is None or held.digest != self.record_digest)

    def mark(self, problem: str, on: bool) -> bool:
        """Add or remove one of its problems. Returns whether that changed anything."""
        before = self.problems
        self.problems = with_mark(before, problem, on)
        return self.problems != before


def with_mark(problems: tuple[str, ...], problem: str, on: bool) -> tuple[str, ...]:
    """``problems`` with ``problem`` added or removed, sorted."""
    if (problem in problems) is on:
        return problems
    return tuple(sorted({*problems, problem})) if on else tuple(name for name in problems if name != problem)


def key_of(address: Address) -> bytes:
    """The key of a node in a data plane's table, 20 bytes: address, port, two zeros (``bpf/maps.h``, xg_node_key)."""
    return address.packed + address.port.to_bytes(2, "big") + b"\0\0"
