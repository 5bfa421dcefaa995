# SPDX-License-Identifier: MIT
"""A world in which what the documentation says is true.

Its own mounts, network and processes (namespaces): there, agents serve 198.18.0.11 to 198.18.0.13 and
/run/xdp-gossip/api.sock, the fleet's authority is /etc/ssl/fleet-ca.pem, the token lies where the examples have it, and
a command may write to /tmp, /etc and /run as it likes, and nowhere else. Everything goes when the world is closed, or
this process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certificates
from snippets import ROOT

AGENT = ROOT / "agent"
#: The control node's Ansible.
ANSIBLE = ROOT / ".cache" / "venv" / "ansible" / "bin"
PYTHON = "/usr/bin/python3"
TOKEN = "a-token-for-the-tests-of-the-documentation"
NEW_SECRET = "xgk1_3bXYqF5kc0bC0nT1mXn0rW7x2vJ8oZkP4aQe9LdUhsM"
SECRET = "xgk1_rDk23OF242z0NZUhLSxexiIEILfCI-s-9VLke6OCpec"


class Failed(AssertionError):
    """A command did not end as expected; ``str()`` has its output."""


@dataclass(frozen=True)
class Member:
    """An agent of a world: where it gossips, what it is called, and what it says of itself."""

    addr: str
    port: int
    name: str
    private_data: str = ""
    zone: str = ""

    @property
    def address(self) -> str:
        """As in the NodeList."""
        return f"{self.addr}:{self.port}"


#: The fleet of the examples. Private data and zones as they describe them.
HOSTS = [
    Member("198.18.0.11", 8000, "host1", '{"role": "db", "rack": "1"}', "a"),
    Member("198.18.0.12", 8000, "host2", '{"role": "web", "rack": "2"}', "b"),
    Member("198.18.0.13", 8000, "host3", '{"role": "web", "rack": "3"}', "b"),
]
#: The fleet of the sessions in docs/cli.md.
SESSION = [Member("127.0.0.1", 18101, "n1", "rack 1"), Member("127.0.0.1", 18102, "n2")]


class World:
    """One world. The first member's agent is that of `this host`. TCP port 8001 speaks HTTP, with ``tls`` HTTPS.

    ``deploys``: whether a deployment that the documentation shows changes the agents.
    """

    def __init__(self, directory: Path, members: list[Member], *, tls: bool, deploys: bool = False) -> None:
        self.directory = directory
        self.deploys = deploys
        self.home = directory / "home"
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        # The key with which an example signs.
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.home / ".ssh" / "release")]
        subprocess.run(keygen, check=True, capture_output=True, timeout=60)
        self._bin = self._programs()
        collections = directory / "collections" / "ansible_collections" / "xdp_gossip"
        collections.mkdir(parents=True)
        (collections / "fleet").symlink_to(ROOT)
        addresses = sorted({member.addr for member in members})
        authority, certificate, key = certificates.write(directory, addresses)
        self._files: dict[str, tuple[str, int]] = {
            "/etc/ssl/fleet-ca.pem": (authority.read_text(), 0o644),
            "/etc/xdp-gossip/secret.key": (SECRET + "\n", 0o600),
            # In the middle of a rotation.
            "/etc/xdp-gossip/old.key": (SECRET + "\n", 0o600),
            "/etc/xdp-gossip/new.key": (NEW_SECRET + "\n", 0o600),
            "/etc/xdp-gossip/tls.pem": (certificate.read_text(), 0o644),
            "/etc/xdp-gossip/tls.key": (key.read_text(), 0o600),
            # curl takes an error of the server's for a success unless told.
            str(self.home / ".xdp-gossip/default/ca.crt"): (authority.read_text(), 0o600),
            "/etc/prometheus/xdp-gossip-ca.crt": (authority.read_text(), 0o644),
            str(self.home / ".curlrc"): ("fail\nsilent\nshow-error\n", 0o600),
        }
        for path in (
            "/etc/xdp-gossip/api.token",
            "/etc/prometheus/xdp-gossip.token",
            self.home / ".config/xdp-gossip/token",
            self.home / ".fleet-token",
            self.home / ".xdp-gossip/default/api.token",
        ):
            self._files[str(path)] = (TOKEN + "\n", 0o600)
        agents = [self._agent(number, members, tls) for number in range(len(members))]
        description = {
            "directory": str(directory),
            "checkout": str(ROOT),
            "keep": [str(ROOT), str(directory)],
            "files": self._files,
            "agents": agents,
            "addresses": [f"{address}/32" for address in addresses if not address.startswith("127.")],
            "command": str(AGENT / "bin" / "xdp-gossip"),
        }
        (directory / "world.json").write_text(json.dumps(description))
        self._process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
                PYTHON,
                str(Path(__file__).parent / "supervisor.py"),
                str(directory / "world.json"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        report = self._process.stdout.readline()
        if not report:
            raise Failed(f"the world could not be made:\n{self._process.stderr.read()}")
        self.pid = int(json.loads(report)["pid"])

    def _agent(self, number: int, members: list[Member], tls: bool) -> dict[str, str]:
        """Write the configuration of an agent; the first one's is where a host has it."""
        member = members[number]
        socket = "/run/xdp-gossip/api.sock" if number == 0 else str(self.directory / f"n{number}.sock")
        config = "/etc/xdp-gossip/agent.yml" if number == 0 else str(self.directory / f"n{number}.yml")
        api: dict[str, Any] = {"socket": socket}
        if not member.addr.startswith("127."):
            api |= {"listen": f"{member.addr}:8001", "token_file": "/etc/xdp-gossip/api.token"}
            if tls:
                api["tls"] = {"cert": "/etc/xdp-gossip/tls.pem", "key": "/etc/xdp-gossip/tls.key"}
        state = self.directory / f"state{number}"
        state.mkdir(mode=0o700)
        settings = {
            "node": {
                "addr": member.addr,
                "port": member.port,
                "name": member.name,
                "private_data": member.private_data,
            },
            "zone": member.zone,
            "listen_addr": member.addr,
            "protocol": "UDP",
            "cycle": 0.3,
            "timeout": 30,
            "secret_key_file": "/etc/xdp-gossip/secret.key",
            "seeds": [members[0].address] if number else [],
            "state_dir": str(state),
            "api": api,
        }
        self._files[config] = (json.dumps(settings), 0o600)  # JSON is YAML
        return {"config": config, "socket": socket}

    def _programs(self) -> Path:
        """A directory for the PATH, with the commands that the documentation uses and no others of this checkout's."""
        programs = self.directory / "bin"
        programs.mkdir()
        for program in ANSIBLE.glob("ansible*"):
            (programs / program.name).symlink_to(program)
        if not (programs / "ansible-playbook").exists():
            raise Failed(f"expected Ansible in {ANSIBLE}, found none; `make venv-ansible` puts it there")
        (programs / "xdp-gossip").symlink_to(AGENT / "bin" / "xdp-gossip")
        return programs

    def environment(self) -> dict[str, str]:
        """What commands see."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self._bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            # Ansible looks up root's home by itself.
            "ANSIBLE_REMOTE_TMP": "/tmp/.ansible",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_NOCOWS": "true",
        }

    def run(self, *command: str, cwd: Path, seconds: float = 120, status: int | None = 0) -> str:
        """Run a command in the world; returns its output and errors. ``status`` None allows any exit status.

        Raises :class:`Failed` when it ends otherwise, or not within ``seconds``.
        """
        process = subprocess.Popen(
            # The directory is changed to inside, where it is another mount.
            [
                "nsenter",
                f"--target={self.pid}",
                "--mount",
                "--net",
                "--pid",
                "sh",
                "-c",
                'cd "$0" && exec "$@"',
                str(cwd),
                *command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise Failed(f"{' '.join(command)}: not done after {seconds:g} s\n{output}") from None
        if status is not None and process.returncode != status:
            text = f"{' '.join(command)}: expected exit status {status}, got {process.returncode}\n{output}"
            raise Failed(text)
        return output

    def close(self) -> None:
        """End everything in the world."""
        if self._process.poll() is None:
            self._process.communicate(timeout=30)

    def logs(self) -> str:
        """What the agents wrote."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.directory.glob("*.log")))


def shown(text: str) -> None:
    """Keep a text for the report of a failed test."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
