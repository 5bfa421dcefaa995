# SPDX-License-Identifier: MIT
"""The interface between a protocol engine and the shell, which is the program around the engine.

See docs/architecture.md, "The core". An engine has no clock, socket, thread, file or randomness of its own. The shell
passes the time with each input. After each input the shell calls :meth:`Driven.take_transmits` and
:meth:`Driven.take_events`. The shell calls :meth:`Driven.handle_timer` at the time that :meth:`Driven.next_timer`
returns.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .applied import Applied, TroubledFiles
from .events import Event, Rumor, Transmit
from .packets import PacketKeys
from .settings import Settings
from .signers import Signer, Signers
from .types import Address, Document, Member, Node, Now, Prepared, State, Version, Write


@dataclass(frozen=True)
class Known:
    """A node known from an earlier run of this agent. At start the agent contacts known nodes."""

    address: Address
    incarnation: int
    sequence: int
    last_heard_ns: int
    name: str = ""
    private_data: str = ""
    zone: str = ""

    @property
    def is_former(self) -> bool:
        """Whether the node is a former member, which was forgotten: it has neither an incarnation nor a sequence."""
        return not (self.incarnation or self.sequence)


def remembered(members: Iterable[Member], now: Now) -> list[Known]:
    """Select from ``members`` the nodes to store for the next run: remote members that were heard and have not left."""
    return [
        Known(
            member.address,
            member.incarnation,
            member.sequence,
            now.wall_ns - int(member.last_heard * 1e9),
            member.record.name if member.record else "",
            member.record.private_data if member.record else "",
            member.zone,
        )
        for member in members
        if not member.local and member.state is not State.LEFT and (member.incarnation or member.sequence)
    ]


class ProtocolError(Exception):
    """Raised when the protocol refuses an operation. ``code``: stable identifier (snake_case), also in API errors."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class InvalidError(ProtocolError, ValueError):
    """Raised for a parameter that is invalid in every state of the cluster."""


def check_dead(address: Address, state: State | None) -> None:
    """Raise the ``ProtocolError`` of :meth:`Asked.forget` unless ``state`` is dead. None: the node is unknown."""
    if state is None:
        text = f"node {address}: expected a known node; GET /v1/nodes?state=all lists them"
        raise ProtocolError("node_not_found", text, node=str(address))
    if state is not State.DEAD:
        text = f"node {address}: expected a dead node, got one in state {state.value}"
        raise ProtocolError("node_not_dead", text, node=str(address), state=state.value)


