# SPDX-License-Identifier: MIT
"""The protocol's messages: values that know how they travel. ``docs/protocol.md`` describes what each is for.

To add a message, write a class here, in the next tag's place, and a handler (``dispatcher.py``). The wire format is
what the decorators say (docs/wire.md): add fields at the end, with a default, never renumber.
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
    HASH,
    KEY,
    STATE,
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
from .types import Address, Document, Record, State, Version


@dataclass(frozen=True)
class Sighting:
    """The newest sign of life that the sender has of a node."""

    address: Address
    incarnation: int
    sequence: int


SIGHTING = Struct(Sighting, address=ADDRESS, incarnation=U32, sequence=U64)


@dataclass(frozen=True)
class MemberInfo:
    """What the sender knows of a node. ``age_ms``: milliseconds since it was last heard."""

    address: Address
    incarnation: int
    sequence: int
    state: State
    age_ms: int
    record_digest: int
    state_digest: int


MEMBER = Struct(
    MemberInfo,
    address=ADDRESS,
    incarnation=U32,
    sequence=U64,
    state=STATE,
    age_ms=U64,
    record_digest=U64,
    state_digest=U64,
)


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


ENTRY = Struct(Entry, key=KEY, version=VERSION, deleted=BOOLEAN, content_hash=HASH, size=U64)


@message(1, PacketType.SWAP_REQUEST, nonce=U64, members_digest=U64, overdue=many(SIGHTING.field))
@dataclass(frozen=True)
class SyncRequest(Message):
    """Opens a sync. The header carries the documents digest, this message the other digests to compare."""

    nonce: int
    members_digest: int
    overdue: tuple[Sighting, ...] = ()


@message(
    2,
    PacketType.SWAP_RESPONSE,
    nonce=U64,
    members=many(MEMBER.field),
    want_members=BOOLEAN,
    entries=many(ENTRY.field),
    entries_complete=BOOLEAN,
    buckets=many(U32, 256),
)
@dataclass(frozen=True)
class SyncResponse(Message):
    """Answers a ``SyncRequest`` with what differs.

    ``members``: newer sightings of the overdue members. If the digests of the node lists differ, the whole list follows
    in ``MemberList`` messages, and ``want_members`` asks for the requester's list in return. If the documents digests
    differ, the answer carries either all ``entries`` (``entries_complete``) or the digests of the 256 ``buckets``.
    """

    nonce: int
    members: tuple[MemberInfo, ...] = ()
    want_members: bool = False
    entries: tuple[Entry, ...] = ()
    entries_complete: bool = False
    buckets: tuple[int, ...] = ()


@message(3, PacketType.SWAP_RESPONSE, members=many(MEMBER.field))
@dataclass(frozen=True)
class MemberList(Message):
    """Some or all of the nodes that the sender knows."""

    members: tuple[MemberInfo, ...]


@message(4, PacketType.SWAP_REQUEST, later=("known",), buckets=many(U8, 256), known=many(U64))
@dataclass(frozen=True)
class ListRequest(Message):
    """Asks for the entries of some buckets, except documents whose state hash is among ``known``."""

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
    """Answers a ``ListRequest`` with entries. ``finished`` names the buckets that are complete with this message.

    ``unknown``: hashes of the request that match no document of the sender; None: the sender did not check them.
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


WANT = Struct(Want, key=KEY, version=VERSION, offset=U64)


@message(6, PacketType.SWAP_REQUEST, wants=many(WANT.field))
@dataclass(frozen=True)
class FetchRequest(Message):
    """Asks for documents."""

    wants: tuple[Want, ...]


@message(7, PacketType.SWAP_RESPONSE, PacketType.METADATA, documents=many(DOCUMENT.field))
@dataclass(frozen=True)
class Documents(Message):
    """Whole documents: an answer to a fetch, a push of what the other lacks, or (type 4) a rumor."""

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
    """Tells that the sender does not hold these documents in a version as new as the wanted one."""

    keys: tuple[str, ...]


@message(10, PacketType.SWAP_RESPONSE, PacketType.METADATA, entries=many(ENTRY.field))
@dataclass(frozen=True)
class Announce(Message):
    """Announces documents that can be fetched (type 4 if they do not fit a datagram)."""

    entries: tuple[Entry, ...]


