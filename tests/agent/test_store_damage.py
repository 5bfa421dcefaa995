# SPDX-License-Identifier: MIT
"""A damaged state file never keeps an agent from starting: it opens, or is set aside and told of.

What is no damage is an error that names it.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.ports import free_port
from xdp_gossip import AsyncNodeList, Node
from xdp_gossip.cli.doctor.disks import examine
from xdp_gossip.cli.doctor.look import Look
from xdp_gossip.core.interface import Known
from xdp_gossip.core.types import Address, Document, Version
from xdp_gossip.store import rows, statefile
from xdp_gossip.store.sqlite import Store, StoreError

A = Address.of("198.18.0.1", 8000)
PAGE = rows.PAGE
CASES = 2000
#: Cases of one test.
SHARE = 200


def make(path: Path) -> None:
    """A state with all that there can be in one: long values, a history, a batch, an expiry, nodes, a cluster."""
    made = Store.open(path, cluster="c")
    made.next_incarnation(1_800_000_000)
    made.save_documents(
        [Document(f"app/{n:02}ü", Version((1 << 40) + n, A), bytes([n]) * n * 97, "text", "author") for n in range(20)]
    )
    made.save_documents([Document("app/long", Version(1 << 40, A), bytes(9000))])
    for number in range(4):
        version = Version((1 << 41) + number, A)
        made.save_documents([Document("app/x", version, b"%d" % number, batch=("app/x", "app/y"), expires=2**45)])
    addresses = [Address(f"198.18.1.{last}", 8000) for last in range(1, 20)]
    made.save_nodes([Known(address, 1, 2**63 + 5, 10**18, f"n {address}", "ü") for address in addresses])
    made.close()


@pytest.fixture(name="sound", scope="module")
def fixture_sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "state.db"
    make(path)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def scribble(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 4, 30))):
        fill(rng, data, rng.randbytes(rng.randrange(1, 64)))


def blank(rng: random.Random, data: bytearray) -> None:
    fill(rng, data, rng.choice((b"\0", b"\xff")) * rng.randrange(1, 2 * PAGE))


def fill(rng: random.Random, data: bytearray, what: bytes) -> None:
    at = rng.randrange(len(data))
    data[at : at + len(what)] = what[: len(data) - at]


def truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def lengthen(rng: random.Random, data: bytearray) -> None:
    data += rng.randbytes(rng.randrange(1, 2 * PAGE))


def move_a_page(rng: random.Random, data: bytearray) -> None:
    there, here = (PAGE * rng.randrange(len(data) // PAGE) for _ in range(2))
    kept, data[there : there + PAGE] = data[there : there + PAGE], data[here : here + PAGE]
    if rng.random() < 0.5:
        data[here : here + PAGE] = kept


def first_page(rng: random.Random, data: bytearray) -> None:
    """Header, and the text of the schema."""
    for _ in range(rng.choice((1, 1, 3, 10))):
        data[rng.randrange(rng.choice((100, PAGE)))] = rng.randrange(256)


def no_utf8(rng: random.Random, data: bytearray) -> None:
    """Where there is text."""
    for _ in range(rng.choice((1, 3))):
        word = rng.choice((b"CREATE", b"app/", b"author", b"198.18", b"document", b"text"))
        at = data.find(word, rng.randrange(len(data)))
        if at >= 0:
            data[at + rng.randrange(len(word))] = rng.randrange(0x80, 0x100)


def write_ahead(rng: random.Random, data: bytearray) -> None:
    """Another tool turned the write-ahead log on; see ``beside``."""
    data[18:20] = b"\2\2"


DAMAGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *(flip, scribble, blank, truncate, lengthen, move_a_page, first_page, first_page, no_utf8, no_utf8, write_ahead),
)


def beside(rng: random.Random, path: Path, damage: object) -> None:
    """Damaged files of SQLite's beside it, and slips."""
    if damage is write_ahead or rng.random() < 0.05:
        log = rng.choice((b"", rng.randbytes(600), b"\x37\x7f\x06\x82\x00\x2d\xe2\x18" + rng.randbytes(9000)))
        Path(f"{path}-wal").write_bytes(log)
        Path(f"{path}-shm").write_bytes(rng.choice((b"", rng.randbytes(32768))))
    if rng.random() < 0.1:
        journal = rng.choice((rng.randbytes(600), b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + rng.randbytes(5000)))
        Path(f"{path}-journal").write_bytes(journal)
    if rng.random() < 0.1:
        Path(f"{path}.lock").write_bytes(rng.randbytes(rng.choice((10, 4096, 9000))))


