# SPDX-License-Identifier: MIT
"""Completion in real shells, and the manual page: both are made from the parser."""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_node_list import FakeNodeList

from tests.support.patience import patient
from tests.support.process import COMMAND, ROOT
from tests.support.served import served
from xdp_gossip.cli import manual
from xdp_gossip.cli.completion import DIRECTORIES, FILES, candidates, script
from xdp_gossip.cli.main import build_parser
from xdp_gossip.core.types import Address, Member, Record, State

pytestmark = pytest.mark.slow

#: Keys that shells have to quote, or that bash parts.
KEYS = ("app/a b'c", "app/one", "app/ti:me=1", "web/größe")
#: Zones of nodes. A shell cannot be given a control character, and a comma parts two zones.
ZONES = ("paris", "lyon", "paris", "lille", "evil\n\x1b[2J", "a,b")


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A stand-in agent with some documents."""
    node_list = FakeNodeList()
    for key in KEYS:
        node_list._write(key, b"x", "text", "alice", "", False)
    for number in range(300):
        node_list._write(f"many/{number % 3}/{number:03}", b"x", "text", "alice", "", False)
    record = Record("\x1b[2Jother", "", "0.1.0", "UDP")
    node_list.others.append(Member(Address("198.18.0.12", 8000), State.ALIVE, 1, 1, record, 0.5, 0, False))
    for number, zone in enumerate(ZONES):
        record = Record(f"n{number}", zone=zone)
        node_list.others.append(Member(Address("198.18.1.12", number + 1), State.DEAD, 1, 1, record, 0.5, 0, False))
    with served(node_list, tmp_path_factory.mktemp("completion")) as path:
        yield path


def values(*words: str) -> list[str]:
    """What the last word may become."""
    return [value for value, _text in candidates(words)]


def test_every_command_and_option_is_offered() -> None:
    def walk(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> None:
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        long = [name for action in shown for name in action.option_strings if name.startswith("--")]
        assert values(*words, "--") == long
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                assert values(*words, "") == list(action.choices)
                for name, inner in action.choices.items():
                    walk(inner, (*words, name))

    walk(build_parser(), ())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("pub",), ["publish"]),
        (("--json", "node", "s"), ["show", "set", "start", "stop"]),
        (("publish", "k", "--wait", ""), ["all", "majority"]),
        (("publish", "k", "--wait=m"), ["--wait=majority"]),
        (("publish", "--wait", "all", "k", "--fi"), ["--file"]),
        (("publish", "k", "--file", "x"), [FILES]),
        (("--socket=",), [FILES]),
        (("dataplane", "status", "--directory", ""), [DIRECTORIES]),
        (("watch", "app/", "--", "sh", ""), [FILES]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("frobnicate", ""), []),
        (("node", "frobnicate", "x"), []),
        (("members", ""), []),
        (("publish", "k", "-"), []),
        (("publish", "k", "--comment", ""), []),
        (("--endpoint", "http://127.0.0.1:1", "read", ""), []),
        (("--endpoint", "nonsense", "read", ""), []),
    ],
)
def test_what_may_stand_there(words: tuple[str, ...], found: list[str]) -> None:
    if words[-1] == "-":
        assert "--value" in values(*words)
    else:
        assert values(*words) == found


def test_keys_versions_and_addresses_come_from_the_agent(socket: str) -> None:
    at = ("--socket", socket)
    assert values(*at, "read", "app/") == list(KEYS[:3])
    assert values(*at, "documents", "") == ["app/", "many/", "web/"]
    assert values(*at, "read", "many/") == ["many/0/", "many/1/", "many/2/"]
    assert len(values(*at, "read", "many/1/")) == 100
    (version,) = values(*at, "rollback", "app/one", "")
    assert values(*at, "read", "app/one", "--version", version[:5]) == [version]
    assert candidates([*at, "node", "join", "x", "198.18.0."]) == [("198.18.0.12:8000", "\\x1b[2Jother")]


def test_zones_come_from_the_agent(socket: str) -> None:
    at = ("--socket", socket)
    assert candidates([*at, "members", "--zone", ""]) == [("lille", "1 node"), ("lyon", "1 node"), ("paris", "2 nodes")]
    assert values(*at, "members", "--zone=ly") == ["--zone=lyon"]
    assert values(*at, "members", "--zone", "paris", "--zone", "li") == ["lille"]
    assert values(*at, "members", "--zone", "paris,l") == ["paris,lille", "paris,lyon"]


@pytest.fixture
def home(tmp_path: Path, socket: str) -> dict[str, str]:
    """An environment in which ``xdp-gossip`` is found and asks the stand-in."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "xdp-gossip").symlink_to(COMMAND)
    return {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "XDP_GOSSIP_ENDPOINT": f"unix://{socket}",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
    }


