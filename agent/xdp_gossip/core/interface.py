# SPDX-License-Identifier: MIT
"""The interface that every protocol engine offers its shell (see docs/architecture.md, "The core").

An engine owns no clock, socket, thread, file or randomness: each input carries the time, the shell drains
:meth:`Driven.take_transmits` and :meth:`Driven.take_events` after each input, and calls :meth:`Driven.handle_timer`
when :meth:`Driven.next_timer` is due.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .applied import Applied, TroubledFiles
from .events import Event, Rumor, Transmit
from .settings import Settings
from .types import Address, Document, Member, Node, Now, Prepared, State, Version, Write


@dataclass(frozen=True)
class Known:
    """A node remembered from an earlier run: tried at start, so that a rejoin needs no seeds."""

    address: Address
    incarnation: int
    sequence: int
    last_heard_ns: int
    name: str = ""
    private_data: str = ""


def remembered(members: Iterable[Member], now: Now) -> list[Known]:
    """What to keep of ``members`` for the next run: whoever was heard and did not leave."""
    return [
        Known(
            member.address,
            member.incarnation,
            member.sequence,
            now.wall_ns - int(member.last_heard * 1e9),
            member.record.name if member.record else "",
            member.record.private_data if member.record else "",
        )
        for member in members
        if not member.local and member.state is not State.LEFT and (member.incarnation or member.sequence)
    ]


class ProtocolError(Exception):
    """An operation that the protocol refuses; ``code`` is stable (snake_case) and ends up in the API's errors."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class InvalidError(ProtocolError, ValueError):
    """A parameter that could be right in no state of the cluster."""


