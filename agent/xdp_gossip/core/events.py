# SPDX-License-Identifier: MIT
"""Events that an engine reports to its shell (the program around the engine).

The shell prints, stores, counts and serves these events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from .applied import TroubledFiles
from .types import Address, Document, Member, Node, State, Version


@dataclass(frozen=True)
class Transmit:
    """A packet to send to ``to``.

    The packet goes as one TCP frame if ``reliable`` is set or if it is too long for a datagram; otherwise it goes as
    one datagram.
    """

    to: Address
    data: bytes
    reliable: bool = False


@dataclass(frozen=True)
class Rumor:
    """A rumor of this node to send to each of ``targets``.

    The engine picked the targets at random, so a data plane may send the rumor to other members instead.
    """

    data: bytes
    targets: tuple[Address, ...]


@dataclass(frozen=True)
class Joined:
    """The local node joined the cluster (PekoNode's ``[Join]``)."""

    node: Node


@dataclass(frozen=True)
class Paused:
    """The local node stopped publishing heartbeats (PekoNode's ``[Stop]``)."""

    node: Node


@dataclass(frozen=True)
class Resumed:
    """The local node publishes heartbeats again (PekoNode's ``[Start]``)."""

    node: Node


@dataclass(frozen=True)
class HeartbeatSent:
    """The local node published a heartbeat.

    At each heartbeat, PekoNode's console prints the node list in a ``[Listen]`` line.
    """

    node: Node


@dataclass(frozen=True)
class MemberChanged:
    """A member appeared, changed its record, or changed state. ``previous``: former state; None for a new member."""

    member: Member
    previous: State | None


@dataclass(frozen=True)
class MemberForgotten:
    """An operator removed a dead node from the NodeList. ``member``: the node as it was."""

    member: Member


@dataclass(frozen=True)
class ZoneChanged:
    """No node of a zone is present any more (``lost``), or a node of a lost zone is present again.

    ``members``: number of nodes of the zone that are dead or agent_down. A zone whose nodes have all left is not lost.
    """

    zone: str
    lost: bool
    members: int


@dataclass(frozen=True)
class Standing:
    """The state of a peer that a data plane needs in order to check the peer's packets without the engine.

    ``standing`` is present, suspect, gone (the data plane then passes the peer's packets to the engine) or forgotten.
    ``highest`` and ``window`` are the peer's replay window: bit i is set if sequence ``highest`` - i was seen.
    ``clock_ahead`` is the peer's wall clock minus the local wall clock, in seconds.
    """

    address: Address
    standing: str
    incarnation: int
    highest: int
    window: int
    clock_ahead: float


@dataclass(frozen=True)
class IncarnationChanged:
    """The local node raised its incarnation (refutation, resume). The shell stores the new incarnation."""

    incarnation: int


@dataclass(frozen=True)
class DocumentChanged:
    """A document has a new version on this node. ``local``: this node published the version itself.

    ``replaced`` is the former version of the document, if any. ``conflict``: two nodes published concurrently, so the
    author of the new version had not read the replaced version.
    """

    document: Document
    replaced: Document | None
    local: bool
    conflict: bool = False


@dataclass(frozen=True)
class DocumentRefused:
    """Another member sent or announced a version of a document whose signature is missing or wrong.

    ``source``: the member that sent the document; None if it is unknown. At most 32 such events occur within a minute;
    the counters ``documents_refused_unsigned`` and ``documents_refused_signature`` count all refused documents.
    """

    key: str
    version: Version
    reason: str
    source: Address | None


@dataclass(frozen=True)
class DocumentWithheld:
    """This node does not hold ``document`` any more, because its signature is missing or wrong by the present rules.

    The document stays in the history.
    """

    document: Document
    reason: str


@dataclass(frozen=True)
class TombstonesCollected:
    """The grace period of ``tombstones`` is over.

    The store keeps the tombstones, but may delete earlier versions of their keys. ``dropped``: the oldest retired
    tombstones, which are deleted because more tombstones than the maximum were retired.
    """

    tombstones: tuple[Document, ...]
    dropped: tuple[Document, ...] = ()


@dataclass(frozen=True)
class SwapRequested:
    """A sync request was sent or received (PekoNode's ``[Swap Request]: a -> b``)."""

    requester: Address
    responder: Address


@dataclass(frozen=True)
class SwapAnswered:
    """A sync request was answered (PekoNode's ``[Swap Response]: a <- b``: a sent the request, b sent the answer)."""

    requester: Address
    responder: Address


@dataclass(frozen=True)
class Warned:
    """A warning for the operator. ``code`` is a stable identifier, ``text`` is a sentence for humans."""

    code: str
    text: str


@dataclass(frozen=True)
class CaughtUp:
    """This node has caught up: it now has all documents that existed in the cluster when this node started.

    ``how``: a sentence that says why the node counts as caught up.
    """

    how: str


@dataclass(frozen=True)
class QueryAnswered:
    """A member answered a query with the ``version`` of its document (None: the member has no such document).

    If ``digest`` is None but ``version`` is not None, the version is a tombstone. ``stored``: the version is on the
    member's disk.
    """

    query: int
    address: Address
    version: str | None
    digest: str | None
    stored: bool = True


@dataclass(frozen=True)
class AppliedAnswered:
    """A member reported the state of a document in the member's rendered files. See :class:`.queries.Applied`."""

    query: int
    address: Address
    state: str
    version: str | None
    error: str


@dataclass(frozen=True)
class FilesAnswered:
    """A member reported which of its rendered files are failed, drifted or pending."""

    query: int
    address: Address
    found: TroubledFiles


Event = Union[
    Joined,
    Paused,
    Resumed,
    HeartbeatSent,
    MemberChanged,
    MemberForgotten,
    ZoneChanged,
    Standing,
    IncarnationChanged,
    DocumentChanged,
    DocumentRefused,
    DocumentWithheld,
    TombstonesCollected,
    SwapRequested,
    SwapAnswered,
    Warned,
    CaughtUp,
    QueryAnswered,
    AppliedAnswered,
    FilesAnswered,
]
