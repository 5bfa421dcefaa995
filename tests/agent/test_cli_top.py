# SPDX-License-Identifier: MIT
"""``top`` on a real terminal: what is wrong first, what does not fit, and a terminal that is given back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_node_list import LOCAL, Convergence, FakeNodeList

from tests.support.patience import patient
from tests.support.process import COMMAND
from tests.support.served import served
from xdp_gossip.cli.livescreen import screen
from xdp_gossip.cli.liveview import DOCUMENTS, View
from xdp_gossip.cli.text import width
from xdp_gossip.core.types import Address, Member, Record, State

NODES, MANY = 1000, 10_000
SUSPECT, DEAD = (3, 900), (500,)


class Fleet(FakeNodeList):
    """1,000 nodes of which three are in trouble, and 10,000 documents. Counts what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[int | None] = []
        for number in range(NODES - 1):
            state = State.SUSPECT if number in SUSPECT else State.DEAD if number in DEAD else State.ALIVE
            record = Record(f"host{number:04}", "\x1b[2Jrack", "0.1.0", "UDP")
            address = Address(f"198.18.{1 + number // 250}.{number % 250}", 8000)
            self.others.append(Member(address, state, 1, 1, record, 0.5, 0, False))
        for number in range(MANY):
            self._write(f"team/{number:05}/{'long-name-' * 9}", b"x", "text", "alice", "", False)

    def documents(self, prefix: str = "", after: str = "", limit: int | None = None) -> list[Any]:
        """As ever."""
        if prefix or after or limit:
            self.listed.append(limit)
        return super().documents(prefix, after, limit)

    async def convergence(self, *args: object, **question: object) -> Convergence:
        """All hold it."""
        return Convergence(members=NODES, confirmed=NODES)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Fleet]]:
    """The API of such a fleet."""
    found = Fleet()
    with served(found, tmp_path_factory.mktemp("top")) as path:
        yield path, found


class Top:
    """A running top, and what it has drawn."""

    def __init__(self, socket: str, columns: int, lines: int, session: bool) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.resize(columns, lines)
        self.drawn = b""
        self.process = subprocess.Popen(
            [COMMAND, "--socket", socket, "top", "--interval", "0.1"],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=session,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if session else (lambda: os.setpgid(0, 0)),
        )

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; the kernel sends SIGWINCH."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, wanted: Callable[[bytes], object]) -> bytes:
        """What it has drawn since it was read last, once that is as wanted."""
        deadline = time.monotonic() + patient(30)
        while not wanted(self.drawn):
            assert time.monotonic() < deadline, self.drawn[-3000:]
            if select.select([self.ours], [], [], 0.2)[0]:
                self.drawn += os.read(self.ours, 1 << 20)
        found, self.drawn = self.drawn, b""
        return found

    def screen(self) -> list[str]:
        """A whole screen, without colours."""
        text = self.read(lambda drawn: drawn.count(b"\x1b[J") >= 1).decode()
        whole = text[: text.index("\x1b[J")].rpartition("\x1b[H")[2]
        return [line.rstrip("\r") for line in re.sub(r"\x1b\[[0-9;]*[mK]", "", whole).split("\n")]

    def ends(self) -> int:
        """Its exit code; the terminal has to be as before."""
        if self.process.poll() is None:
            self.read(lambda drawn: self.process.poll() is not None or b"\x1b[?1049l" in drawn)
        status = self.process.wait(patient(30))
        assert termios.tcgetattr(self.theirs) == self.before
        return status


@contextlib.contextmanager
def top(socket: str, columns: int = 80, lines: int = 24, *, session: bool = True) -> Iterator[Top]:
    """It runs until the block ends.

    Without a ``session`` of its own the terminal sends it no signals; but it can be stopped, as no orphan can.
    """
    running = Top(socket, columns, lines, session)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        os.close(running.ours)
        os.close(running.theirs)


def taken(drawn: bytes) -> bool:
    """Whether the terminal was taken and something drawn."""
    return b"\x1b[?1049h" in drawn and b"\x1b[J" in drawn


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 15), (20, 5), (200, 60)])
def test_trouble_comes_first_and_what_does_not_fit_is_said(fleet: tuple[str, Fleet], columns: int, lines: int) -> None:
    with top(fleet[0], columns, lines) as running:
        shown = running.screen()
        os.write(running.ours, b"q")
        assert running.ends() == 0
    assert len(shown) <= lines and max(map(width, shown)) <= columns
    assert shown[-1] == "q quits"
    assert shown[1].startswith("wrong: 2 s")
    if lines >= 15:
        rows = [line for line in shown if line.startswith("host")]
        assert [row.split()[:2] for row in rows[1:4]] == [
            ["host0003", "suspect"],
            ["host0900", "suspect"],
            ["host0500", "dead"],
        ]
        left = next(int(line.split()[1]) for line in shown if line.endswith("more nodes"))
        assert left + len(rows) - 1 == NODES
        assert any(re.fullmatch(r"(… )?[\d,]+ (more )?documents", line) for line in shown)
        assert re.search(r"\d\d:\d\d:\d\dZ$", shown[0])
    assert not any("\x1b" in line for line in shown)


