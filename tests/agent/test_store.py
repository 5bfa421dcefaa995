# SPDX-License-Identifier: MIT
"""The state file: what was acknowledged is there again, and damage is reported, never fatal, never hidden."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdp_gossip.core.interface import Known
from xdp_gossip.core.types import Address, Document, Version
from xdp_gossip.store import rows, slips, sqlite, statefile
from xdp_gossip.store.sqlite import MemoryStore, StateStore, Store, StoreError, Unread

AGENT = Path(sqlite.__file__).resolve().parents[2]
A = Address.of("198.18.0.1", 8000)
B = Address.of("fd00::2", 65535)


def document(key: str, hlc: int, value: bytes = b"value", origin: Address = A, deleted: bool = False) -> Document:
    return Document(key, Version(hlc, origin), value, "text", "author", "comment", deleted, Version(1, B))


def known(last: int, sequence: int = 1, heard: int = 0) -> Known:
    address = Address.of(f"198.18.0.{last}", 8000)
    return Known(address, 1, sequence, heard or time.time_ns(), f"host{last}", "dätä\0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, path: Path) -> StateStore:
    return Store.open(path) if request.param == "file" else MemoryStore()


def asides(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if ".corrupt-" in entry.name)


def test_incarnation_grows_over_restarts_and_follows_the_clock(path: Path) -> None:
    first = Store.open(path)
    assert [first.next_incarnation(1000), first.next_incarnation(5), first.next_incarnation(2000)] == [1000, 1001, 2000]


def test_no_clock_brings_incarnations_to_an_end(path: Path) -> None:
    """A battery that says 2107 before the first start, and the right time later; then the range wraps."""
    first = Store.open(path)
    assert first.next_incarnation(2**32 + 5) == 2**32 - 1
    assert first.next_incarnation(2**32 + 9) == 1
    first.close()
    again = Store.open(path)
    again.save_incarnation(2**32 - 1)
    assert again.next_incarnation(1_700_000_000) == 1_700_000_000
    assert again.next_incarnation(2**32 + 5) == 1_700_000_001


def test_a_lower_incarnation_does_not_replace_a_raised_one(any_store: StateStore) -> None:
    any_store.save_incarnation(70)
    any_store.save_incarnation(60)
    assert any_store.next_incarnation(1) == 71


def test_current_documents_and_history(any_store: StateStore) -> None:
    any_store.save_documents([document("a", 5), document("b", 1, deleted=True), document("a", 3, b"older")])
    any_store.save_documents([document("a", 4, b"late")])
    assert any_store.load().documents == [document("a", 5), document("b", 1, deleted=True)]
    assert [entry.version.hlc for entry in any_store.history("a")] == [5, 4, 3]
    assert any_store.history("a")[1].value == b"late"
    assert any_store.history("none") == []


def test_history_keeps_the_ten_newest(any_store: StateStore) -> None:
    for hlc in (*range(3, 30), 2, 1):
        any_store.save_documents([document("a", hlc)])
    assert [entry.version.hlc for entry in any_store.history("a")] == list(range(29, 19, -1))


def test_equal_versions_are_decided_by_rank(any_store: StateStore) -> None:
    rivals = [document("a", 1, value) for value in (b"1", b"2", b"3")] + [document("a", 1, b"", deleted=True)]
    any_store.save_documents(rivals)
    assert any_store.load().documents == [max(rivals, key=lambda rival: rival.rank)]


def test_a_withdrawn_version_does_not_come_back(any_store: StateStore) -> None:
    wrong = document("a", 1000)
    any_store.save_documents([wrong, document("b", 1)])
    any_store.save_documents([document("a", 5)], withdrawn=[wrong, document("a", 77)])
    assert any_store.load().documents == [document("a", 5), document("b", 1)]
    any_store.save_documents([], withdrawn=[document("b", 1)])
    assert any_store.load().documents == [document("a", 5)]
    assert any_store.history("b") == []
    any_store.save_documents([wrong, document("a", 6)], withdrawn=[wrong])
    assert any_store.load().documents == [document("a", 6)]


def test_a_staged_version_holds_after_a_restart_and_replaces_nothing_before(path: Path) -> None:
    first = Store.open(path, history=1)
    first.save_documents([document("a", 1)])
    first.stage([document("a", 5)])
    first.save_documents([document("a", 3)])
    assert [entry.version.hlc for entry in first.history("a")] == [5, 3]
    first.close()
    again = Store.open(path, history=1)
    assert again.load().documents == [document("a", 5)]
    again.close()


def test_staged_versions_are_settled(any_store: StateStore) -> None:
    for hlc in range(1, 11):
        any_store.save_documents([document("a", hlc)])
    any_store.stage([document("a", 20), document("b", 20)])
    any_store.save_documents([document("a", 12), document("b", 12), document("a", 11)])
    assert [entry.version.hlc for entry in any_store.history("a")] == [20, *range(12, 2, -1)]
    assert any_store.settle([document("b", 20)], [document("a", 20), document("c", 20)]) == 1
    assert [entry.version.hlc for entry in any_store.history("a")] == list(range(12, 2, -1))
    assert [entry.version.hlc for entry in any_store.history("b")] == [20, 12]
    any_store.stage([document("a", 21)])
    any_store.stage([document("a", 22)], kept=[document("a", 21)])
    any_store.settle([document("a", 22)], [])
    assert [entry.version.hlc for entry in any_store.history("a")] == [22, 21, *range(12, 4, -1)]


def test_a_higher_version_than_the_staged_one_holds(any_store: StateStore) -> None:
    any_store.stage([document("a", 5)])
    any_store.save_documents([document("a", 7)])
    assert any_store.load().documents == [document("a", 7)]


class Late:
    """A connection whose commits are durable and report an error, as SQLite does when the last fsync fails."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        done = self._database.execute(sql, *values)
        if sql == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return done


