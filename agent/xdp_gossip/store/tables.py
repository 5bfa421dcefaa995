# SPDX-License-Identifier: MIT
"""The tables of the state file in SQL, and the changes that keep the sum over all their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from . import rows

#: Layout of the file. A newer one is refused, not set aside: its agent may come back.
#: Table ``meta`` keeps its columns in every layout, or the refusal could not be told from damage.
LAYOUT = 1

_COLUMN_TYPES = {
    "meta": ("INTEGER", "INTEGER", "INTEGER", "BLOB", "BLOB"),
    "incarnation": ("INTEGER", "BLOB"),
    "node": ("TEXT", "INTEGER", "INTEGER", "TEXT", "INTEGER", "TEXT", "TEXT", "BLOB"),
    "document": ("TEXT", "BLOB", "TEXT", "BLOB", "TEXT", "TEXT", "TEXT", "INTEGER", "TEXT", "BLOB"),
}
_UNIQUE = {"node": ", UNIQUE (ip, port)", "document": ", UNIQUE (key, rank)"}


def schema() -> list[str]:
    """The statements that make the tables; a file whose own differ is damaged or foreign."""
    statements = []
    for table, columns in rows.COLUMNS.items():
        typed = ", ".join(f"{name} {kind} NOT NULL" for name, kind in zip(columns, _COLUMN_TYPES[table]))
        statements.append(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {typed}{_UNIQUE.get(table, '')})")
    return statements


def standing(limit: str, among: str = "key = ?") -> str:
    """``ORDER BY`` and ``LIMIT`` over versions ``among`` those of a key: the one that holds, then by rank."""
    holds = f"(SELECT max(rank) FROM document WHERE {among} AND length(rank) = {rows.RANK_BYTES})"
    return f"ORDER BY rank = {holds} DESC, rank DESC LIMIT {limit}"


def select(table: str) -> str:
    """``SELECT`` of a table's columns in the order of ``rows.COLUMNS``."""
    return f"SELECT {', '.join(rows.COLUMNS[table])} FROM {table}"


def insert(table: str) -> str:
    """``INSERT`` of a sealed row; one that is there already stays as it is."""
    # Not OR IGNORE, which would also pass over a NULL without a word.
    marks = ", ".join("?" * len(rows.COLUMNS[table]))
    return f"INSERT INTO {table} ({', '.join(rows.COLUMNS[table])}) VALUES ({marks}) ON CONFLICT DO NOTHING"


def weight(checksum: object) -> int:
    """What a row adds to the sum over all rows (modulo 2**64)."""
    if not isinstance(checksum, bytes):
        raise ValueError(f"row checksum: expected bytes, got {type(checksum).__name__}")
    return int.from_bytes(checksum[:8], "big")


class Transaction:
    """Row changes that keep the sum over all rows."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        _layout, self._changes, self._total, digest, _checksum = database.execute(select("meta")).fetchone()
        self._digest = int.from_bytes(digest, "big")
        self.changed = False

    def finish(self) -> None:
        digest = (self._digest % 2**64).to_bytes(8, "big")
        row = rows.seal("meta", (LAYOUT, self._changes + 1, self._total, digest))
        self._database.execute("DELETE FROM meta")
        self._database.execute(insert("meta"), row)

    def incarnation(self) -> int:
        row = self._database.execute("SELECT value FROM incarnation").fetchone()
        return int(row[0]) if row else 0

    def set_incarnation(self, incarnation: int) -> None:
        self._delete("incarnation", "1")
        self._insert("incarnation", rows.seal("incarnation", (incarnation,)))

    def documents(self) -> list[tuple[str, bytes]]:
        """Key and rank of every version."""
        return self._database.execute("SELECT key, rank FROM document").fetchall()

    def add_document(self, row: rows.Row) -> None:
        self._insert("document", row)

    def remove_document(self, key: str, rank: bytes) -> int:
        return self._delete("document", "key = ? AND rank = ?", (key, rank))

    def remove_unread(self, key: str, rank: bytes) -> None:
        """A version that gave way and is taken up again is in the history once."""
        self._delete(
            "document",
            "key = ? AND length(rank) > ? AND substr(rank, ?) = ?",
            (key, rows.RANK_BYTES, rows.RANK_BYTES + 1, rank),
        )

    def remove_before(self, key: str, rank: bytes) -> None:
        self._delete("document", "key = ? AND rank < ?", (key, rank))

    def prune_history(self, key: str, kept_versions: int, undecided: bytes) -> None:
        """Keep that many versions of ``key``, and beside them the one of rank ``undecided`` (empty: none)."""
        among, whose = "key = ? AND rank != ?", (key, undecided)
        kept = f"SELECT rank FROM document WHERE {among} {standing('?', among)}"
        self._delete("document", f"{among} AND rank NOT IN ({kept})", (*whose, *whose, *whose, kept_versions))

    def replace_nodes(self, wanted: Iterable[rows.Row]) -> None:
        stored: set[rows.Row] = set(self._database.execute(select("node")))
        fresh = set(wanted)
        for row in stored - fresh:
            self._delete("node", "ip = ? AND port = ?", row[:2])
        for row in fresh - stored:
            self._insert("node", row)

    def _insert(self, table: str, row: rows.Row) -> None:
        if self._database.execute(insert(table), row).rowcount > 0:
            self.changed = True
            self._total += 1
            self._digest += weight(row[-1])

    def _delete(self, table: str, where: str, values: rows.Row = ()) -> int:
        """Returns how many rows there were."""
        gone = self._database.execute(f"SELECT id, checksum FROM {table} WHERE {where}", values).fetchall()
        for row_id, checksum in gone:
            self._database.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))
            self.changed = True
            self._total -= 1
            self._digest -= weight(checksum)
        return len(gone)
