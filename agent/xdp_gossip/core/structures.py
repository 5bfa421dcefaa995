# SPDX-License-Identifier: MIT
"""Wire formats of the documents, node records and file states within messages (docs/wire.md, "Bodies").

The order of fields is part of the wire format. Add a new field at the end, with a default, and add its name to the
``later`` fields of its ``Struct``.
"""

from __future__ import annotations

import functools
from typing import Any

from .applied import TroubledFile
from .schema import (
    BOOLEAN,
    HASH,
    KEY,
    KEY_STATE,
    U32,
    U64,
    VERSION,
    Field,
    Struct,
    many,
    optional,
    pair,
    raw_bytes,
    text,
)
from .sealed import FINGERPRINT
from .signatures import MAX_SIGNATURE, Part, Signature
from .types import (
    MAX_ANCESTORS,
    MAX_AUTHOR,
    MAX_BATCH,
    MAX_COMMENT,
    MAX_CONTENT_TYPE,
    MAX_KEYS,
    MAX_NAME,
    MAX_PRIVATE_DATA,
    MAX_ZONE,
    Document,
    Record,
)

RECORD = Struct(
    Record,
    ("zone", "signers", "keys", "sealing"),
    name=text(MAX_NAME),
    private_data=text(MAX_PRIVATE_DATA),
    agent_version=text(64),
    plane=text(32),
    stamp=pair(U32, U64),
    zone=text(MAX_ZONE),
    signers=U64,
    keys=many(pair(U64, KEY_STATE), MAX_KEYS),
    sealing=raw_bytes(FINGERPRINT),
)
FILE = Struct(TroubledFile, template=text(64), path=text(255), state=text(16), since_ms=U64, error=text(256))


@functools.lru_cache(maxsize=256)
def _batch(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Check the keys of a batch.

    The function is cached, so the keys of a batch are checked only once and all documents of the batch share one tuple.
    """
    checked: tuple[str, ...] = many(KEY, MAX_BATCH).unpack(keys)
    return checked


def _unpack_batch(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise ValueError("expected a list of keys")
    return _batch(tuple(raw))


PART = Struct(
    Part,
    key=KEY,
    deleted=BOOLEAN,
    content_type=text(MAX_CONTENT_TYPE),
    size=U64,
    content_hash=raw_bytes(32),
    expires=U64,
    read=many(VERSION, MAX_ANCESTORS + 1),
)
SIGNATURE = Struct(
    Signature, blob=raw_bytes(MAX_SIGNATURE), batch=many(pair(KEY, HASH), MAX_BATCH), part=optional(PART.field)
)

DOCUMENT = Struct(
    Document,
    ("expires", "batch", "ancestors", "signature"),
    key=KEY,
    version=VERSION,
    value=raw_bytes(1 << 24),
    content_type=text(MAX_CONTENT_TYPE),
    author=text(MAX_AUTHOR),
    comment=text(MAX_COMMENT),
    deleted=BOOLEAN,
    base=optional(VERSION),
    expires=U64,
    batch=Field(list, _unpack_batch),
    ancestors=many(VERSION, MAX_ANCESTORS),
    signature=optional(SIGNATURE.field),
)
