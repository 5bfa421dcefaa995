# SPDX-License-Identifier: MIT
"""``watch -- COMMAND`` against real agents: bursts, failures, ends, and an agent that goes away meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import agent
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import COMMAND, AgentProcess, command

pytestmark = pytest.mark.slow

#: Notes what it was given, ends when nothing holds it, and as the document says.
NOTE = """
import json, os, sys, time
def tell(name, what):
    with open(sys.argv[1] + name, "a") as file:
        file.write(json.dumps(what) + "\\n")
tell(".order", "begin")
while os.path.exists(sys.argv[1] + ".hold"):
    time.sleep(0.02)
names = ("XDP_GOSSIP_KEY", "XDP_GOSSIP_EVENT", "XDP_GOSSIP_VERSION")
tell(".order", "end")
tell("", [json.load(sys.stdin), [os.environ[name] for name in names], sys.argv[2:]])
sys.exit(3 if os.environ["XDP_GOSSIP_KEY"].endswith("bad") else 0)
"""


@pytest.fixture(name="running")
def fixture_running(tmp_path: Path) -> Iterator[AgentProcess]:
    with agent(tmp_path / "a", free_port()) as made:
        yield made


@contextlib.contextmanager
def watching(running: AgentProcess, tmp_path: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A watch that has begun."""
    (tmp_path / "note.py").write_text(NOTE)
    process = subprocess.Popen(
        [COMMAND, "watch", "--socket", str(running.socket), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell that runs the tests in the background has them ignore SIGINT, nohup SIGHUP; they would pass that on.
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patient(60)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def notes(tmp_path: Path, least: int, running: AgentProcess, key: str = "app/again") -> list[Any]:
    """The runs so far, once there are ``least``; publishes until the watch has begun and sees it."""
    deadline = time.monotonic() + patient(60)
    while True:
        with contextlib.suppress(FileNotFoundError):
            found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
            if len(found) >= least:
                return found
        assert time.monotonic() < deadline, "the command was not run"
        if key:
            running.json("publish", key, "--value", str(time.time()))
        time.sleep(0.1)


def test_a_burst_is_one_run_and_runs_do_not_overlap(running: AgentProcess, tmp_path: Path) -> None:
    note = (sys.executable, str(tmp_path / "note.py"), str(tmp_path / "log"), "--flag", "--", "x")
    hold, order = tmp_path / "log.hold", tmp_path / "log.order"
    hold.touch()
    since = str(running.json("members")["revision"])
    running.json("publish", "app/first", "--value", "x")
    with watching(running, tmp_path, "app/", "--since", since, "--", *note) as process:
        wait_for(order.exists)
        # All of these come while the first run goes on.
        for number in range(8):
            running.json("publish", f"app/{number}", "--value", "x")
        running.json("publish", "other/key", "--value", "x")
        version = running.json("publish", "app/last", "--value", "x")["version"]
        hold.unlink()
        first, second = notes(tmp_path, 2, running, "")
        assert [change["document"]["key"] for change in first[0]] == ["app/first"]
        keys = [change["document"]["key"] for change in second[0]]
        assert keys == [*(f"app/{number}" for number in range(8)), "app/last"]
        assert second[1] == ["app/last", "published", version]
        assert second[2] == ["--flag", "--", "x"]
        assert [json.loads(line) for line in order.read_text().splitlines()] == ["begin", "end"] * 2
        assert process.poll() is None


def test_a_run_that_fails_is_told_of_and_the_watch_goes_on(running: AgentProcess, tmp_path: Path) -> None:
    note = (sys.executable, str(tmp_path / "note.py"), str(tmp_path / "log"))
    since = str(running.json("members")["revision"])
    running.json("publish", "app/bad", "--value", "1")
    with watching(running, tmp_path, "app/", "--since", since, "--count", "2", "--", *note) as process:
        notes(tmp_path, 1, running, "")
        running.json("publish", "app/good", "--value", "1")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.decode() == "xdp-gossip: run 1 of the command: exit code 3 (1 failed)\n"
    assert len(notes(tmp_path, 2, running, "")) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_ends_with_the_watch(running: AgentProcess, tmp_path: Path, number: signal.Signals) -> None:
    since = str(running.json("members")["revision"])
    running.json("publish", "app/x", "--value", "1")
    script = f"echo $$ > {tmp_path}/pid; sleep 60 & echo $! > {tmp_path}/child; wait"
    with watching(running, tmp_path, "--since", since, "--documents", "--", "sh", "-c", script) as process:
        deadline = time.monotonic() + patient(60)
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(patient(60)) == 128 + number
        for name in ("pid", "child"):
            pid = int((tmp_path / name).read_text())
            deadline = time.monotonic() + patient(60)
            while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
                assert time.monotonic() < deadline, f"{name} lives on"
                time.sleep(0.05)


def test_an_agent_that_restarts_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    note = (sys.executable, str(tmp_path / "note.py"), str(tmp_path / "log"))
    with agent(tmp_path / "a", port) as first:
        with watching(first, tmp_path, "app/", "--", *note) as process:
            notes(tmp_path, 1, first)
            first.process.terminate()
            first.process.wait(patient(60))
            time.sleep(0.7)
            assert process.poll() is None
            with agent(tmp_path / "a", port) as again:
                # A new run of the agent cannot know what came since: the command is told to read everything again.
                deadline = time.monotonic() + patient(60)
                while not any(change["kind"] == "resync" for run in notes(tmp_path, 1, again, "") for change in run[0]):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)


def test_what_cannot_be_says_so(running: AgentProcess, tmp_path: Path) -> None:
    done = command("watch", "--socket", str(tmp_path / "nobody.sock"), "--", "true")
    assert done.returncode == 3 and b"Traceback" not in done.stderr
    done = running.command("watch", "--timeout", "1", "--")
    assert done.returncode == 2 and b"expected a command behind --" in done.stderr
    since = str(running.json("members")["revision"])
    running.json("publish", "app/x", "--value", "1")
    done = running.command("watch", "--since", since, "--", "/no/such/command")
    assert done.returncode == 2 and done.stderr == b"xdp-gossip: /no/such/command: No such file or directory\n"
    done = running.command("watch", "--count", "0")
    assert done.returncode == 2 and b"--count: expected a whole number from 1 on" in done.stderr


def note_of(tmp_path: Path) -> tuple[str, ...]:
    return (sys.executable, str(tmp_path / "note.py"), str(tmp_path / "log"))


def told(found: list[Any]) -> list[tuple[str, str]]:
    """Event and key of every change in these runs."""
    return [
        (change["event"], change.get("document", {}).get("key", ""))
        for changes, _variables, _words in found
        for change in changes
    ]


def test_the_first_run_is_for_what_is_there(running: AgentProcess, tmp_path: Path) -> None:
    for key in ("app/b", "app/a", "other"):
        running.json("publish", key, "--value", "x")
    with watching(running, tmp_path, "app/", "--initial", "--count", "1", "--", *note_of(tmp_path)) as process:
        assert process.wait(patient(60)) == 0
    (found,) = notes(tmp_path, 1, running, "")
    assert told([found]) == [("initial", ""), ("present", "app/a"), ("present", "app/b")]
    assert found[1][:2] == ["app/b", "present"]
    (tmp_path / "log").unlink()
    with watching(running, tmp_path, "none/", "--initial", "--count", "1", "--", *note_of(tmp_path)) as process:
        assert process.wait(patient(60)) == 0
    (found,) = notes(tmp_path, 1, running, "")
    assert told([found]) == [("initial", "")] and found[1] == ["", "initial", ""]
    lines = running.command("watch", "app/", "--initial", "--count", "2").stdout.decode().splitlines()
    assert ["document present: app/a" in lines[0], "document present: app/b" in lines[1]] == [True, True]


def test_what_changed_while_the_watch_did_not_run_is_told_once(running: AgentProcess, tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = ("app/", "--state", str(state), "--count", "1")
    for key in ("app/same", "app/new", "app/gone", "other"):
        running.json("publish", key, "--value", "1")
    # The first time there is nothing that was missed: what is there is where it begins.
    with watching(running, tmp_path, *words, "--", *note_of(tmp_path)):
        wait_for(state.exists)
    running.json("publish", "app/new", "--value", "2")
    running.json("publish", "app/new", "--value", "3")
    running.json("publish", "app/another", "--value", "1")
    running.json("delete", "app/gone")
    running.json("publish", "other", "--value", "2")
    with watching(running, tmp_path, *words, "--", *note_of(tmp_path)) as process:
        assert process.wait(patient(60)) == 0
    missed = [("published", "app/another"), ("published", "app/new"), ("deleted", "app/gone")]
    assert told(notes(tmp_path, 1, running, "")) == missed
    # Printed, it is the same.
    running.json("publish", "app/new", "--value", "4")
    done = running.command("watch", "app/", "--state", str(state), "--timeout", "1")
    assert [line.split()[1:4] for line in done.stdout.decode().splitlines()] == [["document", "published:", "app/new"]]
    assert running.command("watch", "app/", "--state", str(state), "--timeout", "0.5").stdout == b""


def test_a_run_that_failed_is_made_up_for_by_the_next_watch(running: AgentProcess, tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = ("app/", "--state", str(state), "--initial", "--count", "1")
    running.json("publish", "app/bad", "--value", "1")
    with watching(running, tmp_path, *words, "--", *note_of(tmp_path)) as process:
        assert process.wait(patient(60)) == 1
    assert not state.exists()
    running.json("publish", "app/good", "--value", "1")
    with watching(running, tmp_path, *words, "--", "true") as process:
        assert process.wait(patient(60)) == 0
    assert set(json.loads(state.read_text())["documents"]) == {"app/bad", "app/good"}
    assert running.command("watch", "app/", "--state", str(state), "--timeout", "0.5").stdout == b""


def test_nothing_is_lost_or_told_twice_when_the_agent_restarts(tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    with agent(tmp_path / "a", port) as first:
        first.json("publish", "app/before", "--value", "1")
        with watching(first, tmp_path, "app/", "--state", str(state), "--", *note_of(tmp_path)) as process:
            wait_for(state.exists)
            first.json("publish", "app/one", "--value", "1")
            notes(tmp_path, 1, first, "")
            wait_for(lambda: "app/one" in state.read_text())
            process.send_signal(signal.SIGSTOP)  # so that it surely misses what comes
            first.process.terminate()
            first.process.wait(patient(60))
            with agent(tmp_path / "a", port) as again:
                again.json("publish", "app/two", "--value", "1")
                again.json("delete", "app/before")
                process.send_signal(signal.SIGCONT)
                found = notes(tmp_path, 2, again, "")
                again.json("publish", "app/three", "--value", "1")
                wait_for(lambda: ("published", "app/three") in told(notes(tmp_path, 2, again, "")))
                found = told(notes(tmp_path, 2, again, ""))
                assert found[0] == ("published", "app/one") and found[-1] == ("published", "app/three")
                assert sorted(found[1:-1]) == [("deleted", "app/before"), ("published", "app/two")]
            again.process.wait(patient(60))
            process.terminate()
            _, errors = process.communicate(timeout=patient(60))
            lines = errors.decode().splitlines()
            assert "the agent does not answer" in lines[0] and "waiting until it is back" in lines[0]
            assert "the agent is back after" in lines[1]


def test_an_agent_that_lost_its_state_has_deleted_nothing(tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    with agent(tmp_path / "a", port) as first:
        first.json("publish", "app/kept", "--value", "1")
        words = ("app/", "--state", str(state), "--initial", "--count", "1")
        with watching(first, tmp_path, *words, "--", "true") as process:
            assert process.wait(patient(60)) == 0
    for left in (tmp_path / "a" / "state").glob("*"):
        left.unlink()
    with agent(tmp_path / "a", port) as again:
        assert again.json("documents")["documents"] == []
        assert again.command("watch", "app/", "--state", str(state), "--timeout", "0.5").stdout == b""
        assert "app/kept" in state.read_text()


def test_a_state_that_is_none_is_refused_and_left_alone(running: AgentProcess, tmp_path: Path) -> None:
    state = tmp_path / "state"
    for text in ("", "root:x:0:0", "[]", "{}", '{"kind": "xdp-gossip watch 1", "prefix": 1, "documents": {}}'):
        state.write_text(text)
        done = running.command("watch", "app/", "--state", str(state), "--timeout", "0")
        assert done.returncode == 2 and b"expected a file written by watch" in done.stderr
        assert state.read_text() == text
    state.unlink()
    assert running.command("watch", "app/", "--state", str(state), "--timeout", "0").returncode == 0
    done = running.command("watch", "other/", "--state", str(state), "--timeout", "0")
    assert done.returncode == 2 and b"belongs to a watch of 'app/', not of 'other/'" in done.stderr
    done = running.command("watch", "--state", str(tmp_path / "no" / "state"), "--timeout", "0")
    assert done.returncode == 2 and b"No such file or directory" in done.stderr
    for more in ("--initial", "--state=x"):
        done = running.command("watch", "--since", "5", more)
        assert done.returncode == 2 and b"--since: expected none with --initial or --state" in done.stderr