@message(11, PacketType.SWAP_REQUEST, addresses=many(ADDRESS))
@dataclass(frozen=True)
class RecordsRequest(Message):
    """Asks for node records."""

    addresses: tuple[Address, ...]


@message(12, PacketType.SWAP_RESPONSE, records=many(pair(ADDRESS, RECORD.field)))
@dataclass(frozen=True)
class Records(Message):
    """Node records, each with the node it describes."""

    records: tuple[tuple[Address, Record], ...]


@message(13, PacketType.RECORD, record=RECORD.field)
@dataclass(frozen=True)
class RecordRumor(Message):
    """The origin's own record (type 6)."""

    record: Record


@message(14, PacketType.PROBE, nonce=U64, target=ADDRESS, incarnation=U32, suspect=BOOLEAN, padding=raw_bytes(1232))
@dataclass(frozen=True)
class Ping(Message):
    """Asks ``target`` for a sign of life. Any other node that receives it received a recording.

    ``incarnation`` is the target's newest one that the sender knows. ``suspect`` tells the target that the sender no
    longer hears it. ``padding`` makes the ping longer, to find out what a path carries.
    """

    nonce: int
    target: Address
    incarnation: int
    suspect: bool
    padding: bytes = b""


@message(15, PacketType.PROBE, nonce=U64)
@dataclass(frozen=True)
class Ack(Message):
    """Answers a ping. The header is the sign of life."""

    nonce: int


@message(16, PacketType.PROBE, nonce=U64, target=ADDRESS, incarnation=U32)
@dataclass(frozen=True)
class PingRequest(Message):
    """Asks a third member to ping ``target`` (SWIM's indirect probe)."""

    nonce: int
    target: Address
    incarnation: int


@message(17, PacketType.PROBE, nonce=U64, sighting=SIGHTING.field)
@dataclass(frozen=True)
class IndirectAck(Message):
    """Tells the requester of an indirect probe that ``sighting.address`` answered the ping."""

    nonce: int
    sighting: Sighting


@message(18, PacketType.PROBE, nonce=U64, key=KEY)
@dataclass(frozen=True)
class Query(Message):
    """Asks which version of a document the target holds."""

    nonce: int
    key: str


@message(
    19, PacketType.PROBE, nonce=U64, key=KEY, version=optional(VERSION), content_hash=raw_bytes(32), stored=BOOLEAN
)
@dataclass(frozen=True)
class Answer(Message):
    """Answers a query. No ``version``: there is no such document. No ``content_hash``: the document was deleted.

    ``stored``: the version is on the disk, or there is nothing to store.
    """

    nonce: int
    key: str
    version: Version | None
    content_hash: bytes
    stored: bool = True


@message(20, PacketType.PROBE, nonce=U64, key=KEY)
@dataclass(frozen=True)
class AppliedQuery(Message):
    """Asks for the state of a document in the target's rendered files."""

    nonce: int
    key: str


@message(21, PacketType.PROBE, nonce=U64, key=KEY, state=text(16), version=optional(VERSION), error=text(512))
@dataclass(frozen=True)
class AppliedAnswer(Message):
    """Answers an ``AppliedQuery``.

    ``state``: none, pending, applied or failed, as of ``version`` (None: no document).
    """

    nonce: int
    key: str
    state: str
    version: Version | None
    error: str


@message(22, PacketType.PROBE, nonce=U64)
@dataclass(frozen=True)
class FilesQuery(Message):
    """Asks which of the target's rendered files are in trouble."""

    nonce: int


@message(23, PacketType.PROBE, nonce=U64, templates=U32, troubled=U32, files=many(FILE.field, 64))
@dataclass(frozen=True)
class FilesAnswer(Message):
    """Answers a ``FilesQuery``. The fields are those of :class:`.applied.TroubledFiles`."""

    nonce: int
    templates: int
    troubled: int
    files: tuple[TroubledFile, ...]


#: Every message, by the tag of its body and by its class.
BY_TAG: Mapping[int, Registration] = MappingProxyType(registered)
BY_CLASS: Mapping[type[Message], Registration] = MappingProxyType({each.schema.cls: each for each in BY_TAG.values()})
#: Packet types that carry no message, because the header says all.
BODILESS = frozenset(PacketType).difference(*(each.kinds for each in BY_TAG.values()))
