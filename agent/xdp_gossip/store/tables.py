# SPDX-License-Identifier: MIT
"""The tables of the state file in SQL: their definition, and the statements that read and write rows."""

from __future__ import annotations

from . import rows

#: Number of the file's layout. A file of another layout is rejected and stays in place, because the operator may return
#: to a release that can read it.
LAYOUT = 4

_UNIQUE = {"node": ", UNIQUE (ip, port)", "document": ", UNIQUE (key, rank)"}


def schema() -> list[str]:
    """The SQL statements that create the tables.

    If the table definitions in a state file differ from these statements, the file is damaged or another program wrote
    it.
    """
    statements = []
    for table, columns in rows.COLUMNS.items():
        typed = ", ".join(f"{name} {kind} NOT NULL" for name, kind in columns.items())
        statements.append(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {typed}{_UNIQUE.get(table, '')})")
    return statements


def standing(limit: str, among: str = "key = ?") -> str:
    """The clauses ``ORDER BY`` and ``LIMIT`` for versions of a key: first the current version, then all other versions
    by rank.

    ``among``: the SQL condition that selects the versions. ``limit``: the SQL expression for the maximum number of
    versions of a key.
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
    """Build the row of table ``meta``. ``total``: number of rows in the other tables.

    ``digest``: sum of the weights of these rows.
    """
    return rows.seal("meta", (LAYOUT, total, (digest % 2**64).to_bytes(8, "big")))
