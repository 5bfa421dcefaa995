# SPDX-License-Identifier: MIT
"""Rows of the state file: their columns, their checksums, and the values that they stand for.

Every row carries a checksum over its table's name and all its columns. SQLite notices damage to the structure of its
file, but not to the values in it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TypeVar, Union

from ..core.interface import Known
from ..core.types import Document, Node, Version

#: One column as SQLite keeps it.
Value = Union[None, int, float, str, bytes]
Row = tuple[Value, ...]
T = TypeVar("T")

PAGE = 4096
#: Columns after the row id and their types, the checksum last. In every layout ``meta`` has its number first.
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
        "checksum": "BLOB",
    },
}


def checksum(table: str, columns: Row) -> bytes:
    """16 bytes over the table's name and ``columns`` (without the checksum itself), types and lengths included."""
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
    """``columns`` with their checksum appended."""
    return (*columns, checksum(table, columns))


def intact(table: str, row: Row) -> bool:
    """Whether the checksum of ``row`` fits, whatever columns the layout of its file gives to ``table``."""
    try:
        return checksum(table, row[:-1]) == row[-1]
    except UnicodeEncodeError:
        return False


def sound(table: str, row: Row) -> bool:
    """Whether ``row`` is :func:`intact`, and what ``table`` is to hold."""
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
    """Incarnation, and the name of the cluster; empty for none. Raises ``ValueError`` for other values."""
    return _whole(row[0], 2**32), _typed(row[1], str)


def row_sum(row: Row) -> tuple[int, int]:
    """How many rows the other tables have, and the sum over their checksums (:func:`weight`), from table ``meta``.

    Raises ``ValueError`` for other values.
    """
    return _whole(row[1], 2**63), int.from_bytes(_typed(row[2], bytes), "big")


def weight(row: Row) -> int:
    """What a sealed row adds to the sum over all rows (modulo 2**64). Raises ``ValueError`` without a checksum."""
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
    """``Document.rank`` as bytes whose order is that of the ranks, so that SQLite can sort and index it."""
    version, deleted, content = document.rank
    origin = version.origin
    return struct.pack(">Q16sHB", version.hlc, origin.packed, origin.port, deleted) + content


#: Bytes of :func:`rank_key`. A longer key is an :func:`unread_key`: such a row is history, and never what holds.
RANK_BYTES = 8 + 16 + 2 + 1 + 32


def unread_key(document: Document, successor: Document) -> bytes:
    """The rank of a version that gave way to a lower one: right below its ``successor``, and of another length.

    Under its own rank it would hold again after the next start.
    """
    return struct.pack(">Q", successor.version.hlc).ljust(RANK_BYTES, b"\0") + rank_key(document)


def document_row(document: Document, successor: Document | None = None) -> Row:
    """A document as a sealed row; with ``successor`` one that gave way to this lower version."""
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
        ),
    )


def row_document(row: Row) -> Document:
    """Inverse of :func:`document_row`. Raises ``ValueError`` for a row that no document makes."""
    key, rank, version, value, content_type, author, comment, deleted, base, expires, batch, ancestors = row[:12]
    _typed(rank, bytes)
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
    )


def _texts(value: Value) -> tuple[str, ...]:
    """The strings of a JSON array."""
    return tuple(_typed(text, str) for text in _typed(json.loads(_typed(value, str)), list))


def known_row(known: Known) -> Row:
    """A known node as a sealed row. The sequence is text: it is a peer's unsigned 64 bits, SQLite's are signed."""
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
        ),
    )


def row_known(row: Row) -> Known:
    """Inverse of :func:`known_row`. Raises ``ValueError`` for a row that no known node makes."""
    ip, port, incarnation, sequence, heard, name, private_data = row[:7]
    node = Node(_typed(ip, str), _typed(port, int), _typed(name, str), _typed(private_data, str))
    numbers = _whole(incarnation, 2**32), _whole(int(_typed(sequence, str)), 2**64), _typed(heard, int)
    return Known(node.address, *numbers, node.name, node.private_data)
