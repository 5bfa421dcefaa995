# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host before the role changes it and print what stands in the way, as JSON on standard output.

Usage: ``preflight.py QUESTION`` where QUESTION is a JSON object:
``addr`` (address of the node), ``listen`` (address to bind, "" for all), ``port``, ``api_addr`` ("" for no TCP API),
``api_port``, ``others`` (bool: the fleet has other hosts), ``command`` (path of the command link),
``root`` (directory of the releases), ``unit``, ``interface`` (of the kernel data plane, "" for the address's own).
Answer: ``{"errors": [sentence, ...]}``. Each sentence says where, what was expected and what was found.

Runs on the target under whatever Python Ansible found, hence no newer syntax and only the standard library.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys

PYTHON = "/usr/bin/python3"
MINIMUM = (3, 9)


def check_base() -> list[str]:
    """Root, systemd, the tools that unpacking needs, and the Python that the agent will run under."""
    errors = []
    if os.geteuid() != 0:
        errors.append("privileges: expected root (become: true), got user id %d" % os.geteuid())
    if not os.path.isdir("/run/systemd/system"):
        errors.append("init: expected systemd as process 1, found no /run/systemd/system")
    for tool in ("tar", "gzip", "systemctl"):
        if not shutil.which(tool):
            errors.append("command %s: expected it to be installed, found none" % tool)
    if os.path.exists(PYTHON):  # else the package installation brings it
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        found = subprocess.run([PYTHON, "-I", "-c", code], stdout=subprocess.PIPE, timeout=20, check=False)
        text = found.stdout.decode("ascii", "replace").strip()
        if found.returncode or tuple(int(part) for part in text.split(".")) < MINIMUM:
            errors.append("%s: expected Python %d.%d or later, got %s" % (PYTHON, *MINIMUM, text or "an error"))
    return errors


def check_address(question: dict) -> list[str]:
    """The node's address must be one that other nodes can send to."""
    text = question["addr"]
    if not text:
        return [
            "agent_addr: expected an address, got none: ansible_host is no IP address and there is no default route"
        ]
    try:
        addr = ipaddress.ip_address(text)
    except ValueError:
        return ["agent_addr: expected an IPv4 or IPv6 address, got %r" % text]
    if addr.is_unspecified or addr.is_multicast:
        return ["agent_addr: expected an address of one host, got %s" % addr]
    if addr.is_loopback and question["others"]:
        return ["agent_addr: expected an address that the other hosts reach, got the loopback address %s" % addr]
    return []


def check_interface(question: dict) -> list[str]:
    """An interface that is named must be there; which one owns the address is for the loader to find out."""
    name = question["interface"]
    found = sorted(os.listdir("/sys/class/net"))
    if not name or name in found:
        return []
    return ["agent_dataplane_interface: expected an interface of this host (%s), got %r" % (", ".join(found), name)]


def check_paths(question: dict) -> list[str]:
    """What the role will write must not be somebody else's."""
    errors = []
    command, root = question["command"], question["root"]
    if os.path.lexists(command) and not (os.path.islink(command) and os.readlink(command).startswith(root + "/")):
        errors.append("%s: expected nothing or a link into %s, found something else" % (command, root))
    current = os.path.join(root, "current")
    if os.path.lexists(current) and not os.path.islink(current):
        errors.append("%s: expected a symbolic link, found something else" % current)
    return errors


def bind_error(kind: int, host: str, port: int) -> str:
    """Why ``host:port`` cannot be bound, or "" when it can. SO_REUSEADDR as the agent sets it, for TCP only."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "another process has it"
            if error.errno == errno.EADDRNOTAVAIL:
                return "the address does not belong to this host"
            return error.strerror or str(error)
    return ""


def check_ports(question: dict) -> list[str]:
    """The ports must be free, unless the agent itself is what holds them."""
    active = subprocess.run(["systemctl", "is-active", "--quiet", question["unit"]], timeout=20, check=False)
    if active.returncode == 0:
        return []
    listen = question["listen"] or ("::" if ":" in question["addr"] else "0.0.0.0")
    wanted = [
        ("agent_port", "UDP", socket.SOCK_DGRAM, listen, question["port"]),
        ("agent_port", "TCP", socket.SOCK_STREAM, listen, question["port"]),
    ]
    if question["api_addr"]:
        wanted.append(("agent_api_port", "TCP", socket.SOCK_STREAM, question["api_addr"], question["api_port"]))
    errors = []
    for name, label, kind, host, port in wanted:
        why = bind_error(kind, host, port)
        if why:
            errors.append("%s: expected %s port %d on %s to be free, but %s" % (name, label, port, host, why))
    return errors


def main() -> int:
    """Answer the question given as the only argument."""
    question = json.loads(sys.argv[1])
    errors = check_base() + check_address(question) + check_interface(question) + check_paths(question)
    if not errors:  # without a sound address and systemd the question about ports makes no sense
        errors = check_ports(question)
    json.dump({"errors": errors}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