class Driven(Protocol):
    """An engine as its runtime drives it: time and packets go in, packets, events and the next deadline come out.

    The attributes are questions of the engine to its runtime, which sets them.
    """

    #: Whether this host has an address family in common with an address.
    reaches: Callable[[Address], bool]
    #: Keys of documents that are held and not on the disk yet: nobody counts them as held here until they are.
    unstored_source: Callable[[], Container[str]]

    def start(self, now: Now, known: Iterable[Known] = (), documents: Iterable[Document] = ()) -> None:
        """Join: load what an earlier run knew (retired tombstones included), contact seeds.

        The local node is announced to them and to the known nodes.
        """

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Take one packet as it came from ``source``. Never raises for bad input: it counts.

        ``screened``: a data plane below has found it authentic, fresh and new, and has relayed it. Returns True for
        another node's rumor that was taken (authentic, fresh, not seen before), on a wire that relays rumors, False for
        a packet that was refused, None for any other.
        """

    def handle_timer(self, now: Now) -> None:
        """Do what is due."""

    def next_timer(self) -> float | None:
        """Monotonic time at which :meth:`handle_timer` wants to be called."""

    def take_transmits(self) -> list[Transmit | Rumor]:
        """Packets to send, in order; each is returned once."""

    def take_events(self) -> list[Event]:
        """Events since the last call, in order."""

    def former(self, now: Now) -> list[Known]:
        """Members that were silent for a day and are tried all the same; to be kept for the next run."""


class Asked(Protocol):
    """An engine as its users ask it: members, documents, and questions to other members."""

    settings: Settings
    #: What became of a document in this node's rendered files, and which of these are in trouble: asked by other
    #: members. Whoever renders files sets them.
    applied_source: Callable[[str], Applied]
    files_source: Callable[[], TroubledFiles]

    @property
    def node(self) -> Node:
        """The local node."""

    @property
    def status(self) -> str:
        """new, running, paused or left."""

    @property
    def cycle(self) -> float:
        """Seconds between two heartbeats at present."""

    @property
    def timeout(self) -> float:
        """Seconds of silence after which a member is suspected at present."""

    @property
    def tells_ancestry(self) -> bool:
        """Whether others' documents list the versions that their authors had read. Without the list a conflict cannot
        be detected."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Counters by name; every packet that is not used adds to one of them."""

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` now, and again whenever it is absent, forever (PekoNode's ``Set``)."""

    def unseed(self, address: Address) -> None:
        """``address`` is no seed any more; nothing else is forgotten of it."""

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the local record and spread it; False when nothing changed."""

    def pause(self, now: Now) -> bool:
        """Stop publishing heartbeats (PekoNode's ``Stop``): others drop this node after their timeout."""

    def resume(self, now: Now) -> bool:
        """Publish heartbeats again (PekoNode's ``Start``)."""

    def leave(self, now: Now) -> bool:
        """Tell everybody that this node goes; they drop it at once."""

    def publish(
        self,
        key: str,
        value: bytes,
        now: Now,
        *,
        expected: Version | None = None,
        absent: bool = False,
        content_type: str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | None = None,
    ) -> tuple[Document, bool]:
        """Write a document; returns it and whether anything changed.

        ``expected``/``absent``: compare-and-set against the version held here. ``expires_in``: seconds until it is
        over. ``content_type`` None: see ``Write``. Raises ``ProtocolError``: invalid_document, document_too_large,
        too_many_documents, version_mismatch.
        """

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """Write several documents, all or none; on each member they become visible together.

        Returns for each what :meth:`publish` and :meth:`delete` would. Raises ``ProtocolError`` as these do, with
        ``key`` among the details, and ``TypeChanged`` where a value was checked for another type than it would get.
        """

    def prepare(
        self,
        writes: Sequence[Write],
        now: Now,
        *,
        author: str = "",
        comment: str = "",
        pending: Sequence[Prepared] = (),
    ) -> list[Prepared] | None:
        """What :meth:`publish_many` would write, so that the shell can bring it to its disk before anybody hears of it.

        Nothing has happened until :meth:`commit`. None on a wire that cannot do so: use :meth:`publish_many`.
        ``pending``: what was prepared before and may be committed yet; it counts in the limits, and none of its keys
        is among those of ``writes``. Raises as :meth:`publish_many` does.
        """

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """Let what was prepared hold, and spread it.

        False, and nothing happened, when another version of one of these documents came between, or others took the
        room.
        """

    def repair(self, now: Now) -> int:
        """Sync at once with every member that shows other documents; returns how many were asked."""

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Write a tombstone; returns it (None: there never was such a document) and whether anything changed."""

    def document(self, key: str) -> Document | None:
        """The document held here; tombstones are not documents."""

    def held(self, key: str) -> Document | None:
        """The document held here, or else its tombstone, as long as that is kept."""

    def documents(self, prefix: str = "") -> list[Document]:
        """All documents whose key starts with ``prefix``, by key, without tombstones."""

    def documents_after(self, key: str, prefix: str = "") -> Iterator[Document]:
        """Of these the ones behind ``key`` ("": all). What follows those that are taken costs nothing."""

    @property
    def documents_held(self) -> tuple[int, int]:
        """How many documents there are, and the bytes of their values; cheap, however many there are."""

    def tally(self) -> dict[State, int]:
        """How many nodes are known in each state, the local one included; cheap, however many there are."""

    def members(self, now: Now) -> list[Member]:
        """Every node known, the local one first, then by address, whatever their state."""

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """The other nodes behind ``address`` (None: all), by address. What follows those taken costs nothing."""

    @property
    def local(self) -> Member:
        """The local node as :meth:`members` has it."""

    @property
    def revision(self) -> int:
        """Grows with every change that :meth:`members` would show of another node, but for signs of life.

        These are its sequence and when it was last heard.
        """

    @property
    def catching_up(self) -> str:
        """What this node waits for until it knows what the cluster knew when it started; "" once it does.

        A ``CaughtUp`` event tells of that moment.
        """

    @property
    def state_digest(self) -> int:
        """64-bit digest of all documents and tombstones held here."""

    @property
    def clock_offset(self) -> float:
        """Seconds that the cluster's clock (median of the members) is ahead of the local one."""

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members what they hold of ``key``; answers arrive as ``QueryAnswered`` with the number returned."""

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members what became of ``key`` in their rendered files; answers arrive as ``AppliedAnswered``.

        Raises ``ProtocolError`` (unsupported_operation) on a wire without such a question.
        """

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """Ask members which of their rendered files are in trouble; answers arrive as ``FilesAnswered``.

        Raises ``ProtocolError`` (unsupported_operation) on a wire without such a question.
        """


class ProtocolEngine(Driven, Asked, Protocol):
    """A gossip protocol as a state machine."""