def test_a_version_whose_stage_failed_takes_nobody_from_the_disk_either(path: Path) -> None:
    state = Store.open(path, history=1)
    sound = state._database
    state._database = Late(sound)  # type: ignore[assignment]
    with pytest.raises(StoreError, match="disk I/O error"):
        state.stage([document("a", 5)])
    state._database = sound
    state.save_documents([document("a", 3)])
    assert state.settle([], [document("a", 5)]) == 1
    assert state.load().documents == [document("a", 3)]
    state.close()


def test_an_unread_version_stays_in_the_history_and_does_not_come_back(any_store: StateStore) -> None:
    wrong, right = document("a", 1000), document("a", 5)
    any_store.save_documents([document("a", 4), wrong])
    any_store.save_documents([right], unread=[Unread(wrong, right)])
    assert any_store.load().documents == [right]
    assert any_store.history("a") == [right, wrong, document("a", 4)]
    any_store.save_documents([wrong])
    assert any_store.load().documents == [wrong]
    assert any_store.history("a") == [wrong, right, document("a", 4)]


def test_the_version_that_holds_is_kept_beside_many_unread_ones(any_store: StateStore) -> None:
    far = document("a", 2000)
    any_store.save_documents([far])
    any_store.save_documents([far], unread=[Unread(document("a", 3000 + n), far) for n in range(12)])
    any_store.save_documents([document("a", 5)], withdrawn=[far])
    assert any_store.load().documents == [document("a", 5)]
    assert [entry.version.hlc for entry in any_store.history("a")] == [5, *range(3011, 3002, -1)]


def test_a_withdrawn_version_is_not_salvaged_either(path: Path) -> None:
    state = Store.open(path)
    wrong = [document(f"k{n}", 10**6, b"w" * 5000) for n in range(20)]
    state.save_documents(wrong)
    state.save_documents([document(f"k{n}", n + 1) for n in range(20)], withdrawn=wrong)
    expected = state.load().documents
    state.close()
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 1
    path.write_bytes(damaged)
    again = Store.open(path)
    assert again.problems
    assert again.load().documents == expected


