# SPDX-License-Identifier: MIT
"""The protocol's message classes and their wire formats. ``docs/protocol.md`` describes the purpose of each message.

To add a message, add its class with the next free tag at the end of this file, and add its handler in
``dispatcher.py``. The decorators define the wire format (docs/wire.md). Add new fields at the end, with a default;
never renumber tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .applied import TroubledFile
from .packets import PacketType
from .registry import Message, Registration, message, registered
from .schema import (
    ADDRESS,
    BOOLEAN,
    EDGE_STATE,
    HASH,
    KEY,
    STATE,
    U7,
    U8,
    U32,
    U64,
    VERSION,
    Struct,
    many,
    optional,
    pair,
    raw_bytes,
    text,
)
from .structures import DOCUMENT, FILE, RECORD
from .types import Address, Document, EdgeState, Record, State, Version


@dataclass(frozen=True)
class Sighting:
    """The newest sign of life that the sender of the message knows of the node ``address``."""

    address: Address
    incarnation: int
    sequence: int


SIGHTING = Struct(Sighting, address=ADDRESS, incarnation=U32, sequence=U64)


@dataclass(frozen=True)
class MemberInfo:
    """The sender's data about one node. ``age_ms``: milliseconds since the node was last heard."""

    address: Address
    incarnation: int
    sequence: int
    state: State
    age_ms: int
    record_digest: int
    documents_digest: int


MEMBER = Struct(
    MemberInfo,
    address=ADDRESS,
    incarnation=U32,
    sequence=U64,
    state=STATE,
    age_ms=U64,
    record_digest=U64,
    documents_digest=U64,
)


@dataclass(frozen=True)
class Entry:
    """The version and the content hash of a document, without its value."""

    key: str
    version: Version
    deleted: bool
    content_hash: bytes
    size: int

    @property
    def rank(self) -> tuple[Version, bool, bytes]:
        """The rank of the document; see :attr:`Document.rank`."""
        return (self.version, self.deleted, self.content_hash)


ENTRY = Struct(Entry, key=KEY, version=VERSION, deleted=BOOLEAN, content_hash=HASH, size=U64)


@dataclass(frozen=True)
class Alert:
    """The state of the edge from an observer to ``subject``, and the incarnation under which it saw the subject."""

    subject: Address
    incarnation: int
    state: EdgeState


ALERT = Struct(Alert, subject=ADDRESS, incarnation=U32, state=EDGE_STATE)


@message(1, PacketType.SWAP_REQUEST, nonce=U64, members_digest=U64, overdue=many(SIGHTING.field))
@dataclass(frozen=True)
class SyncRequest(Message):
    """Opens a sync.

    The documents digest is in the packet's header. The message itself contains the digest of the NodeList.
    """

    nonce: int
    members_digest: int
    overdue: tuple[Sighting, ...] = ()


@message(
    2,
    PacketType.SWAP_RESPONSE,
    later=("member_buckets", "nodes"),
    nonce=U64,
    members=many(MEMBER.field),
    want_members=BOOLEAN,
    entries=many(ENTRY.field),
    entries_complete=BOOLEAN,
    buckets=many(U32, 256),
    member_buckets=many(U32, 128),
    nodes=U32,
)
@dataclass(frozen=True)
class SyncResponse(Message):
    """Answers a ``SyncRequest`` with the differences between requester and responder.

    ``members``: the responder's data about the nodes that the field ``overdue`` of the request names, if these data are
    newer than the requester's data. If the digests of the NodeLists differ, the response has the digests of the 128
    ``member_buckets``, and the number of ``nodes`` in them. A responder that knows few nodes sends its whole NodeList
    in ``MemberList`` messages instead, and sets ``want_members`` to request the NodeList of the requester. If the
    documents digests differ, the response has either all ``entries`` (``entries_complete``) or the digests of the 256
    ``buckets``.
    """

    nonce: int
    members: tuple[MemberInfo, ...] = ()
    want_members: bool = False
    entries: tuple[Entry, ...] = ()
    entries_complete: bool = False
    buckets: tuple[int, ...] = ()
    member_buckets: tuple[int, ...] = ()
    nodes: int = 0


