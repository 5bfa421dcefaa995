# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks a host for obstacles to a deployment before the role changes the host.

Each obstacle is one sentence that contains the file or setting, the expected value and the value that was found. The
code runs on managed hosts, so it needs only the standard library.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import selectors
import shutil
import socket
import ssl
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _fingerprint
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._template_rules import check_templates

#: Function that runs a command and returns its exit status and its output.
Run = t.Callable[[t.List[str]], t.Tuple[int, str]]

PYTHON = "/usr/bin/python3"
MINIMUM = (3, 9)


def check_base(run: Run) -> list[str]:
    """Check for root privileges, systemd, the tools to unpack a release, and the version of the Python that runs the
    agent.
    """
    errors = []
    if os.geteuid() != 0:
        errors.append("privileges: expected root (become: true), got user id %d" % os.geteuid())
    if not os.path.isdir("/run/systemd/system"):
        errors.append("init: expected systemd as process 1, found no /run/systemd/system")
    for tool in ("tar", "gzip", "systemctl"):
        if not shutil.which(tool):
            errors.append("command %s: expected it to be installed, found none" % tool)
    if os.path.exists(PYTHON):  # if PYTHON does not exist, the role installs the package with PYTHON
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        status, output = run([PYTHON, "-I", "-c", code])
        text = output.strip()
        if status or tuple(int(part) for part in text.split(".")) < MINIMUM:
            errors.append("%s: expected Python %d.%d or later, got %s" % (PYTHON, *MINIMUM, text or "an error"))
    return errors


def check_address(question: dict[str, t.Any]) -> list[str]:
    """Check that other nodes can send to the node's address."""
    text = question["addr"]
    if not text:
        return [
            "xdp_gossip_agent_addr: expected an address, got none: ansible_host is no IP address and there is no "
            "default route"
        ]
    try:
        addr = ipaddress.ip_address(text)
    except ValueError:
        return ["xdp_gossip_agent_addr: expected an IPv4 or IPv6 address, got %r" % text]
    if addr.is_unspecified or addr.is_multicast or str(addr) == "255.255.255.255":
        return ["xdp_gossip_agent_addr: expected an address of one host, got %s" % addr]
    if addr.is_loopback and question["others"]:
        return [
            "xdp_gossip_agent_addr: expected an address that the other hosts reach, got the loopback address %s" % addr
        ]
    return []


def check_interface(question: dict[str, t.Any]) -> list[str]:
    """Check that the data plane's interface exists. If no interface is configured, there is nothing to check, because
    the data plane's loader chooses an interface later.
    """
    name = question["interface"]
    found = sorted(os.listdir("/sys/class/net"))
    if not name or name in found:
        return []
    return [
        "xdp_gossip_agent_dataplane_interface: expected an interface of this host (%s), got %r"
        % (", ".join(found), name)
    ]


def check_paths(question: dict[str, t.Any]) -> list[str]:
    """Check each path that the role will replace: another program must not have created it."""
    errors = []
    command, root = question["command"], question["root"]
    if os.path.lexists(command) and not (os.path.islink(command) and os.readlink(command).startswith(root + "/")):
        errors.append("%s: expected nothing or a link into %s, found something else" % (command, root))
    current = os.path.join(root, "current")
    if os.path.lexists(current) and not os.path.islink(current):
        errors.append("%s: expected a symbolic link, found something else" % current)
    return errors


def check_ports(question: dict[str, t.Any], run: Run) -> list[str]:
    """Check that each port is free or already used by the agent itself, and that the agent's addresses belong to this
    host.
    """
    listen = question["listen"] or ("::" if ":" in question["addr"] else "0.0.0.0")
    wanted = [
        ("xdp_gossip_agent_port", "UDP", socket.SOCK_DGRAM, listen, question["port"]),
        ("xdp_gossip_agent_port", "TCP", socket.SOCK_STREAM, listen, question["port"]),
    ]
    if question["api_addr"]:
        wanted.append(
            ("xdp_gossip_agent_api_port", "TCP", socket.SOCK_STREAM, question["api_addr"], question["api_port"])
        )
    errors = []
    own = None
    for name, label, kind, host, port in wanted:
        number = bind_error(kind, host, port)
        if number == errno.EADDRINUSE:
            own = own if own is not None else agent_sockets(question["unit"], run)
            holders = sockets_at(label.lower(), port)
            if holders and holders <= own:
                continue
        if number:
            why = WHY.get(number) or os.strerror(number)
            errors.append("%s: expected %s port %d on %s to be free, but %s" % (name, label, port, host, why))
    # Bind to port 0 (any free port), to check only whether the address belongs to this host.
    if not question["listen"] and bind_error(socket.SOCK_DGRAM, question["addr"], 0) == errno.EADDRNOTAVAIL:
        errors.append(
            "xdp_gossip_agent_addr: expected an address of this host, got %s. Where the others reach it by an "
            "address that is translated on the way, set xdp_gossip_agent_listen_addr to the address to bind, such as "
            "0.0.0.0" % question["addr"]
        )
    return errors


