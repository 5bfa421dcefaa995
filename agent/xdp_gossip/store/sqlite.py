# SPDX-License-Identifier: MIT
"""The durable state of an agent in one SQLite file: incarnation, known nodes, documents and their history.

When a method returns, its changes are on the disk. A damaged file is renamed, never deleted, and does not keep the
agent from starting: the sound rows that SQLite can still read are copied to a new file. Other members supply the
documents that could not be read; without other members these documents are lost. :attr:`Store.problems` reports the
damage. Two checks find damage. SQLite checks the structure of the file. A checksum in every row and a sum over all rows
reveal changed and missing rows.

The file uses SQLite's rollback journal, not its write-ahead log. SQLite reads a damaged write-ahead log up to the
damage and reports no error, so acknowledged writes behind the damage would be lost unnoticed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..core.interface import Known
from ..core.runs import MAX_INCARNATION, first_after, later
from ..core.types import Document
from . import rows
from .base import Snapshot, StateStore, Unread, persist, without
from .memory import MemoryStore
from .slips import Slips
from .statefile import HISTORY, NotedError, StoreError, open_or_repair, take_lock, translated
from .tables import insert, select, standing, sum_row

__all__ = [
    "MemoryStore",
    "NotedError",
    "Snapshot",
    "StateStore",
    "Store",
    "StoreError",
    "Unread",
    "persist",
]


class Store:
    """An agent's state in one file, which only one thread of one process uses. Create it with :meth:`open`."""

    def __init__(
        self, path: Path, database: sqlite3.Connection, lock: int, problems: list[str], history: int = HISTORY
    ) -> None:
        self.path = path
        self._history = history
        #: Reports of damage that was found when the file was opened, and of data that was lost, for the log and the
        #: status.
        self.problems = problems
        self._database: sqlite3.Connection | None = database
        self._lock = lock
        self._slips = Slips(lock)
        #: Key -> rank of the staged version.
        self._undecided: dict[str, bytes] = {}

    @classmethod
    def open(cls, path: Path, history: int = HISTORY, cluster: str = "") -> Store:
        """Open or create the file (mode 0600) and its directory (0700).

        If the file is damaged, it is renamed and replaced by a repaired file.

        ``history``: maximum number of stored versions of each document, including the current version. ``cluster``:
        name of the agent's cluster; a file without a cluster name gets this name.

        Raises ``StoreError`` if the file belongs to another cluster, if another process uses the file, if the file has
        another layout than this program writes, or if the file system reports an error.
        """
        path = Path(path)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = take_lock(path)
        except OSError as error:
            raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error
        try:
            problems: list[str] = []
            database = open_or_repair(path, problems)
            store = cls(path, database, lock, problems, history)
            try:
                store._forget_noted()
                store._belong(cluster)
            except BaseException:
                database.close()
                raise
            return store
        except OSError as error:
            os.close(lock)
            raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error
        except BaseException:
            os.close(lock)
            raise

    def next_incarnation(self, now_s: int) -> int:
        """See :meth:`StateStore.next_incarnation`. Raises ``StoreError``."""
        with self._transaction() as tx:
            last, cluster = tx.identity()
            incarnation = first_after(last, now_s)
            tx.set_identity(incarnation, cluster)
        return incarnation

    def _forget_noted(self) -> None:
        """Delete the versions that the slips name, because an earlier run could not delete these versions from the
        file. Raises ``StoreError``, ``OSError``.
        """
        if not self._slips:
            return
        with self._transaction() as tx:
            for name in tx.documents():
                if self._slips.names(name):
                    tx.remove_document(*name)
        self._slips.clear()

    def _belong(self, cluster: str) -> None:
        """Store ``cluster``, the name of the cluster, if the file has no name yet; otherwise compare ``cluster`` with
        the stored name.

        Raises ``StoreError`` if the two names differ.
        """
        if not cluster:
            return
        with self._transaction(if_changed=True) as tx:
            incarnation, found = tx.identity()
            if not found:
                tx.set_identity(incarnation, cluster)
            elif found != cluster:
                raise StoreError(
                    f"{self.path}: expected the state of cluster {cluster!r}, which is configured, got that of cluster "
                    f"{found!r}; name another state_dir, or move this one away to join {cluster!r} with an empty one"
                )

    def save_incarnation(self, incarnation: int) -> None:
        """See :meth:`StateStore.save_incarnation`. Raises ``StoreError``."""
        if not 0 <= incarnation <= MAX_INCARNATION:
            raise StoreError(f"{self.path}: incarnation: expected 0 to {MAX_INCARNATION}, got {incarnation}")
        with self._transaction() as tx:
            last, cluster = tx.identity()
            if later(incarnation, last):
                tx.set_identity(incarnation, cluster)

    def load(self) -> Snapshot:
        """See :meth:`StateStore.load`. Raises ``StoreError``."""
        with self._reading() as database:
            known = [rows.row_known(row) for row in database.execute(select("node"))]
            best = f"SELECT max(other.rank) FROM document AS other WHERE length(other.rank) = {rows.RANK_BYTES}"
            newest = f"document.rank = ({best} AND other.key = document.key)"
            documents = [
                rows.row_document(row)
                for row in database.execute(f"{select('document')} WHERE {newest} ORDER BY document.key")
            ]
        return Snapshot(known, documents)

    def collect(self, tombstones: Sequence[Document], dropped: Sequence[Document] = ()) -> None:
        """See :meth:`StateStore.collect`. Raises ``StoreError``."""
        with self._transaction() as tx:
            for tombstone in tombstones:
                tx.remove_before(tombstone.key, rows.rank_key(tombstone))
            for tombstone in dropped:
                tx.remove_before(tombstone.key, rows.rank_key(tombstone))
                tx.remove_document(tombstone.key, rows.rank_key(tombstone))

    def save_documents(
        self, documents: Sequence[Document], withdrawn: Sequence[Document] = (), unread: Sequence[Unread] = ()
    ) -> None:
        """See :meth:`StateStore.save_documents`. When the method returns, the rows are on the disk.

        Raises ``StoreError``.
        """
        if not documents and not withdrawn and not unread:
            return
        with self._transaction() as tx:
            for document in documents:
                tx.remove_unread(document.key, rows.rank_key(document))
                tx.insert("document", rows.document_row(document))
            for document in withdrawn:
                tx.remove_document(document.key, rows.rank_key(document))
            for document, successor in unread:
                tx.remove_document(document.key, rows.rank_key(document))
                tx.insert("document", rows.document_row(document, successor))
            self._prune(tx, [*documents, *(lost.document for lost in unread)], self._undecided)

    def stage(self, documents: Sequence[Document], kept: Sequence[Document] = ()) -> None:
        """See :meth:`StateStore.stage`. Raises ``StoreError``, after which the rows may nevertheless be on the disk."""
        # Record the staged versions before the transaction, because even a transaction that reports an error may be on
        # the disk.
        self._undecided.update((document.key, rows.rank_key(document)) for document in documents)
        undecided = without(self._undecided, kept)
        with self._transaction() as tx:
            for document in documents:
                tx.insert("document", rows.document_row(document))
            self._prune(tx, kept, undecided)
        self._undecided = undecided

    def settle(self, kept: Sequence[Document], withdrawn: Sequence[Document]) -> int:
        """See :meth:`StateStore.settle`. Raises ``StoreError``, ``NotedError``."""
        undecided = without(self._undecided, [*kept, *withdrawn])
        names = [(document.key, rows.rank_key(document)) for document in withdrawn]
        try:
            with self._transaction(if_changed=True) as tx:
                found = sum(tx.remove_document(*name) for name in names)
                self._prune(tx, [*kept, *withdrawn], undecided)
        except StoreError as error:
            if names:
                self._note(names, error)
            raise
        self._undecided = undecided
        try:
            self._slips.discard(names)
        except OSError as error:
            raise StoreError(f"{self.path}.lock: {error.strerror or error}") from error
        return found

    def _note(self, names: Sequence[tuple[str, bytes]], reason: StoreError) -> None:
        """Write slips for rows that a transaction could not remove, so that the next start removes these rows.

        Always raises an error: if the slips were written, the error is ``NotedError``, otherwise ``StoreError``.
        """
        try:
            self._slips.add(names)
        except OSError as error:
            raise StoreError(f"{reason}; {self.path}.lock: {error.strerror or error}") from reason
        raise NotedError(str(reason)) from reason

    def _prune(self, tx: _Transaction, documents: Sequence[Document], undecided: dict[str, bytes]) -> None:
        for key in sorted({document.key for document in documents}):
            tx.prune_history(key, self._history, undecided.get(key, b""))

    def history(self, key: str) -> list[Document]:
        """See :meth:`StateStore.history`. Raises ``StoreError``."""
        with self._reading() as database:
            found = database.execute(f"{select('document')} WHERE key = ? {standing('-1')}", (key, key))
            return [rows.row_document(row) for row in found]

    def save_nodes(self, known: Sequence[Known]) -> None:
        """See :meth:`StateStore.save_nodes`. Raises ``StoreError``."""
        wanted = {entry.address: rows.known_row(entry) for entry in known}
        with self._transaction() as tx:
            tx.replace_nodes(wanted.values())

    def close(self) -> None:
        """Release the file. Idempotent."""
        if self._database is not None:
            self._database.close()
            self._database = None
            os.close(self._lock)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._database is None:
            raise StoreError(f"{self.path}: closed")
        with translated(self.path):
            yield self._database

    @contextlib.contextmanager
    def _transaction(self, if_changed: bool = False) -> Iterator[_Transaction]:
        """Context manager: a transaction, which is rolled back if the block raises. Raises ``StoreError``.

        The transaction writes to the disk even if no row has changed, which shows that the disk works. If
        ``if_changed`` is true, the transaction writes only if a row has changed.
        """
        with self._reading() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                tx = _Transaction(database)
                yield tx
                if tx.changed or not if_changed:
                    tx.finish()
                database.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself when COMMIT failed.
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise


class _Transaction:
    """Changes rows, and keeps the number of rows and the sum over all rows up to date."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._total, self._digest = rows.row_sum(database.execute(select("meta")).fetchone())
        self.changed = False

    def finish(self) -> None:
        """Write the number of rows and the sum over all rows to the table ``meta``."""
        self._database.execute("DELETE FROM meta")
        self._database.execute(insert("meta"), sum_row(self._total, self._digest))

    def identity(self) -> tuple[int, str]:
        """Return the incarnation (0: none yet) and the name of the cluster ("": none yet)."""
        row = self._database.execute(select("identity")).fetchone()
        return rows.row_identity(row) if row else (0, "")

    def set_identity(self, incarnation: int, cluster: str) -> None:
        self._delete("identity", "1")
        self.insert("identity", rows.seal("identity", (incarnation, cluster)))

    def documents(self) -> list[tuple[str, bytes]]:
        """Return key and rank of every version."""
        return self._database.execute("SELECT key, rank FROM document").fetchall()

    def remove_document(self, key: str, rank: bytes) -> int:
        return self._delete("document", "key = ? AND rank = ?", (key, rank))

    def remove_unread(self, key: str, rank: bytes) -> None:
        """Remove the row of the unread version ``rank`` from the history (:func:`rows.unread_key`).

        The caller then inserts the version as an ordinary row.
        """
        self._delete(
            "document",
            "key = ? AND length(rank) > ? AND substr(rank, ?) = ?",
            (key, rows.RANK_BYTES, rows.RANK_BYTES + 1, rank),
        )

    def remove_before(self, key: str, rank: bytes) -> None:
        self._delete("document", "key = ? AND rank < ?", (key, rank))

    def prune_history(self, key: str, kept_versions: int, undecided: bytes) -> None:
        """Remove all versions of ``key`` except the newest ``kept_versions`` and the staged version.

        ``undecided``: rank of the staged version; empty if there is none.
        """
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
        """Add a sealed row, unless there is a row with the same unique columns."""
        if self._database.execute(insert(table), row).rowcount > 0:
            self.changed = True
            self._total += 1
            self._digest += rows.weight(row)

    def _delete(self, table: str, where: str, values: rows.Row = ()) -> int:
        """Delete rows of ``table``. Returns their number."""
        gone = self._database.execute(f"SELECT id, checksum FROM {table} WHERE {where}", values).fetchall()
        for row in gone:
            self._database.execute(f"DELETE FROM {table} WHERE id = ?", row[:1])
            self.changed = True
            self._total -= 1
            self._digest -= rows.weight(row)
        return len(gone)