@message(
    3,
    PacketType.SWAP_RESPONSE,
    later=("last", "unknown"),
    members=many(MEMBER.field),
    last=BOOLEAN,
    unknown=many(U64),
)
@dataclass(frozen=True)
class MemberList(Message):
    """Some or all of the nodes in the sender's NodeList.

    ``last``: this message ends a whole NodeList, or the answer to a ``NodeListRequest``. ``unknown``: those hashes in
    the field ``known`` of that request that match no present node in the sender's NodeList.
    """

    members: tuple[MemberInfo, ...]
    last: bool = False
    unknown: tuple[int, ...] = ()


@message(4, PacketType.SWAP_REQUEST, later=("known",), buckets=many(U8, 256), known=many(U64))
@dataclass(frozen=True)
class ListRequest(Message):
    """Requests the entries of some buckets, without entries of documents whose state hash is in ``known``."""

    buckets: tuple[int, ...]
    known: tuple[int, ...] = ()


@message(
    5,
    PacketType.SWAP_RESPONSE,
    later=("unknown",),
    entries=many(ENTRY.field),
    finished=many(U8, 256),
    unknown=optional(many(U64)),
)
@dataclass(frozen=True)
class ListResponse(Message):
    """Answers a ``ListRequest`` with entries. ``finished``: buckets of which no entries follow after this message.

    ``unknown``: those hashes in the request's field ``known`` that match no document of the responder. ``unknown`` is
    None if the request had no hashes.
    """

    entries: tuple[Entry, ...]
    finished: tuple[int, ...]
    unknown: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Want:
    """A request for one document version. The answer starts at byte ``offset`` of the value."""

    key: str
    version: Version
    offset: int = 0


WANT = Struct(Want, key=KEY, version=VERSION, offset=U64)


@message(6, PacketType.SWAP_REQUEST, wants=many(WANT.field))
@dataclass(frozen=True)
class FetchRequest(Message):
    """Requests the documents in ``wants``."""

    wants: tuple[Want, ...]


@message(7, PacketType.SWAP_RESPONSE, PacketType.METADATA, documents=many(DOCUMENT.field))
@dataclass(frozen=True)
class Documents(Message):
    """Whole documents: the answer to a fetch, a push of documents that the receiver lacks, or a rumor (type 4)."""

    documents: tuple[Document, ...]


@message(
    8, PacketType.SWAP_RESPONSE, head=DOCUMENT.field, size=U64, content_hash=HASH, offset=U64, data=raw_bytes(1 << 24)
)
@dataclass(frozen=True)
class Chunk(Message):
    """A piece of a document that is too large for one frame. ``head`` is the document with an empty value."""

    head: Document
    size: int
    content_hash: bytes
    offset: int
    data: bytes


@message(9, PacketType.SWAP_RESPONSE, keys=many(KEY))
@dataclass(frozen=True)
class NotHere(Message):
    """Answers a ``FetchRequest``: the sender lacks the documents ``keys``, or has only older versions of them."""

    keys: tuple[str, ...]


@message(10, PacketType.SWAP_RESPONSE, PacketType.METADATA, entries=many(ENTRY.field))
@dataclass(frozen=True)
class Announce(Message):
    """Announces documents that the receiver can fetch.

    In a packet of type 4, the message is a rumor about documents that do not fit a datagram.
    """

    entries: tuple[Entry, ...]


@message(11, PacketType.SWAP_REQUEST, addresses=many(ADDRESS))
@dataclass(frozen=True)
class RecordsRequest(Message):
    """Requests the records of the nodes ``addresses``."""

    addresses: tuple[Address, ...]


@message(12, PacketType.SWAP_RESPONSE, records=many(pair(ADDRESS, RECORD.field)))
@dataclass(frozen=True)
class Records(Message):
    """Node records, each with the address of its node."""

    records: tuple[tuple[Address, Record], ...]


@message(13, PacketType.RECORD, record=RECORD.field)
@dataclass(frozen=True)
class RecordRumor(Message):
    """A rumor (type 6) with the node record of the packet's origin."""

    record: Record


@message(14, PacketType.PROBE, nonce=U64, target=ADDRESS, incarnation=U32, suspect=BOOLEAN, padding=raw_bytes(1232))
@dataclass(frozen=True)
class Ping(Message):
    """Asks ``target`` for a sign of life. A node other than ``target`` ignores the ping.

    ``incarnation``: the newest incarnation of the target that the sender knows. ``suspect``: the sender suspects the
    target.
    ``padding``: extra bytes that make the ping longer, to test whether long datagrams pass a network path.
    """

    nonce: int
    target: Address
    incarnation: int
    suspect: bool
    padding: bytes = b""


