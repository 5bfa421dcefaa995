# SPDX-License-Identifier: MIT
"""One other node, as this member knows it."""

from __future__ import annotations

from ..messages import MemberInfo
from ..revision import Revision, Shown
from ..runs import later
from ..types import PRESENT, Address, Now, Record
from .liveness import Liveness
from .window import ReplayWindow

#: Rumors of one origin arrive out of order only by the time they take to spread; 64 is what the kernel keeps too.
RUMOR_WINDOW = 64
#: Direct packets take UDP and TCP, which overtake each other; a transfer has at most a few dozen in flight.
DIRECT_WINDOW = 1024


class Peer(Shown):
    """One other node. Mutable; only the protocol core holds it."""

    __slots__ = (
        "address", "key", "incarnation", "sighted", "rumors", "directs", "liveness", "record", "record_digest",
        "state_digest", "stored", "caught_up", "clock_ahead", "token", "problems", "record_due", "record_tries",
        "key_slot",
    )  # fmt: skip

    SHOWN = frozenset({"incarnation", "record", "state_digest", "problems", "key_slot"})

    def __init__(self, address: Address, now: Now) -> None:
        self.revision = None
        self.address = address
        self.key = key_of(address)
        self.incarnation = 0
        self.sighted = 0  # newest rumor sequence that anybody heard of it
        self.rumors = ReplayWindow(RUMOR_WINDOW)
        self.directs = ReplayWindow(DIRECT_WINDOW)
        self.liveness = Liveness(now)
        self.record: Record | None = None
        self.record_digest = 0  # as its newest packet says
        self.state_digest = 0
        self.stored = True  # all that its digest stands for is on its disk: it said so itself
        self.caught_up = False  # it has said so itself in this run (``catchup``)
        self.clock_ahead: float | None = None  # its wall clock minus ours, seconds
        self.key_slot: int | None = None  # that its newest packet in this run was signed with
        self.token = 0
        self.problems: tuple[str, ...] = ()  # what is wrong with it: twin, same_name, ...
        self.record_due = 0.0
        self.record_tries = 0

    def watched_by(self, revision: Revision | None) -> None:
        """Have every change that a list of nodes shows advance ``revision``; None: no more."""
        self.revision = self.liveness.revision = revision

    @property
    def present(self) -> bool:
        """Counts as a member: alive, or not yet given up."""
        return self.liveness.state in PRESENT

    @property
    def heard(self) -> bool:
        """Somebody heard it at least once (a seed that never answered was not)."""
        return self.incarnation > 0

    @property
    def record_missing(self) -> bool:
        """Its newest packet names a record that is not here."""
        return self.record_digest != 0 and (self.record is None or self.record.digest != self.record_digest)

    def mark(self, problem: str, on: bool) -> bool:
        """Add or remove one of its problems; whether that changed anything."""
        before = self.problems
        self.problems = with_mark(before, problem, on)
        return self.problems != before

    def told_of(self, info: MemberInfo) -> None:
        """Take over what another member heard of it. What is on its disk only its own packets tell."""
        if later(info.incarnation, self.incarnation):
            self.begin(info.incarnation)
            self.stored = False
        self.stored = self.stored and info.state_digest == self.state_digest
        self.sighted = info.sequence
        self.record_digest, self.state_digest = info.record_digest, info.state_digest

    def begin(self, incarnation: int) -> None:
        """A new run of the node: its sequences start again."""
        self.incarnation = incarnation
        self.caught_up = False
        self.sighted = 0
        self.rumors = ReplayWindow(RUMOR_WINDOW)
        self.directs = ReplayWindow(DIRECT_WINDOW)


def with_mark(problems: tuple[str, ...], problem: str, on: bool) -> tuple[str, ...]:
    """``problems`` with or without one, sorted."""
    if (problem in problems) is on:
        return problems
    return tuple(sorted({*problems, problem})) if on else tuple(name for name in problems if name != problem)


def key_of(address: Address) -> bytes:
    """20 bytes: address, port, two zeros; what a data plane's table has as key (``bpf/maps.h``, xg_node_key)."""
    return address.packed + address.port.to_bytes(2, "big") + b"\0\0"
