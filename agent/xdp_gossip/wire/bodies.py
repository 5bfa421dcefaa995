# SPDX-License-Identifier: MIT
"""Bodies of native packets: ``[tag, fields...]`` in msgpack, fields in the order stated here.

Tags and field orders are part of the wire format (docs/wire.md): add at the end, with a default, never renumber.
"""

from __future__ import annotations

import functools
from typing import Any

import msgpack

from ..core import messages as m
from ..core.applied import TroubledFile
from ..core.messages import Message
from ..core.packets import PacketType, Rejected
from ..core.schema import (
    ADDRESS,
    BOOLEAN,
    HASH,
    KEY,
    STATE,
    VERSION,
    Field,
    Struct,
    many,
    optional,
    pair,
    raw_bytes,
    text,
    uint,
)
from ..core.types import (
    MAX_ANCESTORS,
    MAX_AUTHOR,
    MAX_BATCH,
    MAX_COMMENT,
    MAX_CONTENT_TYPE,
    MAX_NAME,
    MAX_PRIVATE_DATA,
    Document,
    Record,
)

U32, U64 = uint(32), uint(64)

_STAMP = pair(U32, U64)
_RECORD = Struct(
    Record,
    name=text(MAX_NAME),
    private_data=text(MAX_PRIVATE_DATA),
    agent_version=text(64),
    plane=text(32),
    stamp=_STAMP,
)
_SIGHTING = Struct(m.Sighting, address=ADDRESS, incarnation=U32, sequence=U64)
_MEMBER = Struct(
    m.MemberInfo,
    address=ADDRESS,
    incarnation=U32,
    sequence=U64,
    state=STATE,
    age_ms=U64,
    record_digest=U64,
    state_digest=U64,
)
_FILE = Struct(TroubledFile, template=text(64), path=text(255), state=text(16), since_ms=U64, error=text(256))
_ENTRY = Struct(m.Entry, key=KEY, version=VERSION, deleted=BOOLEAN, content_hash=HASH, size=U64)
_WANT = Struct(m.Want, key=KEY, version=VERSION, offset=U64)


@functools.lru_cache(maxsize=256)
def _batch(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of a batch, checked once for all of its documents, which share them in memory, too."""
    checked: tuple[str, ...] = many(KEY, MAX_BATCH).unpack(keys)
    return checked


def _unpack_batch(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise ValueError("expected a list of keys")
    return _batch(tuple(raw))


_BATCH = Field(list, _unpack_batch)
_DOCUMENT = Struct(
    Document,
    ("expires", "batch", "ancestors"),
    key=KEY,
    version=VERSION,
    value=raw_bytes(1 << 24),
    content_type=text(MAX_CONTENT_TYPE),
    author=text(MAX_AUTHOR),
    comment=text(MAX_COMMENT),
    deleted=BOOLEAN,
    base=optional(VERSION),
    expires=U64,
    batch=_BATCH,
    ancestors=many(VERSION, MAX_ANCESTORS),
)

_BY_TAG: dict[int, Struct[Any]] = {
    1: Struct(m.SyncRequest, nonce=U64, members_digest=U64, overdue=many(_SIGHTING.field)),
    2: Struct(
        m.SyncResponse,
        nonce=U64,
        members=many(_MEMBER.field),
        want_members=BOOLEAN,
        entries=many(_ENTRY.field),
        entries_complete=BOOLEAN,
        buckets=many(U32, 256),
    ),
    3: Struct(m.MemberList, members=many(_MEMBER.field)),
    4: Struct(m.ListRequest, ("known",), buckets=many(uint(8), 256), known=many(U64)),
    5: Struct(
        m.ListResponse,
        ("unknown",),
        entries=many(_ENTRY.field),
        finished=many(uint(8), 256),
        unknown=optional(many(U64)),
    ),
    6: Struct(m.FetchRequest, wants=many(_WANT.field)),
    7: Struct(m.Documents, documents=many(_DOCUMENT.field)),
    8: Struct(m.Chunk, head=_DOCUMENT.field, size=U64, content_hash=HASH, offset=U64, data=raw_bytes(1 << 24)),
    9: Struct(m.NotHere, keys=many(KEY)),
    10: Struct(m.Announce, entries=many(_ENTRY.field)),
    11: Struct(m.RecordsRequest, addresses=many(ADDRESS)),
    12: Struct(m.Records, records=many(pair(ADDRESS, _RECORD.field))),
    13: Struct(m.RecordRumor, record=_RECORD.field),
    14: Struct(m.Ping, nonce=U64, target=ADDRESS, incarnation=U32, suspect=BOOLEAN, padding=raw_bytes(1232)),
    15: Struct(m.Ack, nonce=U64),
    16: Struct(m.PingRequest, nonce=U64, target=ADDRESS, incarnation=U32),
    17: Struct(m.IndirectAck, nonce=U64, sighting=_SIGHTING.field),
    18: Struct(m.Query, nonce=U64, key=KEY),
    19: Struct(m.Answer, nonce=U64, key=KEY, version=optional(VERSION), content_hash=raw_bytes(32), stored=BOOLEAN),
    20: Struct(m.AppliedQuery, nonce=U64, key=KEY),
    21: Struct(m.AppliedAnswer, nonce=U64, key=KEY, state=text(16), version=optional(VERSION), error=text(512)),
    22: Struct(m.FilesQuery, nonce=U64),
    23: Struct(m.FilesAnswer, nonce=U64, templates=U32, troubled=U32, files=many(_FILE.field, 64)),
}
_TAG_OF = {struct.cls: tag for tag, struct in _BY_TAG.items()}

#: Which messages each packet type may carry.
_ALLOWED = {
    PacketType.SWAP_REQUEST: {1, 4, 6, 11},
    PacketType.SWAP_RESPONSE: {2, 3, 5, 7, 8, 9, 10, 12},
    PacketType.METADATA: {7, 10},
    PacketType.RECORD: {13},
    PacketType.PROBE: {14, 15, 16, 17, 18, 19, 20, 21, 22, 23},
}


def pack(message: Message) -> bytes:
    """A message as bytes."""
    tag = _TAG_OF[type(message)]
    return bytes(msgpack.packb([tag, *_BY_TAG[tag].pack(message)], use_bin_type=True))


def unpack(kind: PacketType, raw: bytes) -> Message:
    """Inverse of :func:`pack`, with every check. Raises ``Rejected("bad_body")``."""
    try:
        fields = msgpack.unpackb(raw, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
        if not isinstance(fields, list) or not fields or type(fields[0]) is not int or fields[0] not in _ALLOWED[kind]:
            raise ValueError("expected a message that this packet type may carry")
        message: Message = _BY_TAG[fields[0]].unpack(fields[1:])
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException):
        raise Rejected("bad_body") from None
    return message
