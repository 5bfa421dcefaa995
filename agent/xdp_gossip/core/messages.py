# SPDX-License-Identifier: MIT
"""The protocol's messages as values. ``wire/`` turns them into bytes and back; ``docs/protocol.md`` describes each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from .applied import TroubledFile
from .types import Address, Document, Record, State, Version


@dataclass(frozen=True)
class Sighting:
    """The newest sign of life of a node that the sender has."""

    address: Address
    incarnation: int
    sequence: int


@dataclass(frozen=True)
class MemberInfo:
    """What the sender knows of a node; ``age_ms`` since it was last heard."""

    address: Address
    incarnation: int
    sequence: int
    state: State
    age_ms: int
    record_digest: int
    state_digest: int


@dataclass(frozen=True)
class Entry:
    """A document without its value."""

    key: str
    version: Version
    deleted: bool
    content_hash: bytes
    size: int

    @property
    def rank(self) -> tuple[Version, bool, bytes]:
        """As :attr:`Document.rank`."""
        return (self.version, self.deleted, self.content_hash)


@dataclass(frozen=True)
class SyncRequest:
    """Opens an exchange: the header holds the state digest, this the rest of what is to be compared."""

    nonce: int
    members_digest: int
    overdue: tuple[Sighting, ...] = ()


@dataclass(frozen=True)
class SyncResponse:
    """Answers it with what differs.

    ``members``: newer sightings of the overdue. When the digests of the node lists differ, the whole list follows in
    ``MemberList`` messages and ``want_members`` asks for the requester's in return. Of the documents, when the state
    digests differ, either all ``entries`` (``entries_complete``) or the 256 ``buckets``' digests.
    """

    nonce: int
    members: tuple[MemberInfo, ...] = ()
    want_members: bool = False
    entries: tuple[Entry, ...] = ()
    entries_complete: bool = False
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True)
class MemberList:
    """Some or all of the nodes that the sender knows."""

    members: tuple[MemberInfo, ...]


@dataclass(frozen=True)
class ListRequest:
    """Asks for the entries of some buckets; not for those documents whose state hash is ``known`` to the requester."""

    buckets: tuple[int, ...]
    known: tuple[int, ...] = ()


@dataclass(frozen=True)
class ListResponse:
    """Entries; ``finished`` names the buckets of which no more follow.

    ``unknown``: those of the hashes in the request that stand for nothing here; None: they were not looked at.
    """

    entries: tuple[Entry, ...]
    finished: tuple[int, ...]
    unknown: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Want:
    """A document, or the rest of one from ``offset`` on."""

    key: str
    version: Version
    offset: int = 0


@dataclass(frozen=True)
class FetchRequest:
    """Asks for documents."""

    wants: tuple[Want, ...]


@dataclass(frozen=True)
class Documents:
    """Whole documents: an answer to a fetch, a push of what the other lacks, or (type 4) a rumor."""

    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Chunk:
    """A piece of a document too large for one frame. ``head`` is the document with an empty value."""

    head: Document
    size: int
    content_hash: bytes
    offset: int
    data: bytes


@dataclass(frozen=True)
class NotHere:
    """The sender does not hold these documents in a version as new as the one wanted."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Announce:
    """Documents that exist, to be fetched (type 4 when they do not fit a datagram)."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class RecordsRequest:
    """Asks for node records."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True)
class Records:
    """Node records, each with the node it describes."""

    records: tuple[tuple[Address, Record], ...]


@dataclass(frozen=True)
class RecordRumor:
    """The origin's own record (type 6)."""

    record: Record


@dataclass(frozen=True)
class Ping:
    """Asks ``target`` for a sign of life; anybody else who gets it got a recording.

    ``incarnation`` is the newest one of the target that the sender knows; ``suspect`` tells the target that the
    sender stopped hearing it. ``padding`` makes it longer, to find out what a path carries.
    """

    nonce: int
    target: Address
    incarnation: int
    suspect: bool
    padding: bytes = b""


@dataclass(frozen=True)
class Ack:
    """Answers a ping; the header is the sign of life."""

    nonce: int


@dataclass(frozen=True)
class PingRequest:
    """Asks a third member to ping ``target`` (SWIM's indirect probe)."""

    nonce: int
    target: Address
    incarnation: int


@dataclass(frozen=True)
class IndirectAck:
    """Tells that ``sighting.address`` answered the ping made on request."""

    nonce: int
    sighting: Sighting


@dataclass(frozen=True)
class Query:
    """Asks which version of a document the target holds."""

    nonce: int
    key: str


@dataclass(frozen=True)
class Answer:
    """Answers a query: no ``version`` means that there is no such document, no ``content_hash`` that it was deleted.

    ``stored``: it is on the disk, or there is nothing to be stored.
    """

    nonce: int
    key: str
    version: Version | None
    content_hash: bytes
    stored: bool = True


@dataclass(frozen=True)
class AppliedQuery:
    """Asks what became of a document in the target's rendered files."""

    nonce: int
    key: str


@dataclass(frozen=True)
class AppliedAnswer:
    """Answers it: ``state`` none, pending, applied or failed; the ``version`` that it speaks of (None: no document)."""

    nonce: int
    key: str
    state: str
    version: Version | None
    error: str


@dataclass(frozen=True)
class FilesQuery:
    """Asks which of the target's rendered files are in trouble."""

    nonce: int


@dataclass(frozen=True)
class FilesAnswer:
    """Answers it; the fields are those of :class:`.applied.TroubledFiles`."""

    nonce: int
    templates: int
    troubled: int
    files: tuple[TroubledFile, ...]


Message = Union[
    SyncRequest,
    SyncResponse,
    MemberList,
    ListRequest,
    ListResponse,
    FetchRequest,
    Documents,
    Chunk,
    NotHere,
    Announce,
    RecordsRequest,
    Records,
    RecordRumor,
    Ping,
    Ack,
    PingRequest,
    IndirectAck,
    Query,
    Answer,
    AppliedQuery,
    AppliedAnswer,
    FilesQuery,
    FilesAnswer,
]
