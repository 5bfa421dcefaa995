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
from agents import COMMAND, AgentProcess, agent, command, free_port

from tests.patience import patient

pytestmark = pytest.mark.slow

#: Notes what it was given, waits until the file "hold" is gone, and ends as the document says.
NOTE = """
import json, os, sys, time
changes = json.load(sys.stdin)
began = time.time()
hold = os.path.join(os.path.dirname(sys.argv[1]), "hold")
open(sys.argv[1] + ".begun", "a").write("x")
while os.path.exists(hold):
    time.sleep(0.02)
names = ("XDP_GOSSIP_KEY", "XDP_GOSSIP_EVENT", "XDP_GOSSIP_VERSION")
with open(sys.argv[1], "a") as log:
    log.write(json.dumps([began, time.time(), changes, [os.environ[name] for name in names], sys.argv[2:]]) + "\\n")
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
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)


def until(true: Callable[[], bool], otherwise: str) -> None:
    """Wait for an event; the bound is a net."""
    deadline = time.monotonic() + patient(60)
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


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
    with watching(running, tmp_path, "app/", "--", *note) as process:
        notes(tmp_path, 1, running)
        (tmp_path / "hold").touch()
        begun = (tmp_path / "log.begun").stat().st_size
        running.json("publish", "app/again", "--value", "held")
        until(lambda: (tmp_path / "log.begun").stat().st_size > begun, "the command was not run again")
        before = len(notes(tmp_path, 1, running, ""))
        for number in range(8):
            running.json("publish", f"app/{number}", "--value", "x")
        running.json("publish", "other/key", "--value", "x")
        version = running.json("publish", "app/last", "--value", "x")["version"]
        (tmp_path / "hold").unlink()

        def seen() -> list[str]:
            return [change["document"]["key"] for run in notes(tmp_path, 1, running, "") for change in run[2]]

        until(lambda: "app/last" in seen(), "the last change was not seen")
        runs = notes(tmp_path, 1, running, "")
        assert set(seen()) == {"app/again", "app/last", *(f"app/{number}" for number in range(8))}
        # The run that was held, then what had come meanwhile; a watch may have begun to wait for its end in between.
        assert len(runs) <= before + 3, "each change was a run"
        assert all(before[1] <= after[0] for before, after in zip(runs, runs[1:])), "two runs at a time"
        assert runs[-1][3] == ["app/last", "published", version]
        assert runs[-1][4] == ["--flag", "--", "x"]
        assert process.poll() is None


def test_a_run_that_fails_is_told_of_and_the_watch_goes_on(running: AgentProcess, tmp_path: Path) -> None:
    note = (sys.executable, str(tmp_path / "note.py"), str(tmp_path / "log"))
    since = str(running.json("members")["revision"])
    running.json("publish", "app/bad", "--value", "1")
    with watching(running, tmp_path, "app/", "--since", since, "--count", "2", "--", *note) as process:
        notes(tmp_path, 1, running, "")
        running.json("publish", "app/good", "--value", "1")
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert errors.decode() == "xdp-gossip: run 1 of the command: exit code 3 (1 failed)\n"
    assert len(notes(tmp_path, 2, running, "")) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
        assert process.wait(patient(60)) == (143 if number == signal.SIGTERM else 130)
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
                while not any(change["kind"] == "resync" for run in notes(tmp_path, 1, again, "") for change in run[2]):
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
    assert done.returncode == 2 and b"--count: expected 1 or more, got 0" in done.stderr
