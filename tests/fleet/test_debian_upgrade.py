# SPDX-License-Identifier: MIT
"""apt upgrades a member from Debian 12 to 13 while its agent runs: the host keeps its node.

Takes minutes, and Debian's mirrors: `make long` runs it. apt runs inside of the host, but for its network, which is the
machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.fleet import eventually
from tests.support.patience import patient

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "roles/lab/files/lab.py"
HOME = Path("/var/lib/xdp-gossip-lab-debian")
VARIABLES = {
    "lab_name": "xgd",
    "lab_dir": str(HOME),
    "lab_hosts": 2,
    "lab_suites": ["bookworm"],
    "lab_bridge": "xgbrd",
    "lab_network": "198.18.97.0/24",
    "lab_network6": "fd00:198:18:97::/64",
}
UPGRADE = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt-get -qq update
apt-get -qq -y -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io full-upgrade
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.variant,
    pytest.mark.timeout(patient(1800)),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="needs systemd-nspawn"),
    pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook on the PATH"),
]


def run(*words: str, text: str | None = None, seconds: float = 300) -> str:
    """What the command prints; fails with that and with its errors."""
    done = subprocess.run(
        words,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            "ANSIBLE_HOME": str(ROOT / ".cache/ansible"),
        },
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


class Fleet:
    """The hosts ``xgd1`` and ``xgd2`` of a lab, with agents."""

    def __init__(self, directory: Path) -> None:
        settings = directory / "lab.yml"
        settings.write_text(yaml.safe_dump({**VARIABLES, "ansible_python_interpreter": "/usr/bin/python3"}))
        self._settings = settings
        # Built once, so that every deployment is of the same release.
        run("/usr/bin/python3", str(ROOT / "agent/build_release.py"), "--output", str(directory))
        (self._archive,) = directory.glob("xdp-gossip-*.tar.gz")

    def lab(self, state: str) -> None:
        """Make the lab, or remove it."""
        run(
            "ansible-playbook",
            "xdp_gossip.fleet.demo",
            "-e",
            f"@{self._settings}",
            "-e",
            f"demo_state={state}",
            seconds=900,
        )

    def deploy(self) -> str:
        """Deploy on both hosts; what Ansible prints."""
        archive = f"xdp_gossip_agent_release_archive={self._archive}"
        words = ("-i", str(HOME / "inventory.yml"), "-e", archive, "xdp_gossip.fleet.deploy")
        return run("ansible-playbook", *words, seconds=600)

    def power(self, what: str, host: str) -> None:
        """``kill`` or ``start`` a host."""
        run("/usr/bin/python3", "-B", str(LAB), "--config", str(HOME / "config.json"), what, host)

    def init(self, host: str) -> str:
        """The host's first process, by the machine's number."""
        status = run("/usr/bin/python3", "-B", str(LAB), "--config", str(HOME / "config.json"), "status")
        nspawn = next(each["pid"] for each in json.loads(status)["hosts"] if each["name"] == host)
        return run("pgrep", "-P", str(nspawn)).split()[0]

    def inside(self, host: str, *words: str, network: bool = True, seconds: float = 60) -> str:
        """Run a command on the host; without ``network``, in the machine's network instead of the host's."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", *(["--net"] if network else [])]
        return run("nsenter", "-t", self.init(host), *spaces, "--", *words, seconds=seconds)

    def asked(self, host: str, *words: str) -> Any:
        """What a command of the agent answers in JSON."""
        return json.loads(self.inside(host, "xdp-gossip", *words, "--json"))

    def caught_up(self, host: str) -> str | None:
        """What the agent of the host lacks, or None if it has the cluster's documents."""
        socket = ("curl", "--silent", "--unix-socket", f"/proc/{self.init(host)}/root/run/xdp-gossip/api.sock")
        done = subprocess.run(
            [*socket, "http://agent/v1/status"], capture_output=True, text=True, timeout=60, check=False
        )
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        return None if found.get("caught_up") else f"expected {host} to have caught up, got {found or done.stdout}"

    def upgrade(self, host: str) -> None:
        """Upgrade the host to Debian 13 while it runs, from the machine's mirrors."""
        root = Path("/proc") / self.init(host) / "root"
        program = (
            "import sys; from xg_lab.sources import package_sources; print(*package_sources('trixie', ''), sep='\\n')"
        )
        sources = run("/usr/bin/python3", "-B", "-c", f"import sys; sys.path.insert(0, {str(LAB.parent)!r}); {program}")
        (root / "etc/apt/sources.list").write_text(sources.strip() or "deb http://deb.debian.org/debian trixie main")
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        self.inside(host, "sh", "-euc", UPGRADE, network=False, seconds=1200)
        (root / "etc/resolv.conf").unlink()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        made.lab("present")
        made.deploy()
        yield made
    finally:
        made.lab("absent")
        # The deployment has written the fleet's secrets beside the inventory.
        shutil.rmtree(HOME, ignore_errors=True)


def test_an_upgrade_in_place_keeps_the_node(fleet: Fleet) -> None:
    for version in ("first", "second"):
        fleet.inside("xgd1", "xdp-gossip", "publish", "settings", "--value", version, "--wait", "all")
    before = fleet.asked("xgd2", "status")
    history = fleet.asked("xgd2", "history", "settings")
    assert before["mode"] == "XDP (native)" and len(history["versions"]) == 2

    fleet.upgrade("xgd2")
    assert fleet.inside("xgd2", "cat", "/etc/debian_version").startswith("13.")
    # Nothing has ended the agent, so it still is a member.
    during = fleet.asked("xgd2", "status")
    assert during["node"]["incarnation"] == before["node"]["incarnation"] and during["internal_errors"] == []

    fleet.power("kill", "xgd2")
    fleet.inside("xgd1", "xdp-gossip", "publish", "meanwhile", "--value", "3")
    fleet.power("start", "xgd2")
    eventually(lambda: fleet.caught_up("xgd2"), patient(60), 1)
    after = fleet.asked("xgd2", "status")
    for what in ("name", "addr", "port", "private_data", "zone", "version", "state"):
        assert after["node"][what] == before["node"][what]
    assert after["node"]["incarnation"] > before["node"]["incarnation"]
    assert (after["mode"], after["state_problems"]) == ("XDP (native)", [])
    assert fleet.asked("xgd2", "history", "settings") == history
    assert fleet.inside("xgd2", "xdp-gossip", "read", "meanwhile") == "3"
    process = fleet.inside("xgd2", "systemctl", "show", "--property=MainPID", "--value", "xdp-gossip.service").strip()
    assert fleet.inside("xgd2", "readlink", f"/proc/{process}/exe").strip() == "/usr/bin/python3.13"

    # The next deployment compiles the release for the new Python, and restarts nothing.
    output = fleet.deploy()
    assert "(byte code of Python 3.13)" in output and "failed=0" in output
    assert fleet.asked("xgd2", "status")["node"]["incarnation"] == after["node"]["incarnation"]
    assert "byte code" not in fleet.deploy()
