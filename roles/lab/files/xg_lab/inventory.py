# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the Ansible inventory of the lab and the known_hosts file of its hosts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .config import Config, Host
from .system import write_file

MARK = "# Written by the role xdp_gossip.fleet.lab; removed with the lab.\n"
MAX_SOCKET_PATH = 107
"""Longest path of a Unix socket on Linux, without the terminating zero byte."""


def render(config: Config, hosts: Sequence[Host]) -> str:
    """Return the text of the inventory: the hosts in the group `fleet`, and ssh options that check host keys."""
    lines = [MARK.rstrip("\n"), "fleet:", "  hosts:" if hosts else "  hosts: {}"]
    for host in hosts:
        lines += [
            f"    {host.name}:",
            f"      ansible_host: {host.address}",
            f"      lab_address6: {_text(host.address6)}",
        ]
    variables = {
        "ansible_connection": "ssh",
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(config.key_file),
        "ansible_ssh_common_args": " ".join(f"-o {option}" for option in _options(config)),
        "ansible_ssh_pipelining": True,
        # Store the secrets of a throw-away fleet beside the inventory of that fleet, and not beside the secrets of real
        # fleets.
        "xdp_gossip_agent_secret_dir": str(Path(config.inventory).parent / ".xdp-gossip"),
    }
    lines += ["  vars:", *(f"    {key}: {_text(value)}" for key, value in variables.items())]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    # Every JSON scalar is also a valid YAML scalar.
    return json.dumps(value)


def _options(config: Config) -> list[str]:
    options = [
        f"UserKnownHostsFile={config.known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "ConnectTimeout=10",
        # The keep-alive options close a shared connection to a host whose power was cut.
        "ServerAliveInterval=5",
        "ServerAliveCountMax=3",
    ]
    sockets = config.home / "cp"
    # ssh appends a dot and 16 characters while it creates the socket. If the path of the socket is too long, use
    # Ansible's default path.
    if len(str(sockets / f"root@{config.network}:65535")) + 17 <= MAX_SOCKET_PATH:
        options.append(f"ControlPath={sockets}/%r@%h:%p")
    return options


def write(config: Config, hosts: Sequence[Host]) -> bool:
    """Write the inventory and known_hosts; return whether one of the files changed."""
    keys = [(host.folder / "known_hosts").read_text(encoding="ascii") for host in hosts]
    (config.home / "cp").mkdir(mode=0o700, exist_ok=True)
    changed = write_file(config.known_hosts, "".join(keys))
    return write_file(Path(config.inventory), render(config, hosts)) or changed


def delete(config: Config) -> bool:
    """Delete the inventory file if the role has written it; return whether it was deleted."""
    path = Path(config.inventory)
    try:
        ours = path.read_text(encoding="utf-8").startswith(MARK)
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    if ours:
        path.unlink()
    return ours