def use(path: Path) -> list[str]:
    """What an agent does with it, which must work whatever it was; what was wrong with it."""
    opened = Store.open(path, cluster="c")
    try:
        opened.load()
        opened.history("app/x")
        if opened.problems:
            opened.next_incarnation(1_800_000_001)
        return opened.problems
    finally:
        opened.close()


def cases(sound: bytes, path: Path, numbers: range) -> int:
    """How many of these were set aside."""
    aside = 0
    for number in numbers:
        rng = random.Random(number)
        for left in path.parent.iterdir():
            left.unlink()
        data, damage = bytearray(sound), rng.choice(DAMAGES)
        damage(rng, data)
        path.write_bytes(data)
        beside(rng, path, damage)
        try:
            problems = use(path)
            again = problems and use(path)
        except Exception as error:
            raise AssertionError(f"case {number}, {damage.__name__}: {error!r}") from error
        assert not again, f"case {number}, {damage.__name__}: damaged again: {again}"
        assert bool(problems) == any(".corrupt-" in left.name for left in path.parent.iterdir()), number
        aside += bool(problems)
    return aside


def test_some_damaged_files(sound: bytes, tmp_path: Path) -> None:
    assert cases(sound, tmp_path / "state.db", range(-40, 0)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, CASES, SHARE))
def test_two_thousand_damaged_files(sound: bytes, tmp_path: Path, first: int) -> None:
    assert cases(sound, tmp_path / "state.db", range(first, first + SHARE)) > SHARE / 3