def test_values_come_back_unchanged(path: Path) -> None:
    odd = [
        Document("ä/\u2028", Version(2**64 - 1, B), bytes(range(256)) * 5000, "", "", "", False, None),
        Document("k", Version(0, A), b""),
    ]
    first = Store.open(path)
    first.save_documents(odd)
    first.save_nodes([known(3, sequence=2**64 - 1)])
    before = first.load()
    first.close()
    again = Store.open(path)
    assert again.problems == []
    assert again.load() == before
    assert sorted(again.load().documents, key=lambda d: d.key) == sorted(odd, key=lambda d: d.key)
    assert again.load().known[0].sequence == 2**64 - 1


versions = st.builds(Version, st.integers(0, 2**64 - 1), st.sampled_from([A, B, Address.of("198.18.0.1", 8001)]))
documents = st.builds(
    Document,
    st.sampled_from(["a", "b"]),
    versions,
    st.binary(max_size=3),
    deleted=st.booleans(),
)


@pytest.mark.slow
@given(st.lists(documents, max_size=30))
@settings(max_examples=200, deadline=None)
def test_rank_bytes_sort_as_ranks(found: list[Document]) -> None:
    assert sorted(found, key=rows.rank_key) == sorted(found, key=lambda entry: entry.rank)


@pytest.mark.slow
@given(st.lists(st.lists(documents, max_size=6), max_size=8))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_file_and_memory_agree(tmp_path_factory: pytest.TempPathFactory, batches: list[list[Document]]) -> None:
    memory = MemoryStore()
    path = tmp_path_factory.mktemp("agree") / "state.db"
    file = Store.open(path)
    staged: list[Document] = []
    for number, batch in enumerate(batches):
        for each in (memory, file):
            each.settle(staged[: number % 3], staged[number % 3 :])
        if number % 2:
            staged = list({document.key: document for document in batch}.values())
            batch = [document for document in batch if document not in staged]
            for each in (memory, file):
                each.stage(staged)
        for each in (memory, file):
            each.save_documents(batch)
    file.close()
    again = Store.open(path)
    assert again.problems == []
    assert again.load() == memory.load()
    assert [again.history(key) for key in "ab"] == [memory.history(key) for key in "ab"]
    again.close()


def test_nodes_are_replaced_and_none_is_forgotten_by_the_store(any_store: StateStore) -> None:
    day = 86400 * 10**9
    recent, old = known(1), known(2, heard=time.time_ns() - 3 * day)
    any_store.save_nodes([recent, old, known(3)])
    any_store.save_nodes([recent, old])
    # If the store forgot nodes, a minority could become a majority of the nodes that it knows by a restart.
    assert sorted(any_store.load().known, key=str) == sorted([recent, old], key=str)


def test_files_are_private(path: Path) -> None:
    state = Store.open(path)
    state.save_documents([document("a", 1)])
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert "state.db" in modes
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_disk_is_synced_before_a_write_is_acknowledged(path: Path) -> None:
    state = Store.open(path)
    database = state._database
    assert database is not None
    assert database.execute("PRAGMA synchronous").fetchone() == (3,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("truncate",)


def test_a_second_process_is_told_who_has_it(path: Path) -> None:
    state = Store.open(path)
    with pytest.raises(StoreError, match=f"{path}: in use by another process"):
        Store.open(path)
    state.close()
    state.close()
    Store.open(path).close()
    with pytest.raises(StoreError, match="closed"):
        state.load()


@pytest.mark.slow
def test_a_file_locked_with_other_tools_is_not_taken_for_damaged(path: Path) -> None:
    Store.open(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=f"{path}: database is locked"):
        Store.open(path)
    other.close()
    assert asides(path) == []
    assert Store.open(path).problems == []


@pytest.mark.parametrize("layout", [1, 2, 3, 5])
def test_another_layout_is_refused_and_left_alone(path: Path, layout: int) -> None:
    """Whatever columns it has, but for the first and the last one of its ``meta``."""
    Store.open(path).close()
    other = sqlite3.connect(path)
    other.execute("DROP TABLE meta")
    other.execute("CREATE TABLE meta (id INTEGER PRIMARY KEY, layout INTEGER, changes INTEGER, checksum BLOB)")
    other.execute("INSERT INTO meta VALUES (1, ?, ?, ?)", rows.seal("meta", (layout, 9)))
    other.execute("DROP TABLE node")
    other.execute(f"PRAGMA user_version = {layout}")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"written by another version: expected layout 4, got {layout}; run that"):
        Store.open(path)
    assert path.read_bytes() == before
    assert asides(path) == []


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"SQLite format 3\0", random.Random(1).randbytes(9000), bytes(8192)]
)
def test_a_file_that_is_none_of_ours_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    state = Store.open(path)
    assert len(state.problems) == 1
    assert str(path) in state.problems[0]
    (aside,) = asides(path)
    assert aside in state.problems[0]
    assert path.with_name(aside).read_bytes() == content
    assert state.load() == sqlite.Snapshot()
    state.save_documents([document("a", 1)])