@message(15, PacketType.PROBE, nonce=U64)
@dataclass(frozen=True)
class Ack(Message):
    """Acknowledges a ping, a ping request or a sync request. An ``Ack`` is a sign of life of its origin."""

    nonce: int


@message(16, PacketType.PROBE, nonce=U64, target=ADDRESS, incarnation=U32)
@dataclass(frozen=True)
class PingRequest(Message):
    """Asks the receiver to ping ``target`` on behalf of the sender (SWIM's indirect probe)."""

    nonce: int
    target: Address
    incarnation: int


@message(17, PacketType.PROBE, nonce=U64, sighting=SIGHTING.field)
@dataclass(frozen=True)
class IndirectAck(Message):
    """Reports to the requester of an indirect probe that the node ``sighting.address`` answered the ping."""

    nonce: int
    sighting: Sighting


@message(18, PacketType.PROBE, nonce=U64, key=KEY)
@dataclass(frozen=True)
class Query(Message):
    """Asks which version of the document ``key`` the receiver has."""

    nonce: int
    key: str


@message(
    19, PacketType.PROBE, nonce=U64, key=KEY, version=optional(VERSION), content_hash=raw_bytes(32), stored=BOOLEAN
)
@dataclass(frozen=True)
class Answer(Message):
    """Answers a ``Query``. If ``version`` is None, the sender has no such document.

    If ``content_hash`` is empty, the version is a tombstone. ``stored``: the version is on the sender's disk, or there
    is no version to store.
    """

    nonce: int
    key: str
    version: Version | None
    content_hash: bytes
    stored: bool = True


@message(20, PacketType.PROBE, nonce=U64, key=KEY)
@dataclass(frozen=True)
class AppliedQuery(Message):
    """Asks for the state of the document ``key`` in the receiver's rendered files."""

    nonce: int
    key: str


@message(21, PacketType.PROBE, nonce=U64, key=KEY, state=text(16), version=optional(VERSION), error=text(512))
@dataclass(frozen=True)
class AppliedAnswer(Message):
    """Answers an ``AppliedQuery``.

    ``state``: none, pending, applied or failed. ``version``: the document version whose state is ``state``; None if
    there is no document.
    """

    nonce: int
    key: str
    state: str
    version: Version | None
    error: str


@message(22, PacketType.PROBE, nonce=U64)
@dataclass(frozen=True)
class FilesQuery(Message):
    """Asks which of the receiver's rendered files are failed, drifted or pending."""

    nonce: int


@message(23, PacketType.PROBE, nonce=U64, templates=U32, troubled=U32, files=many(FILE.field, 64))
@dataclass(frozen=True)
class FilesAnswer(Message):
    """Answers a ``FilesQuery``. The fields are those of :class:`.applied.TroubledFiles`."""

    nonce: int
    templates: int
    troubled: int
    files: tuple[TroubledFile, ...]


@message(24, PacketType.ALERT, alerts=many(ALERT.field, 64))
@dataclass(frozen=True)
class Alerts(Message):
    """Tells all members the states of the origin, an observer, that changed. It replaces its earlier states."""

    alerts: tuple[Alert, ...]


@message(25, PacketType.PROBE, incarnation=U32)
@dataclass(frozen=True)
class Removed(Message):
    """Tells a node that the sender removed it under ``incarnation``. A later incarnation makes it a member again."""

    incarnation: int


@message(26, PacketType.SWAP_REQUEST, buckets=many(U7, 128), known=many(U64))
@dataclass(frozen=True)
class NodeListRequest(Message):
    """Requests the nodes of some buckets, without present nodes whose state hash is in ``known``.

    The state hash of a node is its summand in the digest of the NodeList.
    """

    buckets: tuple[int, ...]
    known: tuple[int, ...]


#: The registrations of all messages: one mapping by tag, and one mapping by message class.
BY_TAG: Mapping[int, Registration] = MappingProxyType(registered)
BY_CLASS: Mapping[type[Message], Registration] = MappingProxyType({each.schema.cls: each for each in BY_TAG.values()})
#: Packet types without a message, whose packets consist of a header only.
BODILESS = frozenset(PacketType).difference(*(each.kinds for each in BY_TAG.values()))