WHY = {
    errno.EADDRINUSE: "another process has it",
    errno.EADDRNOTAVAIL: "the address does not belong to this host",
}


def bind_error(kind: int, host: str, port: int) -> int:
    """Try to bind ``host:port``. Returns 0 if the bind succeeds, otherwise the error number.

    Like the agent, the function sets SO_REUSEADDR only for TCP.
    """
    host, zone = host.partition("%")[::2]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port, 0, socket.if_nametoindex(zone)) if zone else (host, port))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def agent_sockets(unit: str, run: Run) -> set[str]:
    """Return the inodes of the open sockets of the systemd unit's processes."""
    command = ["systemctl", "show", "--property=ControlGroup", "--value", unit]
    group = run(command)[1].strip()
    found: set[str] = set()
    if not group:
        return found
    for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd"):
        try:
            with open(place + group + "/cgroup.procs", encoding="ascii") as stream:
                processes = stream.read().split()
        except OSError:
            continue
        for process in processes:
            found |= _sockets_of("/proc/%s/fd" % process)
    return found


def _sockets_of(directory: str) -> set[str]:
    """Return the inodes of the sockets among the file descriptors in ``directory``, the directory ``fd`` of a process.

    A running agent opens and closes connections all the time, so each descriptor may be gone when it is read.
    """
    found: set[str] = set()
    try:
        descriptors = os.listdir(directory)
    except OSError:  # the process has ended
        return found
    for descriptor in descriptors:
        try:
            link = os.readlink("%s/%s" % (directory, descriptor))
        except OSError:
            continue
        if link.startswith("socket:["):
            found.add(link[len("socket:[") : -1])
    return found


def sockets_at(kind: str, port: int) -> set[str]:
    """Return the inodes of the IPv4 and IPv6 sockets that are bound to the port. For TCP, return only sockets that
    listen.

    Source: the tables in /proc/net, see proc(5).
    """
    found = set()
    for table in (kind, kind + "6"):
        try:
            with open("/proc/net/" + table, encoding="ascii") as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        listening = "0A" if kind == "tcp" else "07"
        found |= {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == listening}
    return found


def answering(seeds: list[str], own: tuple[str, int]) -> list[str]:
    """Return those entries of ``seeds`` that accept a TCP connection. Each entry is ``addr:port`` or ``name:port``.

    The function connects to all seeds at the same time, and waits at most two seconds after it has resolved their
    names.
    """
    waiting: dict[socket.socket, str] = {}
    found = []
    for seed in seeds:
        host, port = seed.rpartition(":")[::2]
        try:
            looked = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError, UnicodeError):
            continue
        for family, kind, proto, _name, address in looked[:4]:
            if address[:2] == own:
                continue
            try:
                client = socket.socket(family, kind, proto)
                client.setblocking(False)
                if client.connect_ex(address) in (0, errno.EINPROGRESS):
                    waiting[client] = seed
                else:
                    client.close()
            except OSError:
                continue
    end = time.monotonic() + 2
    with selectors.DefaultSelector() as selector:
        for client in waiting:
            selector.register(client, selectors.EVENT_WRITE)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for ready in selector.select(left):
                client = t.cast(socket.socket, ready[0].fileobj)
                selector.unregister(client)
                if not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    found.append(waiting[client])
    for client in waiting:
        client.close()
    return [seed for seed in seeds if seed in found]


def resolvable(seeds: list[str]) -> bool:
    """Return whether at least one seed has either an IP address or a name that this host can resolve."""
    for seed in seeds:
        host, port = seed.rpartition(":")[::2]
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
            return True
        except (OSError, ValueError, UnicodeError):
            continue
    return not seeds


def check_certificate(question: dict[str, t.Any], run: Run) -> list[str]:
    """If the API is configured with a certificate that is already on the host, check that the API can use this
    certificate.
    """
    paths = question["tls_cert"], question["tls_key"]
    if not all(paths):
        return []
    where = (
        "xdp_gossip_agent_api_tls_cert and xdp_gossip_agent_api_tls_key: expected %s and %s on the host to be a "
        "certificate and its key"
    )
    where %= paths
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*paths)
    except (OSError, ValueError) as error:
        return ["%s, but %s" % (where, error.strerror if isinstance(error, FileNotFoundError) else error)]
    if shutil.which("openssl"):
        command = ["openssl", "x509", "-noout", "-checkend", "0", "-in", paths[0]]
        if run(command)[0]:
            return ["%s, but it has ended" % where]
    return []


