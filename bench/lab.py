# SPDX-License-Identifier: MIT
"""A lab of real hosts for benchmarks of Ansible, made with the collection's own roles, and removed at the end."""

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
#: Collections of others that a benchmark compares with.
PUBLIC = ROOT / ".cache" / "bench" / "collections"
#: A lab of its own, beside the demo's and Molecule's.
_HOME = "/var/lib/xdp-gossip-bench"
_LAB = {
    "lab_name": "xgb",
    "lab_dir": _HOME,
    "lab_bridge": "xgbrb",
    "lab_network": "198.18.7.0/24",
    "lab_network6": "fd00:198:18:7::/64",
    "lab_inventory": f"{_HOME}/inventory.yml",
}
#: Seconds that making the lab (with its image, the first time), a deployment, and any other command may take.
_MAKE, _DEPLOY, _SECONDS = 1200.0, 600.0, 120.0

_PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles: [xdp_gossip.fleet.lab]
"""
# What an operator has who set nothing, and no colours.
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
    """Hosts with agents, and ansible-playbook to be used on them.

    ``directory`` is for the files of a benchmark. ``packages``: Debian packages that the hosts have beside the usual.
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
        """So many hosts, each with an agent that is a member of one fleet. Raises :class:`BenchError`."""
        self.playbook("lab.yml", "-e", "@variables.yml", "-e", f"lab_hosts={hosts}", seconds=_MAKE)
        self.deploy()

    def deploy(self, *words: str) -> None:
        """The playbook ``deploy`` on all hosts, with more words on its command line. Raises :class:`BenchError`."""
        self.playbook("xdp_gossip.fleet.deploy", "-i", str(self.inventory), *words, seconds=_DEPLOY)

    def remove(self) -> None:
        """Everything that was made, but for the base image."""
        self.playbook("lab.yml", "-e", "@variables.yml", "-e", "lab_state=absent")
        self.run("rm", "-rf", "--one-file-system", _HOME)

    #: The command that all is measured with.
    ansible_playbook = _BIN / "ansible-playbook"

    @property
    def endpoints(self) -> list[str]:
        """Where the members listen, in the inventory's order."""
        hosts = yaml.safe_load(self.inventory.read_text())["fleet"]["hosts"]
        return [f"https://{host['ansible_host']}:8001" for host in hosts.values()]

    @property
    def token_file(self) -> Path:
        """Where the role left the API's token: beside the inventory."""
        return self.inventory.parent / ".xdp-gossip" / "api.token"

    @property
    def ca_path(self) -> Path:
        """The certificate authority of the members' API, beside the token."""
        return self.token_file.parent / "ca.crt"

    def close_connections(self) -> None:
        """End the connections that ssh has kept open, as they do a minute after the last command."""
        for control in Path(_HOME, "cp").glob("*"):
            self.run("ssh", "-O", "exit", "-o", f"ControlPath={control}", "any")

    def playbook(self, *words: str, seconds: float = _SECONDS, **environment: str) -> float:
        """One ansible-playbook command, as a whole; the seconds it took. Raises :class:`BenchError` when it fails."""
        return self.run(str(self.ansible_playbook), *words, seconds=seconds, **environment)

    def run(self, *command: str, seconds: float = _SECONDS, **environment: str) -> float:
        """Any command in the benchmark's directory; as :meth:`playbook`."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
        clean["PATH"] = f"{_BIN}:{clean['PATH']}"
        # To a file: an ssh that stays behind to keep its connection open would hold a pipe open, too.
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
                raise BenchError(f"{command[0]}: {error.strerror}; make venv-ansible link makes it") from None
            took = time.monotonic() - began
            if done.returncode:
                output.seek(0)
                text = output.read().decode(errors="replace")[-2000:]
                raise BenchError(f"{' '.join(command)}: exit status {done.returncode}: {text}")
        return took


@contextlib.contextmanager
def lab(packages: Sequence[str] = ()) -> Iterator[Lab]:
    """A lab without hosts yet, see :class:`Lab`. Everything of it is removed at the end, also after a failure."""
    with tempfile.TemporaryDirectory(prefix="xgp-lab-") as name:
        made = Lab(Path(name), packages)
        made.remove()  # what a run that was killed left
        try:
            yield made
        finally:
            made.remove()
