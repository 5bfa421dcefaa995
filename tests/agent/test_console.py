# SPDX-License-Identifier: MIT
"""The console lines: those of PekoNode's README, to the character."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xdp_gossip.core.events import (
    DocumentChanged,
    Event,
    HeartbeatSent,
    Joined,
    MemberChanged,
    Paused,
    Resumed,
    SwapAnswered,
    SwapRequested,
    Warned,
)
from xdp_gossip.core.types import Document, Member, Node, State, Version
from xdp_gossip.node.console import format_event

AGENT = Path(__file__).resolve().parents[2] / "agent"
A = Node("0.0.0.0", 8000, "A-server", "A")
B = Node("0.0.0.0", 8001, "B-server", "B")
C = Node("0.0.0.0", 8002, "C-server", "C")


@pytest.mark.parametrize(
    ("event", "when", "line"),
    [
        (Joined(A), "2022-05-19 14:51:23", "2022-05-19 14:51:23 [[Join]: {0.0.0.0 8000 A-server A}]"),
        (
            HeartbeatSent(A),
            "2022-05-19 14:52:23",
            "2022-05-19 14:52:23 [[Listen]: 0.0.0.0:8000 / [Node list]: "
            "[{0.0.0.0 8000 A-server A} {0.0.0.0 8001 B-server B}]]",
        ),
        (Paused(C), "2022-05-19 14:52:06", "2022-05-19 14:52:06 [[Stop]: {0.0.0.0 8002 C-server C}]"),
        (Resumed(C), "2022-05-19 14:52:36", "2022-05-19 14:52:36 [[Start]: {0.0.0.0 8002 C-server C}]"),
        (
            SwapRequested(C.address, A.address),
            "2022-05-20 13:12:26",
            "2022-05-20 13:12:26 [[Swap Request]: 0.0.0.0:8002 -> 0.0.0.0:8000]",
        ),
        (
            SwapAnswered(C.address, A.address),
            "2022-05-20 13:12:26",
            "2022-05-20 13:12:26 [[Swap Response]: 0.0.0.0:8002 <- 0.0.0.0:8000]",
        ),
    ],
)
def test_the_lines_of_the_seed(event: Event, when: str, line: str) -> None:
    assert format_event(event, [A, B], datetime.datetime.fromisoformat(when)) == line


WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)


def test_publish_names_the_document_and_not_its_content() -> None:
    document = Document("default", Version(1, A.address), b"secret")
    line = format_event(DocumentChanged(document, None, local=True), [A, B], WHEN)
    assert line == "2026-01-02 03:04:05 [[Publish]: {0.0.0.0 8000 A-server A} / [Metadata]: default (6 bytes)]"
    gone = Document("default", Version(2, A.address), deleted=True)
    line = format_event(DocumentChanged(gone, document, local=True), [A, B], WHEN)
    assert line is not None
    assert line.endswith("default (deleted)]")


def test_what_the_seed_does_not_print_is_not_printed() -> None:
    document = Document("default", Version(1, B.address), b"x")
    member = Member(B.address, State.DEAD, 1, 1, None, 9.0, 0)
    for event in (DocumentChanged(document, None, local=False), MemberChanged(member, State.SUSPECT), Warned("x", "y")):
        assert format_event(event, [A, B], WHEN) is None


def test_the_listen_address_is_the_one_listened_on() -> None:
    node = Node("198.18.0.11", 8000, "a")
    line = format_event(HeartbeatSent(node), [node], WHEN, "0.0.0.0")
    assert line == "2026-01-02 03:04:05 [[Listen]: 0.0.0.0:8000 / [Node list]: [{198.18.0.11 8000 a }]]"
    line = format_event(HeartbeatSent(Node("fd00::1", 8000)), [], WHEN)
    assert line == "2026-01-02 03:04:05 [[Listen]: [fd00::1]:8000 / [Node list]: []]"


def test_a_name_cannot_forge_a_line_or_colour_the_terminal() -> None:
    evil = Node("198.18.0.66", 8000, "x\n2026-01-01 00:00:00 [[Stop]: {a}]", "\x1b[31m\u2028")
    line = format_event(HeartbeatSent(evil), [evil], WHEN)
    assert line is not None
    assert line.isprintable()
    assert "x\\n2026" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "reader", "told"),
    [({"PYTHONIOENCODING": "ascii"}, "cat", r"caf\xe9"), ({}, "true", "")],
)
def test_a_console_that_fails(tmp_path: Path, environment: dict[str, str], reader: str, told: str) -> None:
    """Letters that it does not have, or a pipe that nobody reads: what is told of happens, and watchers see it all."""
    number = os.getpid() % 250 + 1  # these tests run in several processes at once
    code = (
        "import os, sys\n"
        "from xdp_gossip import Node, NodeList, Write\n"
        f"node_list = NodeList(listen_addr='127.0.9.{number}', is_print=True)\n"
        f"node_list.new(Node('127.0.9.{number}', 18_351, 'café'))\n"
        "node_list.join()\n"
        "changes = node_list.watch()\n"
        "sys.stdin.readline()\n"
        "node_list.publish_many([Write(key, b'v') for key in ('a', 'b', 'c')])\n"
        "seen = {next(changes).document.key for _ in range(3)}\n"
        "node_list.close()\n"
        "open(sys.argv[1], 'w').write(' '.join(sorted(seen)))\n"
        "os._exit(0)\n"
    )
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    result = tmp_path / "seen"
    shell = f"{{ sleep 1; echo; }} | {sys.executable} {tmp_path / 'program.py'} {result} | {reader}"
    done = subprocess.run(
        ["bash", "-c", shell],
        env={**os.environ, "PYTHONPATH": str(AGENT), "PYTHONUTF8": "0", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.exists(), done.stderr
    assert result.read_text() == "a b c"
    assert told in done.stdout
