# SPDX-License-Identifier: MIT
"""A lab of systemd hosts for benchmarks of Ansible.

The role ``xdp_gossip.fleet.lab`` creates the lab, and removes the lab at the end.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from .netns import BenchError

ROOT = Path(__file__).resolve().parents[1]
_BIN = ROOT / ".cache" / "venv" / "ansible" / "bin"
_COLLECTIONS = ROOT / ".cache" / "collections"
#: Directory of the public collections with which a benchmark compares this collection.
PUBLIC = ROOT / ".cache" / "bench" / "collections"
#: Directory of the benchmarks' lab. The demo and Molecule use other directories for their labs.
_HOME = "/var/lib/xdp-gossip-bench"
_LAB = {
    "lab_name": "xgb",
    "lab_dir": _HOME,
    "lab_bridge": "xgbrb",
    "lab_network": "198.18.7.0/24",
    "lab_network6": "fd00:198:18:7::/64",
    "lab_inventory": f"{_HOME}/inventory.yml",
}
#: Maximum seconds for the creation of the lab (including the build of its image), for a deployment, and for any other
#: command.
_MAKE, _DEPLOY, _SECONDS = 1200.0, 600.0, 120.0

_PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles: [xdp_gossip.fleet.lab]
"""
# Ansible's default settings, except for paths and warnings.
_SETTINGS = f"""
[defaults]
collections_path = {_COLLECTIONS}:{PUBLIC}
home = {ROOT / ".cache" / "ansible"}
nocows = true
deprecation_warnings = false
localhost_warning = false
[inventory]
inventory_unparsed_warning = false
"""


class Lab:
    """The hosts of a lab, each with an agent, and methods to run Ansible on these hosts.

    ``directory``: working directory of a benchmark, for its playbooks and other files. ``packages``: Debian packages to
    install on the hosts of this lab, in addition to the packages that every lab installs.
    """

    def __init__(self, directory: Path, packages: Sequence[str] = ()) -> None:
        self.directory = directory
        self.inventory = Path(str(_LAB["lab_inventory"]))
        (directory / "ansible.cfg").write_text(_SETTINGS)
        (directory / "lab.yml").write_text(_PLAY)
        interpreter = {"ansible_python_interpreter": "/usr/bin/python3"}
        variables = {**_LAB, **interpreter, "lab_extra_packages": list(packages)}
        (directory / "variables.yml").write_text(yaml.safe_dump(variables))

    def grow(self, hosts: int) -> None:
        """Create the lab with ``hosts`` hosts, and deploy agents that form one fleet. Raises :class:`BenchError`."""
        self.playbook("lab.yml", "-e", "@variables.yml", "-e", f"lab_hosts={hosts}", seconds=_MAKE)
        self.deploy()

    def deploy(self, *words: str) -> None:
        """Run the playbook ``deploy`` on all hosts. ``words``: additional arguments. Raises :class:`BenchError`."""
        self.playbook("xdp_gossip.fleet.deploy", "-i", str(self.inventory), *words, seconds=_DEPLOY)

    def remove(self) -> None:
        """Remove the lab and its files, except the base image."""
        self.playbook("lab.yml", "-e", "@variables.yml", "-e", "lab_state=absent")
        self.run("rm", "-rf", "--one-file-system", _HOME)

    #: Path of the command ``ansible-playbook`` that the benchmarks run.
    ansible_playbook = _BIN / "ansible-playbook"

    @property
    def endpoints(self) -> list[str]:
        """The URLs of the members' APIs, in the order of the inventory."""
        hosts = yaml.safe_load(self.inventory.read_text())["fleet"]["hosts"]
        return [f"https://{host['ansible_host']}:8001" for host in hosts.values()]

    @property
    def token_file(self) -> Path:
        """Path of the file with the API token, which the role created in the directory of the inventory."""
        return self.inventory.parent / ".xdp-gossip" / "api.token"

    @property
    def ca_path(self) -> Path:
        """Path of the certificate of the authority that issued the certificates of the members' APIs."""
        return self.token_file.parent / "ca.crt"

    def close_connections(self) -> None:
        """Close the connections that ssh keeps open for a minute after the last command (ControlPersist)."""
        for control in Path(_HOME, "cp").glob("*"):
            self.run("ssh", "-O", "exit", "-o", f"ControlPath={control}", "any")

    def playbook(self, *words: str, seconds: float = _SECONDS, **environment: str) -> float:
        """Run ``ansible-playbook``.

        Return the seconds that the command took. Raises :class:`BenchError` if the command fails.
        """
        return self.run(str(self.ansible_playbook), *words, seconds=seconds, **environment)

    def run(self, *command: str, seconds: float = _SECONDS, **environment: str) -> float:
        """Run a command in the benchmark's directory. Return the seconds that the command took.

        Raises :class:`BenchError` if the command fails.
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
        clean["PATH"] = f"{_BIN}:{clean['PATH']}"
        # The output goes to a file and not to a pipe, because an ssh process that stays in the background would keep
        # the pipe open.
        with (self.directory / "output").open("w+b") as output:
            began = time.monotonic()
            try:
                done = subprocess.run(
                    command,
                    cwd=self.directory,
                    env={**clean, "LC_ALL": "C.UTF-8", **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=seconds,
                )
            except subprocess.TimeoutExpired:
                raise BenchError(f"{' '.join(command)}: expected an end within {seconds:g} s") from None
            except OSError as error:
                raise BenchError(f"{command[0]}: {error.strerror}; run make venv-ansible link") from None
            took = time.monotonic() - began
            if done.returncode:
                output.seek(0)
                text = output.read().decode(errors="replace")[-2000:]
                raise BenchError(f"{' '.join(command)}: exit status {done.returncode}: {text}")
        return took


@contextlib.contextmanager
def lab(packages: Sequence[str] = ()) -> Iterator[Lab]:
    """Context manager: a lab that has no hosts at first. The lab is removed at the end, even after an error.

    ``packages``: see :class:`Lab`.
    """
    with tempfile.TemporaryDirectory(prefix="xgp-lab-") as name:
        made = Lab(Path(name), packages)
        made.remove()  # remove the lab of an earlier run that was killed
        try:
            yield made
        finally:
            made.remove()