def check_secrets(question: dict[str, t.Any]) -> list[str]:
    """If the host has secrets of a fleet, check that the controller has the same secrets.

    If the secrets differ, either the host belongs to another fleet, or another controller has deployed the host. If the
    role overwrote the host's secrets, the host could no longer communicate with the members of its fleet. A host that
    has only former keys of this fleet was away while they were replaced.
    """
    if question["replace_secrets"]:
        return []
    place = question["config_dir"]
    remedy = (
        'Bring the fleet\'s secrets to this controller (README of the role, "A second controller"), or, to give the '
        "host new ones and cut it off from those that have the old, set xdp_gossip_agent_replace_secrets: true"
    )
    errors = []
    held = held_secrets(place)
    known = {secret.strip() for secret in question["secrets"]}
    if held and known and not held & known and not outdated(question):
        errors.append("%s: expected the secret that the controller has, found another. %s" % (place, remedy))
    elif held & known and question.get("all_known"):
        strange = fingerprints(question, (one for one in held - known if one not in retiring(place)))
        strange = [one for one in strange if one not in (question.get("former") or [])]
        if strange:
            told = (
                "%s: expected only keys that this controller has, found another (%s): another controller is rotating "
                "the key of this fleet. Continue there, or bring its files secret.key* to this controller"
            )
            errors.append(told % (place, ", ".join(strange)))
    authority = read(place + "/ca.crt")
    if authority and question["authority"] and authority.split() != question["authority"].split():
        errors.append(
            "%s/ca.crt: expected the certificate authority that the controller has, found another. %s" % (place, remedy)
        )
    return errors


def outdated(question: dict[str, t.Any]) -> str:
    """Return the fingerprint of the host's key if the host has only former keys of the fleet; "" otherwise."""
    held = held_secrets(question["config_dir"])
    former = question.get("former") or []
    if not held or not former or held & {secret.strip() for secret in question["secrets"]}:
        return ""
    found = fingerprints(question, held)
    return found[0] if all(one in former for one in found) else ""


def fingerprints(question: dict[str, t.Any], secrets: t.Iterable[str]) -> list[str]:
    """Return the fingerprints of secrets in the cluster, sorted; "malformed" for one that can be no key."""
    found = []
    for secret in secrets:
        try:
            found.append(_fingerprint.fingerprint(question.get("cluster") or "", secret))
        except ValueError:
            found.append("malformed")
    return sorted(found)


def retiring(place: str) -> set[str]:
    """Return the cluster secrets that ``agent.yml``, as the role writes it, calls retiring. They may be removed."""
    found = re.findall(r"(?m)^- file: (\S+)\n  state: retiring$", read(place + "/agent.yml"))
    return {read(path).strip() for path in found}


def held_secrets(place: str) -> set[str]:
    """Return the cluster secrets in the configuration directory ``place``: that in the file ``secret.key`` and those in
    the directory ``keys``.
    """
    paths = [place + "/secret.key"]
    try:
        paths += [entry.path for entry in os.scandir(place + "/keys")]
    except OSError:
        pass
    return {text for text in (read(path).strip() for path in paths) if text}


def read(path: str) -> str:
    """Return the text of a file, at most 1 MiB; "" if the file cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""


def look(question: dict[str, t.Any], run: Run) -> dict[str, t.Any]:
    """Run all checks. Returns the obstacles, and the facts about the host that the role needs before it changes the
    host.
    """
    errors = check_base(run) + check_address(question) + check_interface(question) + check_paths(question)
    errors += check_templates(question["templates"])
    if not errors:  # check_ports needs a valid address and systemd
        errors = check_ports(question, run)
    errors += check_secrets(question) + check_certificate(question, run)
    if not resolvable(question["seeds"]):
        told = ", ".join(question["seeds"])
        errors.append("xdp_gossip_agent_seeds: expected an address, or a name that this host knows, got %s" % told)
    current = question["root"] + "/current"
    installed = os.path.exists(current)
    return {
        "addr": question["addr"],
        "port": question["port"],
        "problems": errors,
        "answering": answering(question["seeds"], (question["addr"], question["port"])),
        "deployed": bool(held_secrets(question["config_dir"])),
        "outdated": outdated(question),
        "installed": installed,
        "wire": (read(current + "/WIRE").strip() or "unknown") if installed else "",
    }
