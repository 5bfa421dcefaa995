# SPDX-License-Identifier: MIT
"""Rows of the state file: their columns, their checksums, and conversions between rows and objects.

Every row has a checksum over the name of its table and all its columns, because SQLite detects damage to the structure
of its file, but not damage to the values in the file.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TypeVar, Union

import msgpack

from ..core.interface import Known
from ..core.signatures import Signature
from ..core.structures import SIGNATURE
from ..core.types import MAX_ZONE, Document, Node, Version, check_text

#: Type of a column's value in SQLite.
Value = Union[None, int, float, str, bytes]
Row = tuple[Value, ...]
T = TypeVar("T")

PAGE = 4096
#: Columns of each table after the row id, with their types; the last column is the checksum. In every layout, the first
#: column of ``meta`` is the layout's number.
COLUMNS = {
    "meta": {"layout": "INTEGER", "total": "INTEGER", "digest": "BLOB", "checksum": "BLOB"},
    "identity": {"incarnation": "INTEGER", "cluster": "TEXT", "checksum": "BLOB"},
    "node": {
        "ip": "TEXT",
        "port": "INTEGER",
        "incarnation": "INTEGER",
        "sequence": "TEXT",
        "last_heard_ns": "INTEGER",
        "name": "TEXT",
        "private_data": "TEXT",
        "zone": "TEXT",
        "checksum": "BLOB",
    },
    "document": {
        "key": "TEXT",
        "rank": "BLOB",
        "version": "TEXT",
        "value": "BLOB",
        "content_type": "TEXT",
        "author": "TEXT",
        "comment": "TEXT",
        "deleted": "INTEGER",
        "base": "TEXT",
        "expires": "INTEGER",
        "batch": "TEXT",
        "ancestors": "TEXT",
        "signature": "BLOB",
        "checksum": "BLOB",
    },
}


def checksum(table: str, columns: Row) -> bytes:
    """Return a checksum (16 bytes) over the table's name and the type, length and value of each of ``columns``."""
    digest = hashlib.blake2b(digest_size=16, person=b"xg-row")
    for value in (table, *columns):
        if isinstance(value, bytes):
            kind, raw = b"b", value
        elif isinstance(value, str):
            kind, raw = b"t", value.encode()
        else:
            kind, raw = b"o", repr(value).encode()
        digest.update(kind + len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()


def seal(table: str, columns: Row) -> Row:
    """A sealed row: Return ``columns`` with their checksum appended."""
    return (*columns, checksum(table, columns))


def intact(table: str, row: Row) -> bool:
    """Whether the checksum of ``row`` is correct. Works for rows of other layouts, too."""
    try:
        return checksum(table, row[:-1]) == row[-1]
    except UnicodeEncodeError:
        return False


def sound(table: str, row: Row) -> bool:
    """Whether ``row`` is :func:`intact`, and its columns have valid values for ``table``."""
    if len(row) != len(COLUMNS[table]) or not intact(table, row):
        return False
    try:
        if table == "document":
            row_document(row)
        elif table == "node":
            row_known(row)
        elif table == "identity":
            row_identity(row)
        else:
            row_sum(row)
    except ValueError:
        return False
    return True


def row_identity(row: Row) -> tuple[int, str]:
    """Read incarnation and cluster name (empty for none) from a row of ``identity``. Raises ``ValueError``."""
    return _whole(row[0], 2**32), _typed(row[1], str)


def row_sum(row: Row) -> tuple[int, int]:
    """Read a row of ``meta``: the number of rows in the other tables, and the sum of their weights (:func:`weight`).

    Raises ``ValueError`` for wrong values.
    """
    return _whole(row[1], 2**63), int.from_bytes(_typed(row[2], bytes), "big")


def weight(row: Row) -> int:
    """The number that a sealed row contributes to the sum over all rows (modulo 2**64).

    Raises ``ValueError`` if ``row`` has no checksum.
    """
    return int.from_bytes(_typed(row[-1], bytes)[:8], "big")


def _typed(value: Value, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"row: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _whole(value: Value, beyond: int) -> int:
    number = _typed(value, int)
    if not 0 <= number < beyond:
        raise ValueError(f"row: expected 0 to {beyond - 1}, got {number}")
    return number


def rank_key(document: Document) -> bytes:
    """``Document.rank`` as bytes with the same order, so that SQLite can sort and index ranks."""
    version, deleted, content = document.rank
    origin = version.origin
    return struct.pack(">Q16sHB", version.hlc, origin.packed, origin.port, deleted) + content


#: Length in bytes of a :func:`rank_key`. A longer key is an :func:`unread_key`. The row of such a key is part of the
#: history, but never the current version.
RANK_BYTES = 8 + 16 + 2 + 1 + 32


def unread_key(document: Document, successor: Document) -> bytes:
    """Return the key under which the history stores ``document`` if ``successor``, of lower rank, has replaced it.

    The key sorts directly below the key of ``successor``.

    If the replaced version had its own rank as key, it would be the current version again after the next start. The
    length of the key differs from that of a :func:`rank_key`.
    """
    return struct.pack(">Q", successor.version.hlc).ljust(RANK_BYTES, b"\0") + rank_key(document)


def document_row(document: Document, successor: Document | None = None) -> Row:
    """Convert a document to a sealed row.

    ``successor``: the version of lower rank that replaced ``document``; None if there is none.
    """
    return seal(
        "document",
        (
            document.key,
            rank_key(document) if successor is None else unread_key(document, successor),
            str(document.version),
            document.value,
            document.content_type,
            document.author,
            document.comment,
            int(document.deleted),
            str(document.base or ""),
            document.expires,
            json.dumps(document.batch, ensure_ascii=False),
            json.dumps([str(version) for version in document.ancestors]),
            b"" if document.signature is None else msgpack.packb(SIGNATURE.pack(document.signature)),
        ),
    )


def row_document(row: Row) -> Document:
    """Convert a row to a document: the inverse of :func:`document_row`. Raises ``ValueError`` for wrong values."""
    key, rank, version, value, content_type, author, comment, deleted, base, expires, batch, ancestors = row[:12]
    _typed(rank, bytes)
    signature = _typed(row[12], bytes)
    return Document(
        _typed(key, str),
        Version.parse(_typed(version, str)),
        _typed(value, bytes),
        _typed(content_type, str),
        _typed(author, str),
        _typed(comment, str),
        bool(_whole(deleted, 2)),
        Version.parse(_typed(base, str)) if base else None,
        _whole(expires, 2**63),
        _texts(batch),
        tuple(Version.parse(version) for version in _texts(ancestors)),
        _signature(signature) if signature else None,
    )


def _signature(packed: bytes) -> Signature:
    try:
        plain = msgpack.unpackb(packed, raw=False)
    except msgpack.exceptions.UnpackException as error:
        raise ValueError(f"row: signature: {error}") from None
    return SIGNATURE.unpack(plain)


def _texts(value: Value) -> tuple[str, ...]:
    """Parse a JSON array of strings. Raises ``ValueError``."""
    return tuple(_typed(text, str) for text in _typed(json.loads(_typed(value, str)), list))


def known_row(known: Known) -> Row:
    """Convert a known node to a sealed row. The row stores the sequence number as text, because SQLite has no unsigned
    integers.
    """
    return seal(
        "node",
        (
            known.address.ip,
            known.address.port,
            known.incarnation,
            str(known.sequence),
            known.last_heard_ns,
            known.name,
            known.private_data,
            known.zone,
        ),
    )


def row_known(row: Row) -> Known:
    """Convert a row to a known node: the inverse of :func:`known_row`. Raises ``ValueError`` for wrong values."""
    ip, port, incarnation, sequence, heard, name, private_data, zone = row[:8]
    node = Node(_typed(ip, str), _typed(port, int), _typed(name, str), _typed(private_data, str))
    numbers = _whole(incarnation, 2**32), _whole(int(_typed(sequence, str)), 2**64), _typed(heard, int)
    return Known(node.address, *numbers, node.name, node.private_data, check_text("zone", _typed(zone, str), MAX_ZONE))
