# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host before the role changes it and print what stands in the way, as JSON on standard output.

Usage: ``preflight.py QUESTION`` where QUESTION is a JSON object:
``addr`` (address of the node), ``listen`` (address to bind, "" for all), ``port``, ``api_addr`` ("" for no TCP API),
``api_port``, ``others`` (bool: the fleet has other hosts), ``command`` (path of the command link),
``root`` (directory of the releases), ``unit``, ``interface`` (of the kernel data plane, "" for the address's own),
``templates`` (the role's ``agent_templates``, without the text of their ``content``).
Answer: ``{"errors": [sentence, ...]}``. Each sentence says where, what was expected and what was found.

Runs on the target under whatever Python Ansible found, hence no newer syntax and only the standard library.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys

PYTHON = "/usr/bin/python3"
MINIMUM = (3, 9)

_ACCOUNT = (r"[a-z_0-9][A-Za-z0-9_.-]{0,31}\$?\Z", "the name of an account")
#: key -> a pattern of its text, and what to call that
TEMPLATE_TEXTS = {
    "name": (
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z",
        "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
    ),
    "service": (r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", "the name of one of agent_services"),
    "path": (r"/(?!.*/\.{0,2}(/|\Z))[^\0\n]*[^/\0\n]\Z", "the absolute path of a file, without . and .."),
    "source": (r"/[^\0\n]*[^/\0\n]\Z", "the absolute path of a file on the host"),
    "mode": (r"0?[0-7]{3}\Z", 'three octal digits in quotes, such as "0644"'),
    "owner": _ACCOUNT,
    "group": _ACCOUNT,
    "user": _ACCOUNT,
    "drift": (r"(repair|report)\Z", "repair or report"),
}
TEMPLATE_KEYS = {*TEMPLATE_TEXTS, "content", "src", "validate", "reload", "timeout", "wait", "backup", "show_output"}


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
    if addr.is_unspecified or addr.is_multicast or str(addr) == "255.255.255.255":
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


def check_templates(templates: list) -> list[str]:
    """Every template must be whole, and none may share its name or its file with another."""
    errors = []
    for index, template in enumerate(templates):
        where = "agent_templates[%d]" % index
        if not isinstance(template, dict):
            errors.append("%s: expected a mapping, got %r" % (where, template))
            continue
        given = {key: value for key, value in template.items() if value is not None}
        if given.get("name"):
            where += " (%s)" % given["name"]
        errors += ["%s: %s" % (where, told) for told in check_template(given)]
    for key in ("name", "path"):
        values = [template.get(key) for template in templates if isinstance(template, dict)]
        for value in sorted({value for value in values if isinstance(value, str) and values.count(value) > 1}):
            times = values.count(value)
            errors.append("agent_templates: %s: expected each once, got %r %d times" % (key, value, times))
    return errors


def check_template(given: dict) -> list[str]:
    """What is wrong with the values of one template; each sentence begins with the key."""
    errors = []
    unknown = sorted(set(given) - TEMPLATE_KEYS)
    if unknown:
        errors.append("expected the keys %s, got %s" % (", ".join(sorted(TEMPLATE_KEYS)), ", ".join(unknown)))
    for key, (pattern, expected) in TEMPLATE_TEXTS.items():
        if key not in given and key not in ("name", "path"):
            continue
        value = given.get(key)
        if not isinstance(value, str) or not re.match(pattern, value):
            errors.append("%s: expected %s, got %s" % (key, expected, "none" if value is None else repr(value)))
    sources = [key for key in ("content", "src", "source") if key in given]
    if len(sources) != 1:
        errors.append("expected exactly one of content, src and source, got %s" % (" and ".join(sources) or "none"))
    for key in ("validate", "reload"):
        command = given.get(key, ["/"])
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            errors.append("%s: expected a list of arguments, each a text, got %r" % (key, command))
        elif not command[0].startswith("/"):
            errors.append("%s: expected the absolute path of a program first, got %r" % (key, command[0]))
    for key, least, most in (("timeout", 0.1, 600), ("wait", 0, 60)):
        value = given.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            errors.append("%s: expected seconds from %g to %g, got %r" % (key, least, most, value))
    for key in ("backup", "show_output"):
        if not isinstance(given.get(key, False), bool):
            errors.append("%s: expected true or false, got %r" % (key, given[key]))
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
    errors += check_templates(question["templates"])
    if not errors:  # without a sound address and systemd the question about ports makes no sense
        errors = check_ports(question)
    json.dump({"errors": errors}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