#: What is typed before the tabulator, and the words that the command then gets.
LINES = [
    ("publ", ["publish"]),
    ("read app/o", ["read", "app/one"]),
    ("read app/ti:m", ["read", "app/ti:me=1"]),
    ("read web/gr", ["read", "web/größe"]),
    ("read app/a", ["read", "app/a b'c"]),
    ("documents man", ["documents", "many/"]),
    ("check-config conf", ["check-config", "config.yml"]),
    ("publish --wa", ["publish", "--wait"]),
]
#: How each shell is started, and how it takes the script.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {script}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source {script}"),
    "fish": (["fish", "--no-config", "-i"], "source {script}"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes_the_line(shell: str, home: dict[str, str], tmp_path: Path) -> None:
    assert shutil.which(shell), f"{shell} is missing: make packages-test installs it"
    words, start = SHELLS[shell]
    (tmp_path / "config.yml").write_text("")
    (tmp_path / "script").write_text(script(shell))
    # The words that the shell hands over in the end are written down by what it takes for the command.
    (tmp_path / "bin" / "xdp-gossip").unlink()
    (tmp_path / "bin" / "xdp-gossip").write_text(
        f'#!/bin/sh\n[ "$1" = completion ] && exec {COMMAND} "$@"\nprintf "%s\\n" "$@" END >>{tmp_path}/words\n'
    )
    (tmp_path / "bin" / "xdp-gossip").chmod(0o755)
    (tmp_path / "words").write_text("")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=home,
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    drawn = b""

    def until(done: Callable[[], object], what: str) -> None:
        nonlocal drawn
        deadline = time.monotonic() + patient(30)
        while not done():
            assert time.monotonic() < deadline, (what, drawn[-2000:])
            if select.select([ours], [], [], 0.2)[0]:
                drawn += os.read(ours, 65536)

    try:
        os.write(ours, f"{start.format(script=tmp_path / 'script')}; touch ready\n".encode())
        until((tmp_path / "ready").exists, "start")
        for count, (line, expected) in enumerate(LINES, 1):
            # Enter is taken only once the completion is there: the shell reads keys one after the other.
            os.write(ours, f"xdp-gossip {line}\t\n".encode())
            until(lambda: (tmp_path / "words").read_text().count("END\n") >= count, line)  # noqa: B023
            found = (tmp_path / "words").read_text().split("END\n")[count - 1]
            assert found.splitlines() == expected, (line, drawn[-2000:])
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_scripts_are_sound() -> None:
    for shell in SHELLS:
        done = subprocess.run([shell, "-n"], input=script(shell), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_manual_page_has_everything_and_is_sound(tmp_path: Path) -> None:
    page = tmp_path / "xdp-gossip.1"
    page.write_text(manual.page())
    assert shutil.which("mandoc"), "mandoc is missing: make packages-test installs it"
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "style", page], capture_output=True, text=True, check=False)
    # No date: the page is the same whenever it is made.
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []
    shown = subprocess.run(
        ["mandoc", "-T", "utf8", "-O", "width=200", page], capture_output=True, text=True, check=True
    ).stdout
    text = re.sub(".\x08", "", shown)

    def walk(parser: Any) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    walk(inner)
            elif action.help != argparse.SUPPRESS:
                assert all(name in text for name in action.option_strings)
        for example in parser.examples:
            assert example in text or any(isinstance(one, argparse._SubParsersAction) for one in parser._actions)

    walk(build_parser())
    assert "EXIT STATUS" in text and "'hello, world'" in text


def test_a_release_has_them_whatever_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("build_release", ROOT / "agent" / "build_release.py")
    assert spec is not None and spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    found = []
    for columns in ("30", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        found.append(builder.generated(ROOT))
    assert found[0] == found[1]
    assert set(found[0]) == {
        "share/man/man1/xdp-gossip.1",
        "share/bash-completion/completions/xdp-gossip",
        "share/zsh/site-functions/_xdp-gossip",
        "share/fish/vendor_completions.d/xdp-gossip.fish",
    }
