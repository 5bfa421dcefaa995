# SPDX-License-Identifier: MIT
"""``doctor`` as a whole: levels, exit status, its bounds in time; nothing in one subject harms another."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doctoring import by_id, doctor

from tests.support.agents import agent, write_config
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import COMMAND, ROOT
from xdp_gossip.cli import doctor as package
from xdp_gossip.cli.doctor import apart, libraries, units
from xdp_gossip.cli.doctor.finding import LEVELS, Finding, Subject

NOBODY = 65534


def ids() -> dict[str, tuple[str, ...]]:
    """Every id that a finding may have, with its levels; those of what is as it should be aside."""
    for name in package.CHECKS:
        importlib.import_module(f"xdp_gossip.cli.doctor.{name}")
    subjects = Subject.ALL.values()
    return {f"{subject.name}.{what}": levels for subject in subjects for what, levels in subject.levels.items()}


def test_the_table_in_the_documentation_has_every_finding() -> None:
    """Each with its levels, its cause and what to do."""
    text = (ROOT / "docs" / "operations.md").read_text()
    text = text[text.index("## Findings of doctor") :]
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| ([a-z, ]+) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    assert {name: tuple(levels.split(", ")) for name, levels, _, _ in rows} == ids()
    assert [name for name, _, cause, remedy in rows if not cause.strip() or not remedy.strip()] == []


def test_levels_are_few() -> None:
    assert {level for levels in ids().values() for level in levels} <= set(LEVELS[1:])
    with pytest.raises(KeyError):
        Subject.ALL["disk"]("filled", "x", "y")
    with pytest.raises(ValueError, match="expected level error, got note"):
        Subject.ALL["disk"]("full", "x", "y", level="note")


# -- apart -------------------------------------------------------------------------------------------------------


def some(*items: Any, then: Any = None) -> Iterator[Any]:
    yield from items
    if then is not None:
        then()


@pytest.mark.slow
def test_what_hangs_is_given_up_and_what_came_before_is_kept() -> None:
    found = []
    with pytest.raises(apart.TookTooLong, match=r"no answer in 0\.3 s"):
        for item in apart.each(lambda: some(1, "two", then=lambda: time.sleep(1000)), 0.3):
            found.append(item)
    assert found == [1, "two"]


def test_what_fails_is_told_with_its_place() -> None:
    with pytest.raises(apart.Broken, match=r"ZeroDivisionError: .* \(test_doctor.py:\d+ in <lambda>\)"):
        list(apart.each(lambda: some(1, then=lambda: 1 / 0), patient(10)))
    with pytest.raises(apart.Broken, match="its process was ended"):
        list(apart.each(lambda: some(1, then=lambda: os.kill(os.getpid(), signal.SIGKILL)), patient(10)))
    with pytest.raises(apart.Broken, match="local object"):
        list(apart.each(lambda: some(lambda: 1), patient(10)))
    assert list(apart.each(lambda: some(b"x" * 3_000_000), patient(10))) == [b"x" * 3_000_000]


@pytest.mark.slow
def test_what_is_given_up_leaves_no_process_behind(tmp_path: Path) -> None:
    """Nor a program that it started, nor a hold on the caller's output."""
    mark = tmp_path / "mark"

    def work() -> Iterator[int]:
        with open(mark, "w") as stream:
            subprocess.run(["sh", "-c", "echo $$; sleep 1000"], stdout=stream, check=False)
        yield 1

    with pytest.raises(apart.TookTooLong):
        list(apart.each(work, patient(0.5)))
    deadline = time.monotonic() + patient(10)
    while (text := mark.read_text()) and Path(f"/proc/{text.strip()}").exists():
        state = Path(f"/proc/{text.strip()}/stat")
        if state.exists() and state.read_text().split(")")[1].split()[0] == "Z":
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- the command -------------------------------------------------------------------------------------------------


def run(config: Path, *, as_json: bool = True) -> tuple[int, str]:
    """The command in this process."""
    args = argparse.Namespace(config=str(config), json=as_json, timeout=patient(5))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = package.run_doctor(args)
    return status, out.getvalue()


@pytest.mark.slow
def test_one_subject_that_breaks_and_one_that_hangs_leave_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_look: Any) -> Iterator[Finding]:
        raise RuntimeError("out of order")

    monkeypatch.setattr(libraries, "examine", broken)
    monkeypatch.setattr(units, "examine", lambda look: time.sleep(1000))
    monkeypatch.setattr(package, "CHECKS", ("libraries", "units", "disks"))
    status, text = run(write_config(tmp_path / "a", free_port()))
    found = {finding["id"]: finding for finding in json.loads(text)["findings"]}
    assert status == 1 and list(found) == ["doctor.internal", "doctor.timeout", "disk.missing"]
    assert found["doctor.internal"]["text"].startswith("libraries: RuntimeError: out of order (test_doctor.py:")
    assert found["doctor.timeout"]["text"].startswith("units: no answer in ")


