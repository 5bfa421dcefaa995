# SPDX-License-Identifier: MIT
"""Creates, opens, inspects and repairs the state file of :class:`xdp_gossip.store.sqlite.Store`.

A new file is built under another name and then renamed to ``state.db``, so an empty or incomplete ``state.db`` is
always a damaged file and never a new one. A damaged file is hard-linked as ``state.db.corrupt-<UTC time>`` before the
repaired file replaces it, so after a crash at any point ``state.db`` is either the damaged or the repaired file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ..core.runs import latest
from . import rows
from .tables import LAYOUT, insert, schema, select, sum_row

APPLICATION_ID = 0x58474F53
#: Default number of versions stored for each key, including the current version.
HISTORY = 10

_SIDECARS = ("-journal", "-wal", "-shm")
_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


class StoreError(Exception):
    """Raised if the state could not be opened, read or written. The message names the file. Nothing was stored."""


class NotedError(StoreError):
    """Raised if the state could not be written, but the next start will delete the versions that slips name."""


def take_lock(path: Path) -> int:
    """Lock the state for this process, until the returned descriptor is closed. Raises ``StoreError``, ``OSError``.

    The lock is a separate file, because SQLite's locks are lost when a repair renames the state file.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        check_file(Path(f"{path}.lock"), os.fstat(lock).st_mode)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreError(f"{path}: in use by another process") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def open_or_repair(path: Path, problems: list[str]) -> sqlite3.Connection:
    """Open the state file, and create or repair it if necessary. Each repair adds a line to ``problems``.

    Raises ``StoreError`` or ``OSError``.
    """
    _check_kinds(path)
    _new_name(path).unlink(missing_ok=True)
    if not path.exists():
        # The directory may be new, so sync its parent directory, which contains the new directory's entry.
        _sync(path.parent.parent)
        strays = _set_sidecars_aside(path, _aside_name(path))
        if strays:
            problems.append(f"{path}: missing, but {strays} was there: set aside; starting with no state")
        _build(_new_name(path), (), _Salvaged())
        _put_in_place(path)
    else:
        fault = _inspect(path)
        if fault:
            problems.append(_repair(path, fault))
    with translated(path):
        return _connect(path)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Convert SQLite's errors, and errors for values that SQLite cannot store, to ``StoreError``."""
    try:
        yield
    except (sqlite3.Error, ValueError, OverflowError) as error:
        raise StoreError(f"{path}: {error}") from error


def _check_kinds(path: Path) -> None:
    """Raise ``StoreError`` if one of the state's paths is not a regular file, because SQLite could hang on such a path.

    A dangling symbolic link is an error, too: the state may be on a disk that is not mounted now.
    """
    for each in (path, _new_name(path), *(Path(f"{path}{suffix}") for suffix in _SIDECARS)):
        try:
            mode = each.stat().st_mode
        except OSError as error:
            if each.is_symlink():
                raise StoreError(f"{each}: expected a file, got a symbolic link that leads nowhere") from error
            if isinstance(error, FileNotFoundError):
                continue
            raise
        check_file(each, mode)


def check_file(path: Path, mode: int) -> None:
    """Raise ``StoreError`` unless ``mode`` is the mode of a regular file."""
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path}: expected a file, got {_KINDS.get(stat.S_IFMT(mode), 'a device')}; move it away")


def _connect(path: Path) -> sqlite3.Connection:
    database = _bare_connection(path)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = TRUNCATE")
        database.execute("PRAGMA synchronous = EXTRA")
        database.execute("PRAGMA cache_size = -1024")
        # Overwrite deleted values, so that they cannot be read from free pages.
        database.execute("PRAGMA secure_delete = ON")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _bare_connection(path: Path) -> sqlite3.Connection:
    # mode=rw: if the file has disappeared since the check, SQLite must not create an empty one.
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=1.0)


_NOT_DAMAGE = ("locked", "busy", "disk i/o", "is full", "unable to open", "readonly", "permission")


