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
    """A node remembered from an earlier run. It is tried at the start, so that a rejoin needs no seeds."""

    address: Address
    incarnation: int
    sequence: int
    last_heard_ns: int
    name: str = ""
    private_data: str = ""


def remembered(members: Iterable[Member], now: Now) -> list[Known]:
    """The ``members`` to keep for the next run: those that were heard and did not leave."""
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
    """An operation that the protocol refuses. ``code`` is stable (snake_case) and appears in the API's errors."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class InvalidError(ProtocolError, ValueError):
    """A parameter that is invalid in every state of the cluster."""


class Driven(Protocol):
    """An engine as its runtime drives it: time and packets in; packets, events and the next deadline out.

    The attributes are callbacks by which the engine asks its runtime. The runtime sets them.
    """

    #: Whether this host shares an address family with an address.
    reaches: Callable[[Address], bool]
    #: Keys of documents that are held but not on the disk yet. No member counts them as held here until they are.
    unstored_source: Callable[[], Container[str]]

    def start(self, now: Now, known: Iterable[Known] = (), documents: Iterable[Document] = ()) -> None:
        """Join the cluster: load what an earlier run knew (retired tombstones included), and contact seeds.

        The local node is announced to the seeds and to the known nodes.
        """

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Take one packet from ``source``. Bad input never raises; it is counted.

        ``screened``: a data plane has already found the packet authentic, fresh and new, and has relayed it. Returns
        True for an accepted rumor of another node (authentic, fresh, not seen before), on a wire that relays rumors;
        False for a refused packet; None for any other.
        """

    def handle_timer(self, now: Now) -> None:
        """Do what is due."""

    def next_timer(self) -> float | None:
        """Monotonic time at which :meth:`handle_timer` is due; None: no timer is set."""

    def take_transmits(self) -> list[Transmit | Rumor]:
        """Packets to send, in order; each is returned once."""

    def take_events(self) -> list[Event]:
        """Events since the last call, in order."""

    def former(self, now: Now) -> list[Known]:
        """Members that were silent for a day and are still tried; the shell stores them for the next run."""


class Asked(Protocol):
    """An engine as its users see it: members, documents, and queries to other members."""

    settings: Settings
    #: The state of a document in this node's rendered files, and the files in trouble. Other members ask for them; the
    #: part that renders files sets them.
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
        """Whether documents name the versions that their authors had read.

        Without that, conflicts cannot be detected.
        """

    @property
    def counters(self) -> Mapping[str, int]:
        """Counters by name. Every packet that is not used adds to one of them."""

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` now, and again whenever it is absent, forever (PekoNode's ``Set``)."""

    def unseed(self, address: Address) -> None:
        """Stop treating ``address`` as a seed. Nothing else about it is forgotten."""

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the local record and spread it; False when nothing changed."""

    def pause(self, now: Now) -> bool:
        """Stop publishing heartbeats (PekoNode's ``Stop``): others drop this node after their timeout."""

    def resume(self, now: Now) -> bool:
        """Publish heartbeats again (PekoNode's ``Start``)."""

    def leave(self, now: Now) -> bool:
        """Announce to all members that this node leaves. They drop it at once."""

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
        """Write a document. Returns it and whether anything changed.

        ``expected``/``absent``: compare-and-set against the version held here. ``expires_in``: seconds until the
        document expires. ``content_type`` None: see ``Write``. Raises ``ProtocolError``: invalid_document,
        document_too_large, too_many_documents, version_mismatch.
        """

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """Write several documents, all or none. On each member they become visible together.

        Returns for each what :meth:`publish` or :meth:`delete` would return. Raises ``ProtocolError`` as these do, with
        ``key`` among the details, and ``TypeChanged`` if a value was checked for another type than it would get.
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
        """Prepare what :meth:`publish_many` would write, so that the shell stores it before other members hear of it.

        Nothing has happened until :meth:`commit`. Returns None on a wire that cannot do so: use :meth:`publish_many`.
        ``pending``: what was prepared before and may still be committed; it counts in the limits, and shares no key
        with ``writes``. Raises as :meth:`publish_many` does.
        """

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """Make the prepared documents hold, and spread them.

        Returns False if another version of one of these documents came between, or others took the room. Then nothing
        happened.
        """

    def repair(self, now: Now) -> int:
        """Sync at once with every member whose documents digest differs. Returns how many were asked."""

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Write a tombstone. Returns it (None: there never was such a document) and whether anything changed."""

    def document(self, key: str) -> Document | None:
        """The document held here, or None. A tombstone is not a document."""

    def held(self, key: str) -> Document | None:
        """The document held here, otherwise its tombstone, as long as that is kept."""

    def documents(self, prefix: str = "") -> list[Document]:
        """All documents whose keys start with ``prefix``, sorted by key, without tombstones."""

    def documents_after(self, key: str, prefix: str = "") -> Iterator[Document]:
        """Like :meth:`documents`, but only those after ``key`` ("": all).

        Documents that the caller does not take cost nothing.
        """

    @property
    def documents_held(self) -> tuple[int, int]:
        """The number of documents, and the bytes of their values. Cheap, however many there are."""

    def tally(self) -> dict[State, int]:
        """How many nodes are known in each state, the local one included. Cheap, however many there are."""

    def members(self, now: Now) -> list[Member]:
        """Every known node in any state: the local one first, then the others by address."""

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """The other nodes after ``address`` (None: all), by address.

        Nodes that the caller does not take cost nothing.
        """

    @property
    def local(self) -> Member:
        """The local node as :meth:`members` returns it."""

    @property
    def revision(self) -> int:
        """A number that grows with every change of another node that :meth:`members` would show, except signs of life.

        Signs of life are a node's sequence and when it was last heard.
        """

    @property
    def catching_up(self) -> str:
        """What this node still waits for to know what the cluster knew at this node's start; "" once it knows it.

        A ``CaughtUp`` event reports that moment.
        """

    @property
    def state_digest(self) -> int:
        """64-bit digest of all documents and tombstones held here."""

    @property
    def clock_offset(self) -> float:
        """Seconds by which the cluster's clock (median of the members) is ahead of the local one."""

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members which version of ``key`` they hold.

        Answers arrive as ``QueryAnswered`` with the returned number.
        """

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members for the state of ``key`` in their rendered files. Answers arrive as ``AppliedAnswered``.

        Raises ``ProtocolError`` (unsupported_operation) on a wire without such a query.
        """

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """Ask members which of their rendered files are in trouble. Answers arrive as ``FilesAnswered``.

        Raises ``ProtocolError`` (unsupported_operation) on a wire without such a query.
        """


class ProtocolEngine(Driven, Asked, Protocol):
    """A gossip protocol as a state machine."""
