# SPDX-License-Identifier: MIT
"""Events that an engine reports to its shell, which prints, stores, counts and serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from .applied import TroubledFiles
from .types import Address, Document, Member, Node, State


@dataclass(frozen=True)
class Transmit:
    """Send ``data`` to ``to``: as one datagram, or as one TCP frame when ``reliable`` or too long for a datagram."""

    to: Address
    data: bytes
    reliable: bool = False


@dataclass(frozen=True)
class Rumor:
    """Send a rumor of this node to each of ``targets``: members picked at random, any others do as well."""

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
    """The local node published a heartbeat (PekoNode's ``[Listen]`` line carries the node list at that moment)."""

    node: Node


@dataclass(frozen=True)
class MemberChanged:
    """A member appeared, changed its record, or changed state. ``previous`` is its former state, None when new."""

    member: Member
    previous: State | None


@dataclass(frozen=True)
class Standing:
    """What a data plane that screens packets by itself should hold of a peer from now on.

    ``standing`` is present, suspect, gone (its packets are for the engine to judge) or forgotten. ``highest`` and
    ``window`` are its replay window, bit i standing for ``highest`` - i; ``clock_ahead`` its wall clock minus the
    local one in seconds.
    """

    address: Address
    standing: str
    incarnation: int
    highest: int
    window: int
    clock_ahead: float


@dataclass(frozen=True)
class IncarnationChanged:
    """The local incarnation was raised (refutation, resume). Must reach the disk before it is used again."""

    incarnation: int


@dataclass(frozen=True)
class DocumentChanged:
    """A document took a new version here. ``local``: published on this very node.

    ``replaced`` is the version it replaced, if any; ``conflict`` tells that the replaced version was written
    without knowledge of the new one (concurrent publish), so its author lost.
    """

    document: Document
    replaced: Document | None
    local: bool
    conflict: bool = False


@dataclass(frozen=True)
class TombstonesCollected:
    """Tombstones whose grace period is over: all earlier versions of their keys may go, they themselves are kept.

    ``dropped``: earlier ones that are too many to be kept.
    """

    tombstones: tuple[Document, ...]
    dropped: tuple[Document, ...] = ()


@dataclass(frozen=True)
class SwapRequested:
    """A sync request went out or came in (PekoNode's ``[Swap Request]: a -> b``)."""

    requester: Address
    responder: Address


@dataclass(frozen=True)
class SwapAnswered:
    """A sync request was answered (PekoNode's ``[Swap Response]: a <- b``: a asked, b answered)."""

    requester: Address
    responder: Address


@dataclass(frozen=True)
class Warned:
    """Something an operator should know; ``code`` is stable, ``text`` a sentence."""

    code: str
    text: str


@dataclass(frozen=True)
class CaughtUp:
    """This node knows from now on what the cluster knew when it started; ``how`` says why it counts as knowing that."""

    how: str


@dataclass(frozen=True)
class QueryAnswered:
    """A member answered a query: it holds ``version`` of the document (None: it has no such document).

    Without a ``digest`` that version is a tombstone: the document was deleted. ``stored``: it is on its disk.
    """

    query: int
    address: Address
    version: str | None
    digest: str | None
    stored: bool = True


@dataclass(frozen=True)
class AppliedAnswered:
    """A member told what became of a document in its rendered files (see :class:`.queries.Applied`)."""

    query: int
    address: Address
    state: str
    version: str | None
    error: str


@dataclass(frozen=True)
class FilesAnswered:
    """A member told which of its rendered files are in trouble."""

    query: int
    address: Address
    found: TroubledFiles


Event = Union[
    Joined,
    Paused,
    Resumed,
    HeartbeatSent,
    MemberChanged,
    Standing,
    IncarnationChanged,
    DocumentChanged,
    TombstonesCollected,
    SwapRequested,
    SwapAnswered,
    Warned,
    CaughtUp,
    QueryAnswered,
    AppliedAnswered,
    FilesAnswered,
]