def test_another_programs_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE person (name TEXT)")
    foreign.commit()
    foreign.close()
    state = Store.open(path)
    assert "not a state file of XDP Gossip" in state.problems[0]
    assert len(asides(path)) == 1


def test_a_journal_without_its_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    Path(f"{path}-journal").write_bytes(b"x" * 600)
    state = Store.open(path)
    assert "state.db-journal" in state.problems[0]
    assert [name for name in asides(path) if name.endswith("-journal")]


def test_a_directory_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store.open(tmp_path / "file" / "state.db")
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StoreError, match=r"state\.db"):
        Store.open(tmp_path / "state.db")


def populated(path: Path) -> tuple[sqlite.Snapshot, set[Document]]:
    """A file of some forty pages with overflow chains, free pages, history and nodes; returns what it holds."""
    state = Store.open(path)
    state.next_incarnation(1000)
    for round_ in range(3):
        state.save_documents([document(f"k{n}", 10 * round_ + n + 1, b"%d" % n * 300) for n in range(30)])
        state.save_nodes([known(n, heard=10**18 + round_) for n in range(1, 40 - round_)])
    state.save_documents([document("big", 7, b"0123456789" * 2000)])
    for hlc in range(1, 15):
        state.save_documents([document("often", hlc, b"v" * 900)])
    snapshot = state.load()
    history = {entry for held in snapshot.documents for entry in state.history(held.key)}
    state.close()
    return snapshot, history


def reopen_damaged(path: Path, content: bytes, original: sqlite.Snapshot) -> tuple[Store, bool]:
    """Open ``content`` as the state file; returns it, and whether it still holds all of ``original``."""
    for entry in path.parent.iterdir():
        entry.unlink()
    path.write_bytes(content)
    state = Store.open(path)
    now = state.load()
    whole = (
        {entry.address: entry for entry in now.known} == {entry.address: entry for entry in original.known}
        and now.documents == original.documents
        and state.next_incarnation(1) == 1001
    )
    assert whole or state.problems, "lost something and did not say so"
    assert bool(state.problems) == bool(asides(path))
    state.save_documents([document("after", 99)])
    assert document("after", 99) in state.load().documents
    return state, whole


#: First byte of a page that holds rows of a table, and of one that holds the pages of a table.
LEAF, INTERIOR = 0x0D, 0x05


