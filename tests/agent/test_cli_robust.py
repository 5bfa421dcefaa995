# SPDX-License-Identifier: MIT
"""Each command against whatever arguments, streams and terminals it may meet: an error is one line, never a traceback.

The commands and their arguments are found from the parser, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import pty
import re
import signal
import socket as socketmodule
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_node_list import Convergence, FakeNodeList

from tests.support.patience import patient
from tests.support.process import COMMAND
from tests.support.served import served
from xdp_gossip.cli.main import build_parser, main
from xdp_gossip.core.types import Record

pytestmark = pytest.mark.slow

#: What a command may end with, as docs/cli.md lists it.
STATUSES = {0, 1, 2, 3, 4, 141}
#: Not this host's: every command is to work without touching it.
NOWHERE = "/nowhere/agent.yml"


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Each command that does something, by its words, with its parser."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield words, parser
    for action in inner:
        for name, choice in action.choices.items():
            yield from commands(choice, (*words, name))


COMMANDS = {" ".join(words): parser for words, parser in commands(build_parser())}
#: Values for arguments that a command cannot do without, by metavar.
FINE = {
    "KEY": "some/key",
    "VERSION": "01a203e394af0000@198.18.0.11:8000",
    "ADDRESS:PORT": "198.18.0.12:8000",
    "ID": "0123456789abcdef",
    "NODE": "198.18.0.12:8000",
    "OUT": "/nowhere/programs.xgp",
    "SHELL": "bash",
}
#: Options that a command needs to end by itself, or at all; on this host only things that are not there.
NEEDED = {
    "publish": ("--value", "x"),
    "node set": ("--name", "x"),
    "watch": ("--timeout", "0"),
    "agent": ("--config", NOWHERE),
    "files-helper": ("--config", NOWHERE),
    "check-config": (NOWHERE,),
    "doctor": ("--config", NOWHERE),
    "dataplane up": ("--config", NOWHERE),
    "dataplane down": ("--directory", "/nowhere"),
    "dataplane status": ("--directory", "/nowhere"),
    "verify": ("--timeout", "0"),
}


def fine(name: str) -> list[str]:
    """A command line of this command that can be parsed, and harms nothing."""
    places = [one for one in COMMANDS[name]._actions if not one.option_strings and one.nargs not in ("?", "*")]
    return [*name.split(), *(FINE[str(one.metavar)] for one in places), *NEEDED.get(name, ())]


def lines_with(value: str) -> Iterator[tuple[str, list[str]]]:
    """For each place and option that takes a value, a command line in which it has this one."""
    for name, parser in COMMANDS.items():
        for action in parser._actions:
            if action.nargs == 0 or action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
                continue
            words = fine(name)
            if action.option_strings:
                yield f"{name} {action.option_strings[0]}", [*words, action.option_strings[0], value]
            elif action.nargs in ("?", "*"):
                yield f"{name} {action.metavar}", [*words, value]
            else:
                at = words.index(FINE[str(action.metavar)])
                yield f"{name} {action.metavar}", [*words[:at], value, *words[at + 1 :]]


#: What may stand in an argument: bytes that are no UTF-8, nothing, more than fits anywhere, an order to the terminal.
VALUES = ("\udcff\udcfe", "", "x" * (1 << 20), "\x1b[2J\n")


#: Commands whose errors begin with the name of a file, or are lines of a log.
FREE = ("agent", "check-config", "dataplane up", "files-helper")
#: What may stand before an error.
NOTICES = re.compile("xdp-gossip: .*; going on with the default directory$")


class Agent(FakeNodeList):
    """One that knows of files, too."""

    async def convergence(self, *args: object, **question: object) -> Convergence:
        """As ever."""
        return Convergence(results=[])


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a stand-in agent, whose node and documents have names that nobody should have to print."""
    logging.disable()  # of this process: what a command logs would be seen
    node_list = Agent()
    node_list.record = Record("\x1b[2Jname\u202e\u200b", "größer \x07", "0.1.0", "UDP")
    for number in range(60):
        node_list._write(f"some/key {number:03} 日本語", b"x" * number, "text", "\x1b[31mred", "", False)
    with served(node_list, tmp_path_factory.mktemp("robust")) as path:
        yield path
    logging.disable(logging.NOTSET)