class Driven(Protocol):
    """The interface of an engine for its runtime: time and packets go in; packets, events and a deadline come out.

    The runtime sets the attributes, which are callbacks from the engine into the runtime.
    """

    #: Returns whether this host has an address of the same family as the given address.
    reaches: Callable[[Address], bool]
    #: Returns the keys of documents that are not on the disk yet. Until a document is on the disk, other members do not
    #: count it as stored on this node.
    unstored_source: Callable[[], Container[str]]

    def start(self, now: Now, known: Iterable[Known] = (), documents: Iterable[Document] = ()) -> None:
        """Join the cluster: load the nodes and documents of an earlier run, and contact seeds.

        ``documents`` includes retired tombstones. The engine announces the local node to seeds and ``known`` nodes.
        """

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Process one packet from ``source``. The engine counts a bad packet, and raises no error.

        ``screened``: a data plane has already found that the packet is authentic, recent and not a duplicate, and has
        relayed it. On a wire that relays rumors, returns True for an accepted rumor of another node (authentic, recent
        and not a duplicate) and False for a rejected packet. Returns None for any other packet.
        """

    def handle_timer(self, now: Now) -> None:
        """Run all timers that are due at ``now``."""

    def next_timer(self) -> float | None:
        """Monotonic time at which :meth:`handle_timer` is due; None: no timer is set."""

    def take_transmits(self) -> list[Transmit | Rumor]:
        """Return the packets that the engine has queued since the last call, in order, and empty the queue."""

    def take_events(self) -> list[Event]:
        """Return the events that the engine has queued since the last call, in order, and empty the queue."""

    def former(self, now: Now) -> list[Known]:
        """Return the former members: nodes that were forgotten, but that the engine still contacts.

        The shell stores them.
        """


class AskedDocuments(Protocol):
    """The documents of an engine: the interface for the API and the library."""

    #: The rules of signed documents.
    signers: Signers

    @property
    def digest(self) -> int:
        """64-bit digest of all documents and tombstones of this node (the documents digest)."""

    @property
    def totals(self) -> tuple[int, int]:
        """The number of documents, and the total bytes of their values, in constant time."""

    def get(self, key: str) -> Document | None:
        """This node's version of the document ``key``; None if the node has no version or only a tombstone."""

    def held(self, key: str) -> Document | None:
        """This node's version of the document ``key`` or its tombstone; None if the node has neither."""

    def lineage(self, key: str) -> tuple[Version, ...]:
        """The versions that the author of the next version of ``key`` has read.

        The first is the version of this node's document, or of its last tombstone; then follow base and ancestors. ()
        if this node knows no version.
        """

    def live(self, prefix: str = "", after: str = "") -> Iterator[Document]:
        """Iterate over the documents whose keys start with ``prefix`` and come after ``after``, sorted by key.

        Tombstones are left out. The iterator is lazy: documents that the caller does not consume cost no work.
        """

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
        """Write a document. Returns the document and whether anything changed.

        ``expected``, ``absent``: conditions of a compare-and-set, as in ``Write``. ``expires_in``: seconds until the
        document expires. ``content_type`` None: see ``Write``. Raises ``ProtocolError``: invalid_document,
        document_too_large, too_many_documents, version_mismatch, signature_required, signature_refused,
        signature_outdated.
        """

    def publish_many(
        self, writes: Sequence[Write], now: Now, *, author: str = "", comment: str = ""
    ) -> list[tuple[Document | None, bool]]:
        """Write several documents, all or none. On each member the documents become visible together.

        Returns for each write the result of :meth:`publish` or :meth:`delete`. Raises the ``ProtocolError`` of
        :meth:`publish` and :meth:`delete`, with ``key`` among the details. Raises ``TypeChanged`` if a value was
        checked for one content type, but the document would get another content type.
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
        """Prepare the documents of a :meth:`publish_many`.

        The shell can store the prepared documents before it calls :meth:`commit`. The engine's documents change only in
        :meth:`commit`, not in :meth:`prepare`. Returns None on a wire without this operation; the caller then uses
        :meth:`publish_many`. ``pending``: documents prepared earlier and not committed yet. Pending documents count
        toward the limits. ``writes`` must not contain a key of a pending document. Raises the same errors as
        :meth:`publish_many`.
        """

    def commit(self, prepared: Sequence[Prepared], now: Now) -> bool:
        """Apply the prepared documents, and spread them to other members.

        Returns False, and changes nothing, if a document has received a new version since :meth:`prepare`, or if
        ``prepared`` no longer fits into the limits because other documents were added since then.
        """

    def delete(self, key: str, now: Now, *, expected: Version | None = None) -> tuple[Document | None, bool]:
        """Delete a document. Returns the tombstone (None: there was no document) and whether anything changed."""


class Asked(Protocol):
    """The interface of an engine for the API and the library: members, documents, and queries to other members."""

    settings: Settings
    #: ``applied_source`` returns the state of a document in this node's rendered files, and ``files_source`` returns
    #: the failed, drifted and pending files, for queries of other members. The renderer sets both.
    applied_source: Callable[[str], Applied]
    files_source: Callable[[], TroubledFiles]

    @property
    def documents(self) -> AskedDocuments:
        """This node's documents. Users read and write documents through this object."""

    @property
    def node(self) -> Node:
        """The local node."""

    @property
    def status(self) -> str:
        """The status of the local node: new, running, paused or left."""

    @property
    def cycle(self) -> float:
        """The current number of seconds between two heartbeats."""

    @property
    def timeout(self) -> float:
        """The current number of seconds of silence after which a member becomes suspect."""

    @property
    def tells_ancestry(self) -> bool:
        """Whether documents on this wire list the versions that their authors had read.

        If documents do not list the versions that their authors had read, the engine cannot detect conflicts.
        """

    @property
    def counters(self) -> Mapping[str, int]:
        """Counters by name.

        For each received packet that the engine does not use, one of the counters is incremented.
        """

    def trust(self, signers: Iterable[Signer], now: Now) -> int:
        """Replace the signers of documents, and tell the other members that they were replaced.

        Documents that lack the signature which the new rules require stay in the history only. Emits
        ``DocumentWithheld`` for each of them, and returns their number.
        """

    def replace_keys(self, keyring: PacketKeys, now: Now) -> None:
        """Replace the keys by those of ``keyring``, and tell the other members which keys this node has now.

        The next packet is signed with the new active key. Raises ``ProtocolError`` (unsupported_operation) on a wire
        without keys.
        """

    def seed(self, node: Node, now: Now) -> None:
        """Add a seed: contact ``node`` now, and again whenever it is not a present member (PekoNode's ``Set``)."""

    def unseed(self, address: Address) -> None:
        """Remove ``address`` from the seeds. The node stays in the NodeList."""

    def update_node(self, now: Now, name: str | None = None, private_data: str | None = None) -> bool:
        """Change the local node's record, and spread the changed record to other members.

        Returns False if nothing changed.
        """

    def pause(self, now: Now) -> bool:
        """Stop publishing heartbeats (PekoNode's ``Stop``). Other members drop this node after their timeout.

        Returns False if the node was not running.
        """

    def resume(self, now: Now) -> bool:
        """Publish heartbeats again (PekoNode's ``Start``), after a pause or a leave.

        Returns False if the node had neither paused nor left.
        """

    def leave(self, now: Now) -> bool:
        """Announce to all members that this node leaves, so that they drop the node at once.

        Returns False if the node had left already.
        """

    @property
    def isolated(self) -> bool:
        """Whether this node is cut off: no other node answers it, although it knows several.

        Always False on a wire without observers.
        """

    @property
    def unknown_key_nodes(self) -> int:
        """Number of known nodes, at most 64, whose recent packets are signed with a key that this node does not have.

        The packets are not authenticated. Always 0 on a wire without keys.
        """

    @property
    def missed_rotation(self) -> bool:
        """Whether this node seems to have missed a rotation of the keys: it hears packets, but none with its keys.

        Always False on a wire without keys.
        """

    @property
    def displaced(self) -> int:
        """Number of dead nodes that are no longer in the full NodeList, but still count for a majority."""

    def forget(self, address: Address, now: Now) -> Member:
        """Remove a dead node from this node's NodeList, so that it no longer counts for a majority.

        The node returns to the NodeList as soon as it is heard again. The removal is local: other members decide for
        themselves. Emits ``MemberForgotten``. Returns the node as it was. Raises ``ProtocolError``: node_not_found;
        node_not_dead, with the detail ``state``.
        """

    def repair(self, now: Now) -> int:
        """Sync at once with every member whose documents digest differs from this node's digest.

        Returns their number.
        """

    def tally(self) -> dict[State, int]:
        """The number of known nodes in each state, the local node included, in constant time."""

    def members(self, now: Now) -> list[Member]:
        """Every known node in any state: first the local node, then the other nodes sorted by address."""

    def members_after(self, address: Address | None, now: Now) -> Iterator[Member]:
        """Iterate over the remote nodes with addresses after ``address`` (None: over all remote nodes), by address.

        The iterator is lazy: nodes that the caller does not consume cost no work.
        """

    @property
    def local(self) -> Member:
        """The local node as :meth:`members` returns it."""

    @property
    def revision(self) -> int:
        """A number that grows whenever the data of a remote node in :meth:`members` change.

        A sign of life alone (a new ``sequence`` or ``last_heard``) does not change the number.
        """

    @property
    def catching_up(self) -> str:
        """What this node waits for while it catches up with the cluster, as text; "" after it has caught up.

        The engine emits ``CaughtUp`` when the value becomes "".
        """

    @property
    def clock_offset(self) -> float:
        """Seconds by which the cluster's clock (median of the members' clocks) is ahead of the local clock."""

    def query(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members which version of document ``key`` they have, and return the number of this query.

        Each answer arrives as a ``QueryAnswered`` event with the returned number.
        """

    def query_applied(self, key: str, to: Iterable[Address], now: Now) -> int:
        """Ask members for the state of document ``key`` in their rendered files, and return the number of this query.

        Each answer arrives as an ``AppliedAnswered`` event with the returned number. Raises ``ProtocolError``
        (unsupported_operation) on a wire without such a query.
        """

    def query_files(self, to: Iterable[Address], now: Now) -> int:
        """Ask members for their failed, drifted and pending rendered files, and return the number of this query.

        Each answer arrives as a ``FilesAnswered`` event with the returned number. Raises ``ProtocolError``
        (unsupported_operation) on a wire without such a query.
        """


class ProtocolEngine(Driven, Asked, Protocol):
    """The complete interface of an engine: a gossip protocol as a state machine without I/O."""