@pytest.mark.slow
def test_a_flipped_bit_costs_at_most_its_page_and_is_reported(path: Path) -> None:
    """But for pages that SQLite needs to find others: the first one, and those that list pages of a table."""
    original, history = populated(path)
    content = path.read_bytes()
    seeds = random.Random(1)
    # Every byte of the database header, two of each page's header and first cell pointer, and samples of the rest.
    offsets = [
        *range(120),
        *(page * 4096 + n for page in range(1, len(content) // 4096) for n in seeds.sample((0, 3, 4, 5, 8, 9), 2)),
    ]
    offsets += [seeds.randrange(len(content)) for _ in range(60)]
    other = sqlite3.connect(path)
    (root,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'identity'").fetchone()
    other.close()
    bounded = 0
    for offset in offsets:
        damaged = bytearray(content)
        damaged[offset] ^= 1 << seeds.randrange(8)
        state, _whole = reopen_damaged(path, bytes(damaged), original)
        kept = {entry for held in state.load().documents for entry in state.history(held.key)}
        if offset >= 4096 and content[offset - offset % 4096] != INTERIOR:
            bounded += 1
            assert len(history - kept) <= 4096 // 350, f"offset {offset}: {state.problems}"
            if offset // 4096 + 1 != root:
                assert state.next_incarnation(1) > 1000, f"offset {offset}: {state.problems}"
        state.close()
    assert bounded > 60


@pytest.mark.slow
def test_a_truncated_file_keeps_what_its_pages_still_hold(path: Path) -> None:
    original, history = populated(path)
    content = path.read_bytes()
    seeds = random.Random(2)
    leaves = [at for at in range(4096, len(content), 4096) if content[at] == LEAF]
    for length in [0, 1, 99, 100, 4095, 4096, *(seeds.randrange(len(content)) for _ in range(40)), len(content) - 1]:
        state, _whole = reopen_damaged(path, content[:length], original)
        kept = {entry for held in state.load().documents for entry in state.history(held.key)}
        # A row can reach into pages behind the end, and so can the list of pages; then SQLite stops at it.
        if length == len(content) - 1:
            assert len(history - kept) <= 4096 // 350
        elif length > leaves[-1]:
            assert kept
        assert state.problems
        state.close()


@pytest.mark.slow
def test_a_page_written_to_the_wrong_place_is_noticed(path: Path) -> None:
    """Each page is intact and so is each row; only the sum over all rows or the structure can tell."""
    original, _history = populated(path)
    content = path.read_bytes()
    seeds = random.Random(3)
    pages = len(content) // 4096
    for _ in range(40):
        source, target = seeds.randrange(1, pages), seeds.randrange(1, pages)
        damaged = bytearray(content)
        damaged[target * 4096 : target * 4096 + 4096] = content[source * 4096 : source * 4096 + 4096]
        reopen_damaged(path, bytes(damaged), original)[0].close()


def test_a_row_removed_behind_our_back_is_noticed(path: Path) -> None:
    populated(path)
    other = sqlite3.connect(path)
    other.execute("DELETE FROM document WHERE key = 'k7'")
    other.commit()
    other.close()
    state = Store.open(path)
    assert "rows are missing or too many" in state.problems[0]


def test_an_index_that_lost_an_entry_is_noticed(path: Path) -> None:
    original, _history = populated(path)
    other = sqlite3.connect(path)
    (root,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_node_1'").fetchone()
    other.close()
    damaged = bytearray(path.read_bytes())
    at = (root - 1) * 4096
    entry = damaged.index(b"198.18.0.7", at)
    damaged[entry + 9 : entry + 10] = b"6"
    state, whole = reopen_damaged(path, bytes(damaged), original)
    assert whole
    assert "integrity check" in state.problems[0]


WRITER = """
import sys
from pathlib import Path
from xdp_gossip.core.interface import Known
from xdp_gossip.core.types import Address, Document, Version
from xdp_gossip.store.sqlite import Store
state = Store.open(Path(sys.argv[1]))
print("incarnation", state.next_incarnation(1), flush=True)
start = max((d.version.hlc for d in state.load().documents), default=0)
me = Address.of("198.18.0.1", 8000)
for n in range(start + 1, start + 100000):
    value = b"%d" % n * (n % 3000)
    state.save_documents([Document("k%d" % (n % 7), Version(n, me), value), Document("last", Version(n, me))])
    if n % 5 == 0:
        state.save_nodes([Known(Address.of("198.18.1.%d" % (i + 1), 1), n, n, n) for i in range(n % 50)])
    print("saved", n, flush=True)
"""


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing_acknowledged(path: Path) -> None:
    seeds = random.Random(4)
    acknowledged = incarnation = 0
    promised = 0
    for _ in range(50):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(AGENT)},
            text=True,
        )
        assert writer.stdout is not None
        first = writer.stdout.readline().split()
        assert first[0] == "incarnation"
        assert int(first[1]) > incarnation
        incarnation = int(first[1])
        # After so many transactions, and anywhere in the next ones.
        lines = [writer.stdout.readline() for _ in range(seeds.randrange(4))]
        promised += len(lines)
        time.sleep(seeds.random() * 0.01)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().split("\n")[:-1]  # a line that was cut off acknowledges nothing
        writer.wait(60)
        acknowledged = max([acknowledged, *(int(line.split()[1]) for line in lines if line.startswith("saved "))])
        state = Store.open(path)
        assert state.problems == []
        held = {entry.key: entry for entry in state.load().documents}
        if acknowledged:
            last = held["last"].version.hlc
            # The transaction in flight may be there too, whole or not at all.
            assert last in (acknowledged, acknowledged + 1)
            acknowledged = last
            assert held[f"k{last % 7}"].value == b"%d" % last * (last % 3000)
            for n in range(max(1, last - 6), last + 1):
                assert held[f"k{n % 7}"].version.hlc == n
        state.close()
    assert acknowledged >= promised > 50


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from xdp_gossip.core.types import Address, Document, Version
from xdp_gossip.store.sqlite import Store, StoreError
me = Address.of("198.18.0.1", 8000)
state = Store.open(Path(sys.argv[1]))
state.save_documents([Document("small", Version(1, me), b"kept")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    state.save_documents([Document("large", Version(2, me), bytes(1_000_000))])
except StoreError as error:
    print(error)
else:
    sys.exit("acknowledged what cannot be on the disk")
assert [d.key for d in state.load().documents] == ["small"], state.load()
state.save_documents([Document("small", Version(3, me), b"again")])
state.stage([Document("staged", Version(4, me), b"staged")])
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 100_000))
assert state.settle([], [Document("large", Version(2, me), bytes(1_000_000))]) == 0, "which writes nothing"
try:
    state.settle([], [Document("staged", Version(4, me), b"staged")])
except StoreError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
else:
    sys.exit("withdrew what cannot be from the disk")
assert state.settle([], [Document("staged", Version(4, me), b"staged")]) == 1
"""


FULL_AND_KILLED = """
import os, resource, signal, sys
from pathlib import Path
from xdp_gossip.core.types import Address, Document, Version
from xdp_gossip.store.sqlite import NotedError, Store
me = Address.of("198.18.0.1", 8000)
state = Store.open(Path(sys.argv[1]))
lost = [Document("large", Version(2, me), bytes(20_000)), Document("small", Version(2, me), b"lost")]
state.save_documents([Document("small", Version(1, me), b"kept")])
state.stage(lost)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1))
for _ in range(200):
    try:
        state.settle([], lost)
    except NotedError as error:
        print(error)
    else:
        sys.exit("withdrew what cannot be from the disk")