def test_text_of_the_schema_that_is_not_utf8_costs_no_other_table(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    data = bytearray(sound)
    data[data.index(b"CREATE TABLE document") + 8] = 0xB9
    path.write_bytes(data)
    opened = Store.open(path)
    assert len(opened.load().known) == 19 and not opened.load().documents
    assert opened.next_incarnation(1) == 1_800_000_001
    (problem,) = opened.problems
    assert "UTF-8" in problem and "kept 0 documents" in problem and "damaged: table document;" in problem
    assert problem.endswith(
        "documents that are missing come back from members that hold them; without one they are lost"
    )
    opened.close()


def test_a_damaged_page_of_documents_costs_no_other_page(sound: bytes, tmp_path: Path) -> None:
    """A scan ends at the damage, so there is one from each end."""
    path = tmp_path / "state.db"
    data = bytearray(sound)
    leaves = (at for at in range(PAGE, len(data), PAGE) if data[at] == 0x0D)
    page = next(at for at in leaves if b"app/10" in data[at : at + PAGE])
    lost = {f"app/{n:02}ü" for n in range(20) if f"app/{n:02}ü".encode() in data[page : page + PAGE]}
    assert 0 < len(lost) < 10
    data[page : page + 8] = bytes(8)
    path.write_bytes(data)
    opened = Store.open(path)
    every = {"app/long", "app/x", *(f"app/{n:02}ü" for n in range(20))}
    assert {document.key for document in opened.load().documents} == every - lost
    assert "integrity check" in opened.problems[0] and "they are lost" in opened.problems[0]
    assert opened.next_incarnation(1) == 1_800_000_001
    opened.close()


#: A value of each type, some of them where they belong.
ODD = (None, -1, 0, 2**62, 1.5, "", "text", "\0", "9" * 30, "[5]", '{"batch": 5}', b"", b"\xff\xfe", bytes(16))


def columns() -> Iterator[tuple[str, int]]:
    for table, names in rows.COLUMNS.items():
        yield from ((table, index) for index in range(len(names) - 1))


@pytest.mark.slow
@pytest.mark.parametrize(("table", "index"), list(columns()))
def test_values_that_a_column_cannot_hold(sound: bytes, tmp_path: Path, table: str, index: int) -> None:
    """Also where the row's checksum fits: whoever wrote it was another program, or one with a fault."""
    path = tmp_path / "state.db"
    for sealed in (False, True):
        for value in ODD:
            for left in tmp_path.iterdir():
                left.unlink()
            path.write_bytes(sound)
            name = list(rows.COLUMNS[table])[index]
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                selected = f"SELECT id, {', '.join(rows.COLUMNS[table])} FROM {table} ORDER BY id DESC LIMIT 1"
                number, *row = database.execute(selected).fetchone()
                row[index] = value
                checksum = rows.checksum(table, tuple(row[:-1])) if sealed else row[-1]
                try:
                    changed = f"UPDATE {table} SET {name} = ?, checksum = ? WHERE id = ?"
                    database.execute(changed, (value, checksum, number))
                except sqlite3.IntegrityError:
                    continue  # NOT NULL
            try:
                use(path)
            except StoreError as error:
                layout = (table, name) == ("meta", "layout") and "written by another version" in str(error)
                cluster = (table, name) == ("identity", "cluster") and "of cluster 'c', which is" in str(error)
                assert sealed and (layout or cluster), (sealed, value, error)
                continue


@pytest.mark.parametrize("name", ["state.db", "state.db.new", "state.db.lock", "state.db-journal", "state.db-wal"])
def test_what_is_no_file_is_an_error_that_names_it(sound: bytes, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    path, odd = directory / "state.db", directory / name
    path.write_bytes(sound)
    odd.unlink(missing_ok=True)
    for kind in ("directory", "named pipe", "socket", "link"):
        if kind == "directory":
            odd.mkdir()
        elif kind == "named pipe":
            os.mkfifo(odd)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(odd))
        else:
            odd.symlink_to(odd)
        with pytest.raises(StoreError) as error:
            Store.open(path)
        assert str(odd) in str(error.value), kind
        assert odd.is_symlink() or odd.exists()
        if kind == "directory":
            odd.rmdir()
        else:
            odd.unlink()
    assert not [left for left in directory.iterdir() if ".corrupt-" in left.name]


def test_a_link_to_a_disk_that_is_missing_is_no_new_start(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.symlink_to(tmp_path / "mount" / "state.db")
    with pytest.raises(StoreError, match="symbolic link that leads nowhere"):
        Store.open(path)
    assert path.is_symlink()


@pytest.fixture(name="open_to_all")
def fixture_open_to_all() -> Iterator[Path]:
    """A directory that other users reach, too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_file_that_may_not_be_read_is_an_error(sound: bytes, open_to_all: Path) -> None:
    """In a process that is not root's."""
    path = open_to_all / "state.db"
    path.write_bytes(sound)
    path.chmod(0)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from xdp_gossip.store.sqlite import Store, StoreError\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Store.open(Path(sys.argv[1]))\n"
        "except StoreError as error: print(error)\n"
    )
    agent = str(Path(statefile.__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": agent}
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, env=environment)
    assert str(path) in done.stdout and not done.stderr, done
    assert not [left for left in open_to_all.iterdir() if ".corrupt-" in left.name]


def test_an_agent_with_a_damaged_state_starts_and_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def start() -> dict[str, object]:
        made = AsyncNodeList(listen_addr="127.0.0.1", state_dir=tmp_path)
        made.new(Node("127.0.0.1", free_port()))
        await made.join()
        try:
            if not made.documents():
                await made.publish(b"v", "k")
            assert made.read("k") == b"v"
            return made.status()
        finally:
            await made.close()

    status = asyncio.run(start())
    assert status["state_problems"] == [] and status["counters"]["state_file_repairs"] == 0  # type: ignore[index]
    path = tmp_path / "state.db"
    data = bytearray(path.read_bytes())
    data[data.index(b"CREATE TABLE node") + 3] = 0xFF
    path.write_bytes(data)
    status = asyncio.run(start())
    (problem,) = status["state_problems"]  # type: ignore[misc,attr-defined]
    assert "set aside as state.db.corrupt-" in problem and "kept" in problem
    assert status["counters"]["state_file_repairs"] == 1  # type: ignore[index]
    assert any(problem in record.getMessage() for record in caplog.records)
    (told,) = examine(Look("agent.yml", status=status))  # type: ignore[arg-type]
    assert (told.id, told.level) == ("disk.repaired", "warning") and problem in told.text
    assert asyncio.run(start())["state_problems"] == []
