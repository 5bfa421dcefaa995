# SPDX-License-Identifier: MIT
"""The same faults on hosts with systemd whose interfaces systemd-networkd, ifupdown and NetworkManager configure."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.recovery.lab import LabHost
from tests.recovery.managers import MANAGERS, PACKAGES
from tests.recovery.seconds import NATIVE, causes
from tests.support.fleet import eventually
from tests.support.process import ROOT

pytestmark = [pytest.mark.variant, pytest.mark.slow, pytest.mark.timeout(1800)]

#: Seconds for what must happen by itself.
PATIENCE = 120.0
LAB = {
    "lab_hosts": len(MANAGERS),
    "lab_name": "xgm",
    "lab_dir": "/var/lib/xdp-gossip-lab-managers",
    "lab_bridge": "xgmbr0",
    "lab_network": "198.18.98.0/24",
    "lab_network6": "fd00:198:18:98::/64",
    "lab_extra_packages": PACKAGES,
}
HOSTS = {name: f"xgm{number}" for number, name in enumerate(MANAGERS, 1)}


@dataclass(frozen=True)
class Lab:
    """A lab whose hosts have an agent each; ``folder``: where Ansible is run, of the inventory and the secrets."""

    folder: Path

    @property
    def inventory(self) -> str:
        """Path of the file."""
        return str(self.folder / "hosts.yml")

    def ansible(self, program: str, *words: str) -> str:
        """Run one of Ansible's programs; returns what it prints. Fails with all that it said."""
        cache = ROOT / ".cache"
        environment = {
            **os.environ,
            "PATH": f"{cache}/venv/ansible/bin:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": f"{cache}/collections",
            "ANSIBLE_HOME": f"{cache}/ansible",
            "ANSIBLE_LOCALHOST_WARNING": "false",
        }
        done = subprocess.run(
            [program, *words],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, f"{program} {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def demo(self, **settings: str) -> None:
        """Run the demo's playbook on this lab."""
        self.ansible(
            "ansible-playbook",
            "xdp_gossip.fleet.demo",
            "-e",
            json.dumps({**LAB, "lab_inventory": self.inventory, **settings}),
        )

    def play(self, playbook: str) -> None:
        """Run a playbook of the collection on its hosts."""
        self.ansible("ansible-playbook", "-i", self.inventory, playbook)

    def shell(self, host: str, script: str) -> str:
        """Run a shell script on a host, through ssh."""
        words = ("-i", self.inventory, host, "-m", "ansible.builtin.shell", "-a", script)
        return self.ansible("ansible", *words)

    def addresses(self, host: str) -> tuple[str, str]:
        """IPv4 and IPv6 address of a host, with prefix."""
        number = int(HOSTS[host].removeprefix("xgm")) + 10
        return f"198.18.98.{number}/24", f"fd00:198:18:98::{number}/64"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Deployed, then each host given to its manager and booted anew."""
    made = Lab(tmp_path_factory.mktemp("managers"))
    try:
        made.demo()
        made.play("xdp_gossip.fleet.deploy")
        for name, manager in MANAGERS.items():
            if manager.script:
                four, six = made.addresses(name)
                made.shell(HOSTS[name], f"set -- {four} {six}\n{manager.script}")
            made.demo(demo_power_off=HOSTS[name])
        made.demo()
        yield made
    finally:
        made.demo(demo_state="absent")


@pytest.mark.parametrize("name", MANAGERS)
def test_a_host_comes_back_by_itself(lab: Lab, name: str) -> None:
    """After a power cut, and after each cause."""
    manager, directory = MANAGERS[name], Path(str(LAB["lab_dir"]))
    host = LabHost(directory, HOSTS[name], manager)

    def not_best() -> str | None:
        status = host.status()
        return None if status["mode"] == NATIVE and not status["mode_reason"] else f"{status['mode']}: {status}"

    def not_noticed(what: str, before: int) -> str | None:
        # A loader that is at work for the cause before this one may attach the program before the agent misses it. A
        # carrier that is lost is nothing to step down for, unless the manager takes the address away with it.
        if "detached" in what:
            noticed = host.is_attached()
        elif what in ("started without address", "link back"):
            noticed = True
        else:
            noticed = stepped_down() > before
        return None if noticed else f"{what}: not noticed"

    def stepped_down() -> int:
        return int(host.status()["counters"].get("plane_stepped_down", 0))

    eventually(not_best, PATIENCE)
    for what, (begin, end) in causes(host).items():
        before = stepped_down()
        begin()
        over = time.monotonic()
        eventually(functools.partial(not_noticed, what, before), PATIENCE)
        if end is not None:
            over = time.monotonic()
            end()
        eventually(not_best, PATIENCE)
        print(f"{name}, {what}: in its best mode {time.monotonic() - over:.1f} s after the end of the cause")
    eventually(functools.partial(not_all, lab, HOSTS[name]), PATIENCE)


def not_all(lab: Lab, host: str) -> str | None:
    """What a host lacks that lists all others as alive."""
    said = lab.shell(host, "xdp-gossip members --all --json").partition("\n")[2]
    states = [node["state"] for node in json.loads(said)["nodes"]]
    return None if states == ["alive"] * len(MANAGERS) else said