if sys.argv[2] == "well again":
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    assert state.settle([], lost) == 2
    state.save_documents(lost)
os._exit(0)
"""


@pytest.mark.parametrize("then", ["killed", "well again"])
def test_what_a_full_disk_could_not_forget_does_not_hold_after_a_restart(path: Path, then: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_AND_KILLED, str(path), then],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(AGENT)},
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("full") == 200 or done.stdout.count("I/O") == 200, done.stdout
    for _ in range(2):
        state = Store.open(path)
        assert state.problems == []
        held = {document.key: document.value for document in state.load().documents}
        # Each slip is for once: a row of that name that is written later stays.
        assert held == ({"small": b"kept"} if then == "killed" else {"small": b"lost", "large": bytes(20_000)})
        state.close()


def test_a_slip_that_is_torn_names_nothing(path: Path) -> None:
    state = Store.open(path)
    state.save_documents([document("a", 1)])
    state.close()
    lock = Path(f"{path}.lock")
    assert lock.read_bytes() == bytes(4096)
    lock.write_bytes(bytes(100) + b"torn" + bytes(1000))
    state = Store.open(path)
    assert state.load().documents == [document("a", 1)]
    assert lock.read_bytes() == bytes(4096)
    state.close()


def test_more_slips_than_there_is_room_for_are_an_error(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "slips", os.O_RDWR | os.O_CREAT)
    held = slips.Slips(descriptor)
    held.add(("k", b"%d" % n) for n in range(128))
    with pytest.raises(OSError, match="at most 128"):
        held.add([("k", b"128")])
    assert held.names(("k", b"127")) and not held.names(("k", b"128"))
    held.discard([("k", b"0"), ("k", b"127")])
    held.add([("k", b"128")])
    again = slips.Slips(descriptor)
    assert [again.names(("k", b"%d" % n)) for n in (0, 1, 126, 127, 128)] == [False, True, True, False, True]
    os.close(descriptor)


def test_a_full_disk_fails_the_write_and_nothing_else(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(AGENT)},
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: ")
    state = Store.open(path)
    assert state.problems == []
    assert [entry.value for entry in state.load().documents] == [b"again"]


def test_a_repair_without_room_for_a_copy_leaves_no_half_of_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no hard links, each attempt would leave one more on a disk that is full."""
    populated(path)
    damaged = bytearray(path.read_bytes())
    damaged[60:64] = b"\0\0\0\7"
    path.write_bytes(damaged)

    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def no_room(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:4096])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        patch.setattr(shutil, "copy2", no_room)
        with pytest.raises(StoreError, match="No space left on device"):
            Store.open(path)
    assert asides(path) == []
    assert path.read_bytes() == damaged
    state = Store.open(path)
    assert "damaged header, user version" in state.problems[0]
    state.close()