def _inspect(path: Path) -> str | None:
    """Describe the damage of the file; None if the file is sound.

    Raises ``StoreError`` for an error that is not caused by damage.
    """
    try:
        # Open the file with SQLite before reading the header: on opening, SQLite rolls back an unfinished transaction,
        # and the rollback may change the header.
        with contextlib.closing(_bare_connection(path)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        fault = _inspect_header(path)
        if fault:
            return fault
        with contextlib.closing(_bare_connection(path)) as database:
            database.text_factory = _lenient
            return _inspect_meta(path, database) or _inspect_content(database)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return _fault(path, error)


def _fault(path: Path, error: sqlite3.Error | UnicodeDecodeError) -> str:
    """Describe the damage that caused ``error``. Raises ``StoreError`` if damage is not the cause of ``error``."""
    if isinstance(error, UnicodeDecodeError) or not str(error):
        # SQLite's error message quotes text from the file, and this text is not valid UTF-8. Python before 3.11 then
        # raises SQLite's error without a message.
        return "a table definition that is not valid UTF-8"
    if any(word in str(error).lower() for word in _NOT_DAMAGE):
        raise StoreError(f"{path}: {error}") from error
    return str(error)


def _lenient(text: bytes) -> str:
    """Decode a text column of a damaged file. Invalid UTF-8 becomes replacement characters, so the row no longer
    matches its checksum.
    """
    return text.decode(errors="replace")


def _inspect_header(path: Path) -> str | None:
    """Describe damage to the constant fields of the SQLite header; None if they are sound.

    SQLite itself does not check all constant fields of the header.

    See "Database File Format", section 1.3, in SQLite's documentation.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or header[:16] != b"SQLite format 3\0":
        return "not an SQLite file"
    if header[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        return "not a state file of XDP Gossip"
    # Offset -> expected bytes: 16 page size, 20 no reserved bytes and the payload fractions, 44 schema format 4, 56
    # UTF-8. The two file format versions, at 18 and 19, are both 1, or both 2 if the write-ahead log was turned on.
    expected = {16: rows.PAGE.to_bytes(2, "big"), 20: b"\0\x40\x20\x20", 44: b"\0\0\0\4", 56: b"\0\0\0\1"}
    wrong = [at for at, value in expected.items() if header[at : at + len(value)] != value]
    if wrong or header[18:20] not in (b"\1\1", b"\2\2"):
        return f"damaged header, byte {wrong[0] if wrong else 18}"
    return None


def _inspect_meta(path: Path, database: sqlite3.Connection) -> str | None:
    # SELECT * because another layout may have other columns.
    found = database.execute("SELECT * FROM meta").fetchall()
    if len(found) != 1 or not rows.intact("meta", found[0][1:]):
        return "damaged row in table meta"
    layout = found[0][1]
    if layout != LAYOUT:
        raise StoreError(
            f"{path}: written by another version: expected layout {LAYOUT}, got {layout!r}; run that version, or move "
            f"the file away to start without a state"
        )
    if database.execute("PRAGMA user_version").fetchone() != (layout,):
        return "damaged header, user version"
    return None


def _inspect_content(database: sqlite3.Connection) -> str | None:
    (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        return f"integrity check: {' '.join(verdict.split())}"
    found = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    if [sql for (sql,) in found] != schema():
        return "unexpected tables"
    total, digest = 0, 0
    for table in rows.COLUMNS:
        for row in database.execute(select(table)):
            if not rows.sound(table, row):
                return f"damaged row in table {table}"
            if table != "meta":
                total, digest = total + 1, digest + rows.weight(row)
    expected, expected_digest = rows.row_sum(database.execute(select("meta")).fetchone())
    if (total, digest % 2**64) != (expected, expected_digest):
        return f"rows are missing or too many: expected {expected}, got {total}"
    return None


@dataclass
class _Salvaged:
    incarnation: int = 0
    cluster: str = ""
    nodes: int = 0
    documents: int = 0
    versions: int = 0
    #: Number of rows according to the table ``meta`` of the damaged file; None if that table is damaged, too.
    expected: int | None = None
    damaged: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        found = self.nodes + self.versions + (1 if self.incarnation or self.cluster else 0)
        text = (
            f"kept {self.documents} documents ({self.versions} versions), {self.nodes} nodes, "
            f"incarnation {self.incarnation or 'unknown'}: {found} rows of {self.expected or 'an unknown number'}"
        )
        if self.damaged:
            names = sorted(self.damaged)
            text += f"; damaged: {', '.join(names[:10])}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        if found != self.expected:
            text += "; documents that are missing come back from members that hold them; without one they are lost"
        return text


def _repair(path: Path, fault: str) -> str:
    """Build a new file from the rows that SQLite can read, and keep the damaged file under another name.

    Returns a report for the operator.
    """
    aside = _aside_name(path)
    salvaged = _Salvaged()
    _build(_new_name(path), _readable(path, salvaged.damaged), salvaged)
    try:
        os.link(path, aside)
    except OSError:
        try:
            shutil.copy2(path, aside)
            _sync(aside)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    # Move the journal away before the new file gets the state file's name, because SQLite would apply the old journal
    # to the new file.
    _set_sidecars_aside(path, aside)
    _put_in_place(path)
    return f"{path}: {fault}: set aside as {aside.name}; {salvaged}"


def _readable(path: Path, damaged: set[str]) -> Iterator[tuple[str, rows.Row]]:
    """Yield the sound rows of a damaged file, each with its table. Adds damaged rows and tables to ``damaged``.

    A scan ends at the first damaged page. Each table is scanned from both ends, so that a single damaged page loses
    only its own rows. A row that both scans reach is yielded twice. The scan from the highest row ids comes first,
    because an old copy of a page may contain an outdated row with the same unique columns.

    Raises ``StoreError`` for errors that are not caused by damage, such as a failing disk.
    """
    for table in rows.COLUMNS:
        for step in (-1, 1):
            try:
                with contextlib.closing(_bare_connection(path)) as database:
                    # With this setting, a damaged definition of one table does not make the other tables unreadable.
                    database.execute("PRAGMA writable_schema = ON")
                    database.text_factory = _lenient
                    for row in _scan(database, table, step):
                        if rows.sound(table, row):
                            yield table, row
                        else:
                            damaged.add(f"{table} {row[0]!r}" if table != "meta" else table)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                _fault(path, error)
                damaged.add(f"table {table}")


def _scan(database: sqlite3.Connection, table: str, step: int) -> Iterator[rows.Row]:
    """Yield the rows of a table by row id, descending if ``step`` is -1. Raises ``sqlite3.Error`` at damage.

    Each row is read with a separate query. A cursor over all rows would read one row ahead, so damage to a row would
    also lose the row before it.
    """
    beyond, order, at = (">", "ASC", 0) if step > 0 else ("<", "DESC", 2**63 - 1)
    columns = ", ".join(rows.COLUMNS[table])
    query = f"SELECT rowid, {columns} FROM {table} WHERE rowid {beyond} ? ORDER BY rowid {order} LIMIT 1"
    while (found := database.execute(query, (at,)).fetchone()) is not None:
        number, *row = found
        if not isinstance(number, int) or (number - at) * step <= 0:
            # Damaged row ids must not make the scan endless.
            raise sqlite3.DatabaseError("row ids are out of order")
        at = number
        yield tuple(row)


def _build(target: Path, found: Iterable[tuple[str, rows.Row]], salvaged: _Salvaged) -> None:
    """Create a complete, synced state file at ``target`` from sound rows, and count these rows in ``salvaged``.

    Of two rows with the same unique columns, the first row is used. Raises ``StoreError``.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with translated(target), contextlib.closing(_bare_connection(target)) as database:
        # The new file needs no journal, because no process uses the file before it is renamed.
        for pragma in (
            f"page_size = {rows.PAGE}",
            "journal_mode = OFF",
            "synchronous = OFF",
            "cache_size = -1024",
        ):
            database.execute(f"PRAGMA {pragma}")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {LAYOUT}")
        for statement in schema():
            database.execute(statement)
        database.execute("BEGIN")
        _fill(database, found, salvaged)
        database.execute("COMMIT")
    _sync(target)


def _fill(database: sqlite3.Connection, found: Iterable[tuple[str, rows.Row]], salvaged: _Salvaged) -> None:
    total = digest = 0

    def add(table: str, row: rows.Row) -> None:
        nonlocal total, digest
        if database.execute(insert(table), row).rowcount > 0:
            total += 1
            digest += rows.weight(row)

    for table, row in found:
        if table == "identity":
            incarnation, salvaged.cluster = rows.row_identity(row)
            salvaged.incarnation = latest(incarnation, salvaged.incarnation)
        elif table == "meta":
            salvaged.expected, _digest = rows.row_sum(row)
        else:
            add(table, row)
    if salvaged.incarnation or salvaged.cluster:
        add("identity", rows.seal("identity", (salvaged.incarnation, salvaged.cluster)))
    database.execute(insert("meta"), sum_row(total, digest))
    salvaged.nodes = database.execute("SELECT count(*) FROM node").fetchone()[0]
    counted = database.execute("SELECT count(DISTINCT key), count(*) FROM document")
    salvaged.documents, salvaged.versions = counted.fetchone()


def _new_name(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _aside_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (
        path.with_name(f"{path.name}.corrupt-{stamp}{suffix}") for suffix in ("", *(f".{n}" for n in range(1, 1000)))
    )
    for name in names:
        if not name.exists():
            return name
    raise StoreError(f"{path}: a thousand damaged files were set aside within one second; is the disk failing?")


def _set_sidecars_aside(path: Path, aside: Path) -> str:
    """Rename SQLite's journal files to ``aside`` plus their suffix, and delete empty journal files.

    Returns the former names.
    """
    moved = []
    for suffix in _SIDECARS:
        sidecar = Path(f"{path}{suffix}")
        if not sidecar.exists():
            continue
        if sidecar.stat().st_size == 0:
            sidecar.unlink()
        else:
            sidecar.rename(f"{aside}{suffix}")
            moved.append(sidecar.name)
    return ", ".join(moved)


def _put_in_place(path: Path) -> None:
    os.replace(_new_name(path), path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
