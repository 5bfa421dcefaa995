# SPDX-License-Identifier: MIT
"""The protocol's messages as values. ``wire/`` turns them into bytes and back; ``docs/protocol.md`` describes each."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, Union

from .applied import TroubledFile
from .types import Address, Document, Record, State, Version


class PacketType(enum.IntEnum):
    """First three as eGossip numbers them."""

    HEARTBEAT = 1
    SWAP_REQUEST = 2
    SWAP_RESPONSE = 3
    METADATA = 4
    LEAVE = 5
    RECORD = 6
    PROBE = 7


#: Types that are relayed from node to node and share the origin's rumor sequence; the others go to one node.
RUMORS = frozenset({PacketType.HEARTBEAT, PacketType.METADATA, PacketType.LEAVE, PacketType.RECORD})

#: The origin does not publish heartbeats at present (``Stop``): its packets are no sign of life.
FLAG_PAUSED = 0x01
#: Not all documents that the digest stands for are on the origin's disk yet.
FLAG_UNSTORED = 0x02
#: The origin has just started, and does not know yet what the cluster knows: what it holds may be old, or nothing.
FLAG_CATCHING_UP = 0x04


@dataclass(frozen=True)
class Header:
    """The signed block and the relay area of a packet (``bpf/wire.h`` states the layout)."""

    type: PacketType
    origin: Address
    incarnation: int
    sequence: int
    wall_ns: int
    state_digest: int
    record_digest: int
    flags: int = 0
    key_id: int = 0
    ttl: int = 0
    hops: int = 0


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


class Rejected(Exception):
    """A packet that is not used; ``reason`` is the name of its counter without the ``rx_`` prefix."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Codec(Protocol):
    """Bytes of packets. Checks come in order of their cost, so the engine can drop duplicates before any crypto."""

    def parse(self, data: bytes) -> Header:
        """The header, unverified. Raises ``Rejected``: truncated, malformed, foreign_version, foreign_cluster."""

    def verify(self, data: bytes, header: Header) -> None:
        """Check the MAC. Raises ``Rejected``: unknown_key, bad_mac."""

    def open(self, data: bytes, header: Header) -> Message | None:
        """Decrypt and check the body; None for types without. Raises ``Rejected``: bad_body."""

    def encode(self, header: Header, message: Message | None) -> bytes:
        """A signed and sealed packet, with the active key."""

    def relayed(self, data: bytes) -> bytes | None:
        """The packet as it goes to the next hop; None when it has made its last."""

    def size_of(self, message: Message) -> int:
        """Bytes of the whole packet that would carry ``message``."""
