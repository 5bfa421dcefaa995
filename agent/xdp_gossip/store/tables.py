# SPDX-License-Identifier: MIT
"""The SQL tables of the state file, and transactions that update the sum over all rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from . import rows

#: Number of the file's layout. A file of another layout is rejected and stays in place, because the operator may return
#: to a release that can read it.
LAYOUT = 2

_UNIQUE = {"node": ", UNIQUE (ip, port)", "document": ", UNIQUE (key, rank)"}


def schema() -> list[str]:
    """The SQL statements that create the tables. A file with other statements is damaged or from another program."""
    statements = []
    for table, columns in rows.COLUMNS.items():
        typed = ", ".join(f"{name} {kind} NOT NULL" for name, kind in columns.items())
        statements.append(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {typed}{_UNIQUE.get(table, '')})")
    return statements


def standing(limit: str, among: str = "key = ?") -> str:
    """The clauses ``ORDER BY`` and ``LIMIT`` for versions of a key: the current version first, the others by rank.

    ``among``: the SQL condition that selects the versions. ``limit``: the maximum number of versions.
    """
    holds = f"(SELECT max(rank) FROM document WHERE {among} AND length(rank) = {rows.RANK_BYTES})"
    return f"ORDER BY rank = {holds} DESC, rank DESC LIMIT {limit}"


def select(table: str) -> str:
    """The SQL statement ``SELECT`` for all columns of a table, in the order of ``rows.COLUMNS``."""
    return f"SELECT {', '.join(rows.COLUMNS[table])} FROM {table}"


def insert(table: str) -> str:
    """The SQL statement ``INSERT`` for a sealed row. The statement does not change an existing row."""
    # OR IGNORE is not used, because it would also ignore a NULL without an error.
    marks = ", ".join("?" * len(rows.COLUMNS[table]))
    return f"INSERT INTO {table} ({', '.join(rows.COLUMNS[table])}) VALUES ({marks}) ON CONFLICT DO NOTHING"


def sum_row(total: int, digest: int) -> rows.Row:
    """The row of table ``meta``. ``total``: number of rows in the other tables. ``digest``: sum of their weights."""
    return rows.seal("meta", (LAYOUT, total, (digest % 2**64).to_bytes(8, "big")))


class Transaction:
    """A transaction that changes rows and updates the sum over all rows."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._total, self._digest = rows.row_sum(database.execute(select("meta")).fetchone())
        self.changed = False

    def finish(self) -> None:
        """Write the updated sum over all rows to the table ``meta``."""
        self._database.execute("DELETE FROM meta")
        self._database.execute(insert("meta"), sum_row(self._total, self._digest))

    def identity(self) -> tuple[int, str]:
        """The stored incarnation (0 for none), and the name of the cluster (empty for none)."""
        row = self._database.execute(select("identity")).fetchone()
        return rows.row_identity(row) if row else (0, "")

    def set_identity(self, incarnation: int, cluster: str) -> None:
        self._delete("identity", "1")
        self.insert("identity", rows.seal("identity", (incarnation, cluster)))

    def documents(self) -> list[tuple[str, bytes]]:
        """Key and rank of every stored version."""
        return self._database.execute("SELECT key, rank FROM document").fetchall()

    def remove_document(self, key: str, rank: bytes) -> int:
        return self._delete("document", "key = ? AND rank = ?", (key, rank))

    def remove_unread(self, key: str, rank: bytes) -> None:
        """Delete the row of an unread version, because the version is now stored under its own ``rank``."""
        self._delete(
            "document",
            "key = ? AND length(rank) > ? AND substr(rank, ?) = ?",
            (key, rows.RANK_BYTES, rows.RANK_BYTES + 1, rank),
        )

    def remove_before(self, key: str, rank: bytes) -> None:
        self._delete("document", "key = ? AND rank < ?", (key, rank))

    def prune_history(self, key: str, kept_versions: int, undecided: bytes) -> None:
        """Delete all but ``kept_versions`` versions of ``key``. The staged version of rank ``undecided`` also stays."""
        among, whose = "key = ? AND rank != ?", (key, undecided)
        kept = f"SELECT rank FROM document WHERE {among} {standing('?', among)}"
        self._delete("document", f"{among} AND rank NOT IN ({kept})", (*whose, *whose, *whose, kept_versions))

    def replace_nodes(self, wanted: Iterable[rows.Row]) -> None:
        stored: set[rows.Row] = set(self._database.execute(select("node")))
        fresh = set(wanted)
        for row in stored - fresh:
            self._delete("node", "ip = ? AND port = ?", row[:2])
        for row in fresh - stored:
            self.insert("node", row)

    def insert(self, table: str, row: rows.Row) -> None:
        """Add a sealed row, unless the table has a row with the same unique columns."""
        if self._database.execute(insert(table), row).rowcount > 0:
            self.changed = True
            self._total += 1
            self._digest += rows.weight(row)

    def _delete(self, table: str, where: str, values: rows.Row = ()) -> int:
        """Delete the rows that match ``where``. Returns the number of deleted rows."""
        gone = self._database.execute(f"SELECT id, checksum FROM {table} WHERE {where}", values).fetchall()
        for row in gone:
            self._database.execute(f"DELETE FROM {table} WHERE id = ?", row[:1])
            self.changed = True
            self._total -= 1
            self._digest -= rows.weight(row)
        return len(gone)
