# SPDX-License-Identifier: MIT
"""Rows of the state file: their columns, their checksums, and what each stands for.

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
#: Columns after the row id, the checksum last.
COLUMNS = {
    "meta": ("layout", "changes", "total", "digest", "checksum"),
    "incarnation": ("value", "checksum"),
    "node": ("ip", "port", "incarnation", "sequence", "last_heard_ns", "name", "private_data", "checksum"),
    "document": (
        "key",
        "rank",
        "version",
        "value",
        "content_type",
        "author",
        "comment",
        "deleted",
        "base",
        "checksum",
    ),
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
    """Whether ``row`` is one of ``table``'s and its checksum fits."""
    if len(row) != len(COLUMNS[table]):
        return False
    try:
        return checksum(table, row[:-1]) == row[-1]
    except UnicodeEncodeError:
        return False


def sound(table: str, row: Row) -> bool:
    """Whether ``row`` is :func:`intact`, and what ``table`` is to hold."""
    if not intact(table, row):
        return False
    try:
        if table == "document":
            row_document(row)
        elif table == "node":
            row_known(row)
        elif table == "incarnation":
            _whole(row[0], 2**32)
        else:
            for value in row[:3]:
                _whole(value, 2**63)
            _typed(row[3], bytes)
    except ValueError:
        return False
    return True


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
            _base_column(document),
        ),
    )


def row_document(row: Row) -> Document:
    """Inverse of :func:`document_row`. Raises ``ValueError`` for a row that no document makes."""
    key, rank, version, value, content_type, author, comment, deleted, base = row[:9]
    _typed(rank, bytes)
    return Document(
        _typed(key, str),
        Version.parse(_typed(version, str)),
        _typed(value, bytes),
        _typed(content_type, str),
        _typed(author, str),
        _typed(comment, str),
        bool(_whole(deleted, 2)),
        *_read_base_column(_typed(base, str)),
    )


def _base_column(document: Document) -> str:
    """The base version, and behind a space as JSON what documents came to have after the first layout.

    There, so that the layout stays: an earlier agent, back after an upgrade that failed, reads all that use neither.
    """
    ancestors = [str(version) for version in document.ancestors]
    later = {"expires": document.expires, "batch": list(document.batch), "ancestors": ancestors}
    later = {name: value for name, value in later.items() if value}
    return str(document.base or "") + (f" {json.dumps(later)}" if later else "")


def _read_base_column(text: str) -> tuple[Version | None, int, tuple[str, ...], tuple[Version, ...]]:
    base, _, rest = text.partition(" ")
    later = json.loads(rest) if rest else {}
    if not isinstance(later, dict):
        raise ValueError(f"document row: expected an object behind the base version, got {type(later).__name__}")
    batch, ancestors = (_typed(later.get(name, []), list) for name in ("batch", "ancestors"))
    return (
        Version.parse(base) if base else None,
        _whole(later.get("expires", 0), 2**63),
        tuple(_typed(key, str) for key in batch),
        tuple(Version.parse(_typed(version, str)) for version in ancestors),
    )


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
