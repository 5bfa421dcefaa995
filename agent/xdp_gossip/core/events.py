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
    """Send a rumor of this node to each of ``targets``.

    They were picked at random; any other members would do as well.
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
    """The local node published a heartbeat (PekoNode's ``[Listen]`` line shows the node list at that moment)."""

    node: Node


@dataclass(frozen=True)
class MemberChanged:
    """A member appeared, changed its record, or changed state. ``previous`` is its former state; None if it is new."""

    member: Member
    previous: State | None


@dataclass(frozen=True)
class Standing:
    """The standing of a peer, for a data plane that screens packets by itself.

    ``standing`` is present, suspect, gone (the engine judges its packets) or forgotten. ``highest`` and ``window`` are
    its replay window; bit i stands for ``highest`` - i. ``clock_ahead`` is its wall clock minus the local one, in
    seconds.
    """

    address: Address
    standing: str
    incarnation: int
    highest: int
    window: int
    clock_ahead: float


@dataclass(frozen=True)
class IncarnationChanged:
    """The local incarnation was raised (refutation, resume). It must reach the disk before the next run starts."""

    incarnation: int


@dataclass(frozen=True)
class DocumentChanged:
    """A document took a new version here. ``local``: published on this very node.

    ``replaced`` is the version that it replaced, if any. ``conflict``: the author of the new version had not read the
    replaced one (concurrent publish), so the author of the replaced version lost.
    """

    document: Document
    replaced: Document | None
    local: bool
    conflict: bool = False


@dataclass(frozen=True)
class TombstonesCollected:
    """Tombstones whose grace period is over. Earlier versions of their keys may be deleted; the tombstones are kept.

    ``dropped``: older retired tombstones that exceed the limit.
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
    """A sync request was answered (PekoNode's ``[Swap Response]: a <- b``: a asked, b answered)."""

    requester: Address
    responder: Address


@dataclass(frozen=True)
class Warned:
    """A warning for the operator. ``code`` is stable, ``text`` is a sentence."""

    code: str
    text: str


@dataclass(frozen=True)
class CaughtUp:
    """This node has caught up: it knows what the cluster knew at its start. ``how`` says by which rule."""

    how: str


@dataclass(frozen=True)
class QueryAnswered:
    """A member answered a query: it holds ``version`` of the document (None: it has no such document).

    Without a ``digest`` that version is a tombstone: the document was deleted. ``stored``: the version is on its disk.
    """

    query: int
    address: Address
    version: str | None
    digest: str | None
    stored: bool = True


@dataclass(frozen=True)
class AppliedAnswered:
    """A member reported the state of a document in its rendered files (see :class:`.queries.Applied`)."""

    query: int
    address: Address
    state: str
    version: str | None
    error: str


@dataclass(frozen=True)
class FilesAnswered:
    """A member reported which of its rendered files are in trouble."""

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
