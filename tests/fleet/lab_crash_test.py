# SPDX-License-Identifier: MIT
"""The lab's promise: killed at any moment, it comes up, or goes away, at the next call, and leaves nothing.

Needs root, the lab's tools (the role installs them) and a cached base image; run it with
`pytest tests/fleet/lab_crash_test.py`. It has a name, bridge and networks of its own, beside any other lab.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles" / "lab"
yaml = pytest.importorskip("yaml")

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("systemd-nspawn") is None, reason="needs root and nspawn"),
]

BRIDGE = "xgcrash0"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Path]:
    """A settings file for a lab of this test; the lab is removed at the end whatever happened."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    home = Path("/var/lib") / f"xdp-gossip-lab-crash-{os.getpid()}"
    value = {key[4:]: item for key, item in defaults.items()}
    del value["state"], value["purge_cache"], value["extra_packages"]
    value |= {
        "dir": str(home),
        "inventory": f"{home}/inventory.yml",
        "name": "xgc",
        "hosts": 3,
        "bridge": BRIDGE,
    }
    value |= {"network": "198.18.99.0/24", "network6": "fd00:198:18:99::/64"}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    if not call(path, "cached")["cached"]:
        pytest.skip("no cached base image: run the role once")
    yield path
    call(path, "absent")


def command(settings: Path, *words: str) -> list[str]:
    return ["/usr/bin/python3", "-B", str(ROLE / "files" / "lab.py"), "--config", str(settings), *words]


def call(settings: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(command(settings, *words), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kill_after(seconds: float, settings: Path, *words: str) -> None:
    """Start the control script and kill it, and it alone, after so many seconds."""
    process = subprocess.Popen(command(settings, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


def left_behind(settings: Path) -> list[str]:
    """What of this lab is on the machine: mounts, interfaces, control groups, processes, files."""
    home = json.loads(settings.read_text(encoding="utf-8"))["dir"]
    found = [line for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines() if home in line]
    found += [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(("vb-xgc", BRIDGE))]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/xdp-gossip-lab-{BRIDGE}")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("nspawn") and "--machine=xgc" in " ".join(words):
            found.append(" ".join(words))
    return found + ([home] if Path(home).exists() else [])


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5, 0.8, 1.2])
def test_killed_at_any_moment(settings: Path, seconds: float) -> None:
    kill_after(seconds, settings, "present")
    assert [host["state"] for host in call(settings, "present")["hosts"]] == ["running"] * 3
    assert call(settings, "present")["changed"] is False
    assert call(settings, "plan", "present")["steps"] == []
    kill_after(seconds, settings, "absent")
    call(settings, "absent")
    assert left_behind(settings) == []
    assert call(settings, "absent")["changed"] is False


def test_dead_hosts_and_missing_links_are_mended(settings: Path) -> None:
    call(settings, "present")
    victim = next(host for host in call(settings, "status")["hosts"] if host["name"] == "xgc2")
    os.kill(victim["pid"], signal.SIGKILL)
    subprocess.run(["ip", "link", "delete", "dev", BRIDGE], check=True, timeout=10)
    subprocess.run(["ip", "link", "delete", "dev", "vb-xgc3"], check=True, timeout=10)
    deadline = time.monotonic() + 10
    while "boot xgc2" not in call(settings, "plan", "present")["steps"]:
        assert time.monotonic() < deadline, "the death of a host goes unnoticed"
        time.sleep(0.2)
    result = call(settings, "present")
    assert [host["state"] for host in result["hosts"]] == ["running"] * 3
    assert call(settings, "present")["changed"] is False
    assert call(settings, "kill", "xgc1")["changed"] is True
    assert call(settings, "kill", "xgc1")["changed"] is False
    assert call(settings, "start", "xgc1")["changed"] is True