def test_a_crash_in_the_middle_of_a_repair_repeats_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, _history = populated(path)
    damaged = bytearray(path.read_bytes())
    damaged[60:64] = b"\0\0\0\7"

    for step in ("_build", "_set_sidecars_aside", "_put_in_place"):
        for entry in path.parent.iterdir():
            entry.unlink()
        path.write_bytes(damaged)

        def crash(*_args: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(statefile, step, crash)
            with pytest.raises(KeyboardInterrupt):
                Store.open(path)
        state = Store.open(path)
        assert "damaged header, user version" in state.problems[0]
        assert set(state.load().known) == set(original.known)
        assert state.load().documents == original.documents
        state.close()


def test_a_value_the_file_cannot_keep_is_an_error(path: Path) -> None:
    state = Store.open(path)
    with pytest.raises(StoreError, match=r"state\.db"):
        state.save_documents([document("ok", 1), Document("k", Version(1, A), b"", comment="\udc80")])
    with pytest.raises(StoreError, match=r"state\.db"):
        state.save_nodes([Known(A, 2**63, 1, 1)])
    with pytest.raises(StoreError, match="NOT NULL"):
        state.save_documents([Document("k", Version(1, A), b"", comment=None)])  # type: ignore[arg-type]
    assert state.load() == sqlite.Snapshot()
    state.save_documents([document("ok", 1)])
    assert state.load().documents == [document("ok", 1)]


def test_the_state_of_another_cluster_is_refused_with_both_names(path: Path) -> None:
    first = Store.open(path, cluster="staging")
    first.save_documents([document("k", 1)])
    first.close()
    with pytest.raises(StoreError, match=r"expected the state of cluster 'production'.* got that of cluster 'staging'"):
        Store.open(path, cluster="production")
    again = Store.open(path, cluster="staging")
    assert [held.key for held in again.load().documents] == ["k"]
    again.close()


def test_a_state_without_a_cluster_takes_the_first_name(path: Path) -> None:
    Store.open(path).close()
    Store.open(path, cluster="a").close()
    with pytest.raises(StoreError, match="cluster 'a'"):
        Store.open(path, cluster="b")
