# SPDX-License-Identifier: MIT
"""``xdp-gossip keygen``, what the commands tell of passphrases, and that memory with secrets is not dumped."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agents import agent, write_config
from tests.support.keys import KEY, OTHER_KEY
from tests.support.process import COMMAND, command
from xdp_gossip.wire.keys import derive

ROOT = Path(__file__).resolve().parents[2]
FORM = re.compile(r"xgk1_[A-Za-z0-9_-]{43}\n")


def test_a_key_is_printed() -> None:
    first, second = (command("keygen").stdout.decode() for _ in range(2))
    assert FORM.fullmatch(first) and FORM.fullmatch(second) and first != second
    assert FORM.fullmatch(json.loads(command("keygen", "--json").stdout)["key"] + "\n")


def test_a_key_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    before = os.umask(0)
    try:
        done = command("keygen", str(path))
    finally:
        os.umask(before)
    text = path.read_text()
    assert done.returncode == 0 and FORM.fullmatch(text) and path.stat().st_mode & 0o777 == 0o600
    assert text.strip() not in done.stdout.decode()
    again = command("keygen", str(path))
    assert again.returncode == 1 and b"a key is never overwritten" in again.stderr
    assert path.read_text() == text
    derive("default", text.strip())


def test_a_key_follows_no_link_and_needs_a_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert command("keygen", str(tmp_path / "link")).returncode == 1
    assert not (tmp_path / "elsewhere").exists()
    done = command("keygen", str(tmp_path / "none" / "secret.key"))
    assert done.returncode == 1 and b"not written: No such file or directory" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    words = (str(COMMAND), "keygen", str(path))
    done = subprocess.run(
        words, capture_output=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)), timeout=60
    )
    assert done.returncode == 1 and b"not written" in done.stderr and not path.exists()


@pytest.mark.slow
def test_check_config_notes_a_passphrase(tmp_path: Path) -> None:
    path = write_config(tmp_path / "a", 8000)
    assert command("check-config", str(path)).stdout.decode() == f"{path}: ok\n"
    assert json.loads(command("check-config", str(path), "--json").stdout)["passphrases"] == []
    (tmp_path / "a" / "secret.key").write_text("correct horse battery staple")
    out = command("check-config", str(path)).stdout.decode()
    assert "secret_key_file: note: a passphrase" in out and "correct horse" not in out
    shown = json.loads(command("check-config", str(path), "--json").stdout)
    assert shown["passphrases"] == ["secret_key_file"]
    assert shown["keys"] == [{"fingerprint": "4e4abb0066eeb8cf", "id": 0x4E, "state": "active"}]


def test_a_process_with_secrets_cannot_be_dumped() -> None:
    code = (
        "import ctypes, resource\n"
        "from xdp_gossip.common.dumps import forbid_core_dumps\n"
        "prctl = ctypes.CDLL(None).prctl\n"
        "before = prctl(3, 0, 0, 0, 0)\n"  # PR_GET_DUMPABLE
        "forbid_core_dumps()\n"
        "print(before, prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", code),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT / "agent")},
    )
    assert done.stdout.split() == ["1", "0", "0", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a process of another user")
def test_the_agents_memory_is_out_of_reach_for_its_own_user(tmp_path: Path) -> None:
    """The kernel gives /proc/PID of a process that is not dumpable to root."""
    with agent(tmp_path / "a") as running:
        limits = Path(f"/proc/{running.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1, "the test itself is dumpable"


@pytest.mark.slow
def test_no_secret_is_in_argv_environment_or_log(tmp_path: Path) -> None:
    """Also not after a reload, nor in what a wrong reload says."""
    import signal
    import time

    from tests.support.patience import patient

    with agent(tmp_path / "a") as running:
        running.settings.pop("secret_key_file")
        for name, secret in (("old", KEY), ("new", OTHER_KEY), ("cut", KEY[:-1])):
            running.write_secret(f"{name}.key", secret)
        steps = [("old", "active"), ("cut", "staged")], [("old", "active"), ("new", "staged")], [("new", "active")]
        for words, step in zip(("not reloaded", "keys replaced", "keys replaced"), steps):
            running.settings["keys"] = [{"file": f"{name}.key", "state": state} for name, state in step]
            running.write_config()
            seen = running.log_text().count(words)
            running.signal(signal.SIGHUP)
            deadline = time.monotonic() + patient(20)
            while running.log_text().count(words) == seen:
                assert time.monotonic() < deadline, running.log_text()
                time.sleep(0.05)
        log = running.log_text()
        pid = running.pid
        public = log + Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
        assert f"{derive('default', OTHER_KEY).fingerprint:016x} (active)" in log
    for secret in (KEY, OTHER_KEY):
        assert secret[5:] not in public and secret[5:-1] not in public
        key = derive("default", secret)
        assert key.mac.hex() not in public and key.body.hex() not in public