@pytest.mark.slow
def test_a_look_is_cheap_however_large_the_fleet(fleet: tuple[str, Fleet]) -> None:
    path, node_list = fleet
    node_list.listed.clear()
    with top(path) as running:
        for _ in range(5):
            running.screen()
        before = len(node_list.listed)
        # By the API: the node list belongs to the thread that serves it.
        subprocess.run([COMMAND, "--socket", path, "publish", "team/new", "--value", "x"], check=True)
        running.read(lambda drawn: b"team/new" in drawn)
        for _ in range(5):
            running.screen()
        os.write(running.ours, b"q")
        assert running.ends() == 0
    # The list was read once, page by page; a publish was told by the watch.
    assert before == len(node_list.listed) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (b"q", 0),
        (b"Q", 0),
        (b"\x03", 130),
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
    ],
)
def test_the_terminal_is_given_back(fleet: tuple[str, Fleet], end: bytes | signal.Signals, status: int) -> None:
    with top(fleet[0]) as running:
        running.read(taken)
        if isinstance(end, bytes):
            os.write(running.ours, end)
        else:
            running.process.send_signal(end)
        assert running.ends() == status


@pytest.mark.slow
def test_it_can_be_stopped_continued_and_resized(fleet: tuple[str, Fleet]) -> None:
    with top(fleet[0]) as running:
        running.read(taken)
        running.resize(60, 12)
        while len(running.screen()) > 12:
            pass
    with top(fleet[0], session=False) as running:
        running.read(taken)
        os.write(running.ours, b"\x1b[A\x1bOq")  # keys that are not q
        running.process.send_signal(signal.SIGTSTP)
        running.read(lambda drawn: b"\x1b[?1049l" in drawn)
        os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
        assert termios.tcgetattr(running.theirs) == running.before
        running.process.send_signal(signal.SIGCONT)
        running.read(taken)
        os.write(running.ours, b"q")
        assert running.ends() == 0


def view(files: list[dict[str, Any]], nodes: int = 1) -> View:
    """What top knows of a node with these rendered files."""
    found = View()
    node_list = FakeNodeList()
    found.status = node_list.status()
    found.status["members"]["alive"] = nodes
    found.nodes = [found.status["node"]]
    found.files = files
    return found


def file(name: str, state: str, error: str | None = None, drift: str | None = None) -> dict[str, Any]:
    """A rendered file as the API has it."""
    return {"name": name, "path": f"/etc/{name}", "state": state, "error": error, "drift": drift}


def test_failed_and_drifted_files_stand_before_the_others() -> None:
    files = [file(f"fine{number}", "applied") for number in range(30)]
    files += [file("bent", "applied", drift="changed by hand"), file("broken", "failed", error="no\nway")]
    shown = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in screen(view(files), 80, 24)]
    assert shown[1] == "wrong: 1 failed file, 1 drifted file"
    at = next(number for number, line in enumerate(shown) if line.startswith("RENDERED FILE"))
    assert shown[at + 1].split()[:3] == ["broken", "failed", "no\\nway"]
    assert shown[at + 2].split()[:2] == ["bent", "drifted"]
    assert any(line.endswith("more rendered files") for line in shown)
    assert len(shown) <= 24


@pytest.mark.parametrize(("columns", "shown"), [(200, True), (80, True), (40, False)])
def test_zones_have_a_column_where_there_is_room(columns: int, shown: bool) -> None:
    found = view([])
    here = found.nodes[0]
    before = screen(found, columns, 24)
    assert "ZONE" not in str(before)
    found.nodes = [{**here, "name": "host2", "state": "dead", "local": False, "zone": "paris"}, here]
    text = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in screen(found, columns, 24)]
    head = next(number for number, line in enumerate(text) if line.startswith("NAME"))
    assert ("ZONE" in text[head].split()) is shown
    assert text[head].split()[:4] == ["NAME", "STATE", "HEARD", "ADDRESS"]
    if shown:
        place = text[head].index("ZONE")
        assert [line[place:].split()[0] for line in text[head + 1 : head + 3]] == ["paris", "-"]
    assert max(map(width, text)) <= columns


@pytest.mark.parametrize("lines", range(1, 30))
@pytest.mark.parametrize("columns", [1, 2, 10, 39])
def test_no_terminal_is_too_small(columns: int, lines: int) -> None:
    found = view([file("a", "failed", error="x" * 99)], nodes=50)
    found.away = "no answer " * 9
    shown = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in screen(found, columns, lines)]
    assert len(shown) <= lines and max(map(width, shown)) <= columns


def test_changes_keep_the_newest_documents() -> None:
    found = View()
    documents = [
        {"key": f"k{number}", "version": f"{number:016x}@{LOCAL}", "deleted": False} for number in range(DOCUMENTS + 3)
    ]
    found.note(documents)
    assert found.documents[0]["key"] == f"k{DOCUMENTS + 2}"
    assert len(found.documents) == DOCUMENTS
    found.note([{**documents[-1], "deleted": True}])
    assert found.documents[0]["key"] == f"k{DOCUMENTS + 1}"