def test_status_and_summary_follow_the_worst_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path / "a", free_port())
    monkeypatch.setattr(package, "CHECKS", ("disks",))
    status, text = run(config)
    assert (status, json.loads(text)["summary"]) == (0, {"ok": 0, "note": 0, "warning": 1, "error": 0})
    assert run(config, as_json=False)[1].startswith("warning disk.missing: ")
    (tmp_path / "a" / "state").write_text("a file")
    status, text = run(config)
    assert (status, json.loads(text)["ok"]) == (1, False)


@pytest.mark.slow
def test_an_agent_that_hangs_hangs_nobody(tmp_path: Path) -> None:
    """Stopped, it holds its socket and its ports, and says nothing."""
    with agent(tmp_path / "a") as running:
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            path = str(running.directory / "agent.yml")
            done = subprocess.run(
                [COMMAND, "doctor", "--json", "--config", path, "--timeout", "3"], capture_output=True, check=False
            )
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
    found = by_id(done)
    assert done.returncode == 1 and "agent.silent" in found and "disk.ok" in found and "port.taken" not in found


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a disk of its own")
def test_a_disk_that_hangs_hangs_nobody(tmp_path: Path) -> None:
    """A frozen file system: whoever writes there waits, and no signal ends him."""
    path = write_config(tmp_path / "a", free_port(), protocol="UDP")
    script = (
        "truncate -s 16M img && mkfs.ext4 -q img && mkdir -p a/state && mount -o loop img a/state || exit 99\n"
        "chmod 700 a/state && fsfreeze -f a/state || exit 99\n"
        "trap 'fsfreeze -u a/state; umount -l a/state' EXIT\n"
        f'"{COMMAND}" doctor --json --config "{path}" --timeout 3\n'
    )
    words = ["unshare", "--mount", "sh", "-c", script]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    if done.returncode in (1, 99) and not done.stdout:
        pytest.skip(f"no disk to be had here: {done.stderr.strip()}")
    found = by_id(done)
    assert done.returncode == 1 and [each["text"][:6] for each in found["doctor.timeout"]] == ["disks:"]
    assert "agent.down" in found and "files.ok" in found


@pytest.mark.slow
@pytest.mark.parametrize("answer", [b"{}", b"[1]", b"nothing", b'{"version": 1, "state": "x", "node": {}}'])
def test_something_that_is_no_agent(tmp_path: Path, answer: bytes) -> None:
    path = write_config(tmp_path / "a", free_port(), protocol="UDP")
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(tmp_path / "a" / "api.sock"))
        place.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = place.accept()[0]
                    with connection:
                        if connection.recv(4096):
                            connection.sendall(head + answer)

        threading.Thread(target=serve, daemon=True).start()
        status, found = doctor(path)
        place.shutdown(socket.SHUT_RDWR)
    assert status == 1 and not {"doctor.internal", "doctor.timeout"} & found.keys()
    assert "agent.refused" in found, found


@pytest.mark.slow
def test_without_a_configuration(tmp_path: Path) -> None:
    status, found = doctor(tmp_path / "none.yml", "--socket", str(tmp_path / "none.sock"))
    assert status == 1 and {"config.invalid", "agent.down", "library.ok"} <= found.keys()
    assert not {"doctor.internal", "doctor.timeout"} & found.keys()


@pytest.mark.parametrize("text", ["0", "x", "nan", "-1"])
def test_a_timeout_that_is_none(text: str) -> None:
    done = subprocess.run([COMMAND, "doctor", "--timeout", text], capture_output=True, check=False)
    assert done.returncode == 2 and b"expected 0.1 to 3600 seconds" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which can become somebody else")
def test_who_is_not_root_is_told_what_was_not_looked_at() -> None:
    """And gets no error for what is only hidden from him."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with agent(directory / "a", protocol="UDP") as running:
            path = running.directory / "agent.yml"
            program = (
                "import os, sys\n"
                "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
                "from xdp_gossip.cli.main import main\n"
                "sys.exit(main(sys.argv[1:]))\n"
            )

            def ask() -> tuple[int, dict[str, list[dict[str, str]]]]:
                words = [sys.executable, "-B", "-c", program, "doctor", "--json", "--config", str(path)]
                environment = {**os.environ, "PYTHONPATH": str(ROOT / "agent")}
                done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
                return done.returncode, by_id(done)

            path.chmod(0o640)
            status, found = ask()
            assert status == 0 and "not for this user to see" in found["doctor.unseen"][0]["text"], found
            path.chmod(0o644)
            status, found = ask()
            text = " ".join(finding["text"] for finding in found["doctor.unseen"])
            assert status == 0 and "secret.key" in text and str(running.directory / "state") in text, found
            assert "api.sock" in text and "agent.down" not in found