def judge(what: str, status: int, out: bytes, err: bytes, *, as_json: bool = False) -> None:
    """No traceback, a status that is documented, and an error of one line; no control characters anywhere."""
    told = (what, status, out[:2000], err[:2000])
    assert b"Traceback" not in err and b"Exception ignored" not in err and b"internal error" not in err, told
    assert b"XDP_GOSSIP_TRACEBACK" not in err, told
    assert status in STATUSES, told
    text = err.decode()
    if as_json and not what.startswith("files-helper"):
        for line in text.splitlines():
            (found,) = json.loads(line).items()
            assert found[0] in ("error", "notice") and found[1]["message"], told
            assert found[0] == "notice" or re.fullmatch("[a-z_]+", found[1]["code"]), told
    elif text:
        first, *more = [line for line in text.splitlines() if not NOTICES.match(line)]
        assert text.endswith("\n") and all(line.startswith(("  -> ", "  | ")) for line in more), told
        assert first.startswith("xdp-gossip: ") or what.startswith(FREE), told
        assert len(text) < 2000, told
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", err), told
    assert err or status != 2 or what.startswith("files-helper"), told


def in_process(words: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> tuple[int, bytes, bytes]:
    """A command in this process, for which arguments may be as long as they like."""
    status = main(words)
    sys.stdout.flush()
    out, err = capfdbinary.readouterr()
    return status, out, err


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("value", VALUES, ids=["bytes", "empty", "1MiB", "escapes"])
def test_whatever_stands_in_an_argument(
    socket: str,
    value: str,
    as_json: bool,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # some of them are names of files to be written
    monkeypatch.setattr(sys, "stdin", open(os.devnull))
    for what, words in lines_with(value):
        common = (["--json"] if as_json else []) + (
            [] if {"--socket", "--endpoint"} & set(words) else ["--socket", socket]
        )
        service = words[0] in ("agent", "files-helper")
        status, out, err = in_process([*words, *common] if service else [*common, *words], capfdbinary)
        judge(f"{what} {value[:10]!r}", status, out, err, as_json=as_json)


def run(words: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    """A command as a process."""
    settings = {"capture_output": True, "stdin": subprocess.DEVNULL, "timeout": patient(60), **options}
    return subprocess.run([COMMAND, *words], check=False, **settings)  # type: ignore[call-overload,no-any-return]


def closed(*numbers: int) -> Callable[[], None]:
    """What closes descriptors of a process before it starts."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_its_streams_are(name: str, socket: str) -> None:
    words = [*fine(name), "--socket", socket]
    usual = run(words)
    judge(name, usual.returncode, usual.stdout, usual.stderr)
    found = run([*words, "--json"])
    judge(f"{name} --json", found.returncode, found.stdout, found.stderr, as_json=True)
    if found.stdout and name != "completion":
        json.loads(found.stdout)

    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        done = run(words, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    judge(f"{name} into a closed pipe", done.returncode, b"", done.stderr)
    assert done.returncode == (141 if usual.stdout else usual.returncode)
    assert usual.stderr or not done.stderr

    with open("/dev/full", "wb") as full:
        done = run(words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        judge(f"{name} on a full disk", done.returncode, b"", done.stderr)
        assert not usual.stdout or (done.returncode == 1 and b"No space left" in done.stderr)
        done = run(words, capture_output=False, stdout=subprocess.PIPE, stderr=full)
        assert done.returncode == usual.returncode and bool(done.stdout) == bool(usual.stdout)

    done = run(words, preexec_fn=closed(1))
    judge(f"{name} without stdout", done.returncode, b"", done.stderr)
    assert not usual.stdout or (done.returncode == 1 and b"Bad file descriptor" in done.stderr)
    done = run(words, preexec_fn=closed(0, 1, 2))
    assert done.returncode in STATUSES and not done.stdout and not done.stderr

    # The command's own interpreter ignores PYTHONIOENCODING; a locale it takes.
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run(words, env=environment)
    judge(f"{name} in ASCII", done.returncode, done.stdout, done.stderr)
    assert (done.returncode, bool(done.stdout)) == (usual.returncode, bool(usual.stdout))


#: What somebody else may answer, and what an agent may whose fleet has odd names.
ANSWERS = {
    "a list": b"[]",
    "an object": b"{}",
    "a number": b"7",
    "null": b"null",
    "other types": b'{"nodes": 1, "documents": {"a": []}, "versions": [null], "members": [], "error": []}',
    "depth": b"[" * 100_000,
    "surrogates": b'{"error": {"code": "x", "message": "\\ud800 \\u001b[2J"}}',
    "HTML": b"<html>",
    "bytes": b"\xff\x00",
    "nothing": b"",
}


@pytest.mark.parametrize(
    ("status", "answer"),
    [*((200, answer) for answer in ANSWERS.values()), (500, ANSWERS["surrogates"]), (500, ANSWERS["HTML"])],
    ids=[*ANSWERS, "an error", "another error"],
)
def test_whatever_is_answered(
    answer: bytes,
    status: int,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    head = f"HTTP/1.1 {status} Some\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n"
    stop = threading.Event()
    listener = socketmodule.socket(socketmodule.AF_UNIX)
    listener.bind("other.sock")
    listener.listen()
    listener.settimeout(0.2)

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connection, _peer = listener.accept()
                with connection:
                    connection.settimeout(5)
                    connection.recv(65536)
                    connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for name in COMMANDS:
            for more in ([], ["--json"]) if answer == ANSWERS["surrogates"] else ([],):
                found, out, err = in_process([*fine(name), "--socket", "other.sock", *more], capfdbinary)
                told = (name, found, out[:500], err[:500])
                assert found in STATUSES and b"Traceback" not in err, told
                assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", err), told
                assert name == "files-helper" or not more or all(map(json.loads, err.decode().splitlines())), told
                assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", out) or name == "read", told
    finally:
        stop.set()
        thread.join()
        listener.close()


@contextlib.contextmanager
def terminal(columns: int, lines: int = 24) -> Iterator[tuple[int, int]]:
    """Both ends of a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        for number in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(number)


def everything(ours: int) -> bytes:
    """What is written to a terminal until all have closed it."""
    found = b""
    with contextlib.suppress(OSError):  # EIO: nobody has it any more
        while piece := os.read(ours, 65536):
            found += piece
    return found


#: Escape sequences of colours: what a command may send to a terminal that it does not take over.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_narrow_terminal_and_one_that_closes(name: str, socket: str) -> None:
    words = [*fine(name), "--socket", socket, *(("--once",) if name == "top" else ())]
    with terminal(40) as (ours, theirs):
        process = subprocess.Popen([COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        text = COLOUR.sub("", everything(ours).decode())
        assert process.wait(patient(60)) in STATUSES
    assert "Traceback" not in text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u202e]", text)

    # Closed at once: SIGHUP where the terminal is the controlling one, else EIO.
    for session in (True, False):
        with terminal(40) as (ours, theirs):
            process = subprocess.Popen(
                [COMMAND, *words],
                stdin=theirs,
                stdout=theirs,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if session else None,
            )
            os.close(theirs)
            os.close(ours)
            _out, err = process.communicate(timeout=patient(60))
        assert b"Traceback" not in err and b"Exception ignored" not in err
        assert process.returncode in STATUSES or -process.returncode == signal.SIGHUP


@pytest.mark.parametrize("name", ["", "node", "dataplane", *COMMANDS])
def test_the_help_says_what_it_does_with_examples(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = build_parser()
    for word in name.split():
        (inner,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        parser = inner.choices[word]
    assert parser.description and parser.description.endswith(".")
    assert "examples:\n  " in str(parser.epilog)
    assert not name or (parser.examples and all(f"xdp-gossip {name}" in example for example in parser.examples))
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    for action in shown:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, (name, action)
            assert action.nargs == 0 or str(action.metavar) == str(action.metavar).upper() != "NONE", (name, action)
    monkeypatch.setenv("COLUMNS", "40")
    assert main([*name.split(), "--help"]) == 0
    for line in capsys.readouterr().out.splitlines():
        # A word that is longer than its column cannot be broken.
        assert len(line) <= 40 or len(line.strip().rstrip("\\").split()) == 1, line


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("watch", "completion")])
def test_examples_can_be_parsed(name: str) -> None:
    import shlex

    for example in COMMANDS[name].examples:
        words = shlex.split(example.split("|")[-1].split(">")[0])
        assert words[0] == "xdp-gossip"
        assert callable(build_parser().parse_args(words[1:]).handler)


@pytest.mark.parametrize(
    ("words", "code", "status"),
    [
        (["frobnicate"], "usage", 2),
        ([], "usage", 2),
        (["publish", "a"], "usage", 2),
        (["publish", "a", "--value", "x", "--wait", "most"], "usage", 2),
        (["members", "--interval", "1"], "usage", 2),
        (["--socket", "/nowhere/api.sock", "members"], "unreachable", 3),
        (["--endpoint", "http://127.0.0.1:99999", "members"], "usage", 2),
        (["read", "none"], "document_not_found", 1),
        (["publish", "some/key 000 日本語", "--value", "y", "--if-absent"], "version_mismatch", 4),
        (["check-config", NOWHERE], "configuration", 2),
        (["top", "--interval", "nan"], "usage", 2),
        (["verify", "--timeout", "-1"], "usage", 2),
        (["publish", "a", "--file", ""], "usage", 2),
    ],
)
def test_errors_of_json_are_json(
    words: list[str], code: str, status: int, socket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [] if {"--socket", "--endpoint"} & set(words) else ["--socket", socket]
    assert main(["--json", *common, *words]) == status
    out, err = capsys.readouterr()
    assert json.loads(err)["error"]["code"] == code
    assert code == "configuration" or out == ""
