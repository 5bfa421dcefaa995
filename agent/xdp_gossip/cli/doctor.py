# SPDX-License-Identifier: MIT
"""``doctor``: look at everything an agent needs on this host, name what is wrong, and say what to do about it."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import tables
from .common import DEFAULT_CONFIG, FAILED, OK, CommandError, call, print_json, wants_json
from .findings import Finding

if TYPE_CHECKING:
    from ..config import AgentConfig

_LIBRARIES = ("aiohttp", "yaml", "cryptography", "msgpack", "nacl", "prometheus_client")
_OPTIONAL = {"rich": "tables and top on a terminal"}
_LEAST_FREE = 64 * 1024 * 1024
#: Counters of packets refused because sender and receiver do not agree on something, and what that is.
_DISAGREEMENTS = {
    "rx_bad_mac": "packets with a wrong signature: is the secret the same everywhere?",
    "rx_unknown_key": "packets with a key slot unknown here: add the key as staged everywhere before using it",
    "rx_wrong_key": "packets with another secret: is it the same everywhere?",
    "rx_foreign_cluster": "packets of another cluster: is `cluster` the same everywhere?",
    "rx_stale_time": "packets from too far in the past or future: are the clocks synchronised?",
    "rx_bad_address": "nodes told at an address that no other host can have: is their `node.addr` right?",
    "fleets_met": "crowds of unknown members met: another fleet with this cluster name and secret?",
    "datagrams_dropped_kernel": "datagrams lost in the socket buffer: raise net.core.rmem_max",
}

#: Problems of nodes (``docs/protocol.md``): how bad one is for the node that has it, what it means, what to do.
_PROBLEMS = {
    "twin": (
        "fail",
        "another host uses the same address and port",
        "ip neigh; stop one of the agents, or give it a node.addr of its own",
    ),
    "short_datagrams": (
        "warn",
        "the path there loses long datagrams without an error; they go over TCP",
        "find the tunnel or firewall that hides the MTU (ping -M do -s 1252), let ICMP through",
    ),
    "unreached": (
        "warn",
        "heard, but does not get what is sent to the address that it tells",
        "open its port (udp and tcp) in security groups and firewalls, forward it behind NAT, or correct node.addr",
    ),
    "no_common_family": (
        "warn",
        "no address family in common with this node",
        "give both an address of one family as node.addr, or listen_addr '::' and routes for both",
    ),
    "clock": (
        "fail",
        "its clock is more than half of max_clock_drift from the cluster's",
        "synchronise it (timedatectl set-ntp true); of two members nobody can tell which is right",
    ),
    "same_name": ("warn", "another node has the same name", "set node.name (the role: agent_name), then reload"),
}


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    doctor = commands.add_parser("doctor", help="find out what is wrong on this host", parents=[common])
    doctor.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help=f"(default: {DEFAULT_CONFIG})")
    doctor.set_defaults(handler=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    """0 when nothing fails (warnings are allowed), else 1."""
    findings = list(examine(args))
    if wants_json(args):
        print_json({"ok": not _failed(findings), "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            print(f"{finding.level:<4} {finding.check}: {tables.printable(finding.text)}")
            if finding.remedy:
                print(f"     -> {finding.remedy}")
    return FAILED if _failed(findings) else OK


def _failed(findings: list[Finding]) -> bool:
    return any(finding.level == "fail" for finding in findings)


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """All findings, the ones that explain others first."""
    from ..config import ConfigError, load

    yield from libraries()
    config = None
    try:
        config = load(args.config)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("fail", "configuration", problem, "correct the file, then xdp-gossip check-config")
    else:
        yield Finding("ok", "configuration", f"{args.config} is valid")
        yield from files(config)
    status, nodes, files_rendered, why = _ask(args, config)
    if status is not None:
        yield from running(status, config, nodes)
        yield from rendered(files_rendered)
    elif config is not None:
        yield Finding(
            "warn", "agent", f"does not answer ({why})", "systemctl start xdp-gossip; journalctl -u xdp-gossip"
        )
        yield from ports(config)
    else:
        yield Finding("warn", "agent", f"does not answer ({why})", "correct the configuration first")
    if config is not None:
        from . import doctor_dataplane

        yield from doctor_dataplane.examine(config, status, nodes)


def libraries() -> Iterator[Finding]:
    """Python and what the agent imports."""
    version = ".".join(map(str, sys.version_info[:3]))
    if tuple(sys.version_info) < (3, 9):
        yield Finding("fail", "python", version, "the agent needs Python 3.9 or later")
    else:
        yield Finding("ok", "python", version)
    for name in (*_LIBRARIES, *_OPTIONAL):
        package = f"python3-{name.replace('_', '-')}"
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            level = "warn" if name in _OPTIONAL else "fail"
            purpose = f", needed for {_OPTIONAL[name]}" if name in _OPTIONAL else ""
            yield Finding(level, "library", f"{name} is missing{purpose} ({error})", f"install {package} or its like")
        else:
            yield Finding("ok", "library", f"{name} {_version(name, module)}")


def _version(name: str, module: Any) -> str:
    from importlib.metadata import PackageNotFoundError, version

    distribution = {"yaml": "PyYAML"}.get(name, name)
    try:
        return version(distribution)
    except PackageNotFoundError:
        return str(getattr(module, "__version__", "of unknown version"))


def files(config: AgentConfig) -> Iterator[Finding]:
    """The configuration's own mode, and the state directory."""
    mode = os.stat(config.path).st_mode
    if mode & 0o002:
        yield Finding("fail", "configuration", f"{config.path} can be written by anybody", f"chmod o-w {config.path}")
    directory = config.state_dir
    try:
        found = os.stat(directory)
    except OSError as error:
        remedy = "the agent's unit makes it at start; by hand: mkdir, and chown it to the agent's user"
        yield Finding("warn", "state", f"{directory}: {error.strerror}", remedy)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("fail", "state", f"{directory} is no directory", "name a directory as state_dir")
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield Finding("fail", "state", f"{directory} cannot be written by this user", "run doctor as root or chown it")
    elif shutil.disk_usage(directory).free < _LEAST_FREE:
        free = shutil.disk_usage(directory).free // (1024 * 1024)
        yield Finding("fail", "state", f"{directory}: {free} MiB left", "make room: a full disk refuses publishes")
    else:
        yield Finding("ok", "state", f"{directory} can be written")
    if found.st_mode & 0o007:
        yield Finding("warn", "state", f"{directory} is open to others", f"chmod o= {directory}")


def ports(config: AgentConfig) -> Iterator[Finding]:
    """Whether the agent could listen where it should."""
    listen = config.listen_addr
    wanted = [
        ("gossip", listen, config.node.port, socket.SOCK_DGRAM),
        ("gossip", listen, config.node.port, socket.SOCK_STREAM),
    ]
    if config.api.listen is not None:
        wanted.append(("api", config.api.listen.ip, config.api.listen.port, socket.SOCK_STREAM))
    for check, ip, port, kind in wanted:
        name = f"{ip} port {port}/{'udp' if kind == socket.SOCK_DGRAM else 'tcp'}"
        with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, kind)) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    text = f"{name}: no interface has {ip}: the agent waits for it, and serves nobody there yet"
                    yield Finding("warn", check, text, "give the address to an interface, or name another one")
                else:
                    yield Finding("fail", check, f"{name}: {error.strerror}", f"ss -lntup | grep :{port}")
            else:
                yield Finding("ok", check, f"{name} is free")


def _ask(
    args: argparse.Namespace, config: AgentConfig | None
) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[dict[str, Any]], str]:
    """The status of the agent, the nodes that it knows and its rendered files, or why there is nothing."""
    found: list[Any] = []

    async def work(client: Any) -> int:
        found.append(await client.status())
        found.append((await client.nodes())["nodes"])
        found.append(await client.rendered())
        return OK

    named = getattr(args, "socket", None) or getattr(args, "endpoint", None)
    if not named and config is not None and config.api.socket:
        args = argparse.Namespace(**{**vars(args), "socket": config.api.socket})
    try:
        call(args, work)
    except CommandError as error:
        return None, [], [], str(error)
    return found[0], found[1], found[2], ""


#: Packets of others, of any kind.
_RECEIVED = ("heartbeat", "swap_request", "swap_response", "metadata", "record", "probe")
#: Requests without a single packet of anybody, after which nobody seems to reach this node.
_IN_VAIN = 5


def told_address(status: dict[str, Any]) -> Iterator[Finding]:
    """The address that the node tells, where it listens, and whether anything ever arrives."""
    told, counters = tables.address(status["node"]), status["counters"]
    where = f"tells others {told}, listens on {status.get('listen', 'an unknown address')}"
    asked = counters.get("tx_swap_request", 0)
    arrived = sum(counters.get(f"rx_{kind}", 0) for kind in _RECEIVED)
    if status["wire"] == "native" and asked >= _IN_VAIN and not arrived:
        remedy = (
            "open the port (udp and tcp) in security groups and firewalls, forward it to this host behind NAT, or set "
            "node.addr to the address by which others reach it"
        )
        yield Finding("fail", "address", f"{where}; {asked} requests were sent and nothing ever arrived", remedy)
    elif counters.get("source_unavailable"):
        yield Finding("warn", "address", f"{where}; no interface of this host has {told}", "behind NAT that is right")
    else:
        yield Finding("ok", "address", where)


def problems(status: dict[str, Any], nodes: list[dict[str, Any]]) -> Iterator[Finding]:
    """What the agent finds wrong with itself and with other nodes, by ``problems`` of each."""
    for problem, (level, text, remedy) in _PROBLEMS.items():
        if problem in status["node"].get("problems", ()):
            yield Finding(level, "identity", f"this node: {text}", remedy)
        found = [node for node in nodes if not node["local"] and problem in node.get("problems", ())]
        if found:
            shown = ", ".join(f"{node['name']} ({tables.address(node)})" for node in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            yield Finding("warn", "identity", f"{shown}{more}: {text}", remedy)


#: Part of ``limits.store`` from which on it counts as nearly full.
_NEARLY_FULL = 0.8
#: Ends of the counters of documents from others that a limit of this node kept out, and which limit.
_REFUSED = {"too_large": "document", "too_many": "documents", "store_full": "store"}


def documents(status: dict[str, Any]) -> Iterator[Finding]:
    """How many documents there are, how much room is left, and whether a limit kept any out."""
    held, most = status["document_bytes"], status["document_bytes_limit"]
    text = f"{status['documents']} with {held} of at most {most} bytes (limits.store)"
    if held >= _NEARLY_FULL * most:
        yield Finding("warn", "documents", text, "delete some, or raise limits.store on every member")
    else:
        yield Finding("ok", "documents", text)
    for reason, limit in _REFUSED.items():
        refused = status["counters"].get(f"documents_refused_{reason}")
        if refused:
            told = f"others' documents were refused {refused} times, because of limits.{limit} here"
            yield Finding("fail", "documents", told, f"give limits.{limit} the same value on every member")


def rendered(templates: list[dict[str, Any]]) -> Iterator[Finding]:
    """Rendered files that are not as the documents say."""
    for template in templates:
        text = f"{template['name']} ({template['path']}): {template['error'] or template.get('drift')}"
        if template.get("drift"):
            remedy = "change the template or its documents instead; systemctl reload xdp-gossip puts the file right"
            yield Finding("warn", "rendered files", text, remedy)
        elif template["state"] == "failed":
            remedy = "xdp-gossip rendered; journalctl -u xdp-gossip-files; then systemctl reload xdp-gossip"
            yield Finding("fail", "rendered files", text, remedy)
    if templates and all(template["state"] == "applied" for template in templates):
        yield Finding("ok", "rendered files", f"{len(templates)} in place")


def running(
    status: dict[str, Any], config: AgentConfig | None, nodes: list[dict[str, Any]] | tuple[()] = ()
) -> Iterator[Finding]:
    """What a living agent says of itself."""
    if status["state"] == "running":
        yield Finding("ok", "agent", f"{status['version']} runs as {tables.address(status['node'])}")
    else:
        yield Finding("warn", "agent", f"its heartbeats are {status['state']}", "xdp-gossip node start")
    if status.get("waiting"):
        remedy = "nothing, if that comes by itself; else give it to an interface, or name another one"
        yield Finding("warn", "agent", f"waiting for {status['waiting']}", remedy)
    if status.get("catching_up"):
        text = f"it has not caught up with the cluster since it started: {status['catching_up']}"
        yield Finding("warn", "agent", text, "nothing, if that goes on; rendered files wait (wait_for_members)")
    members = status["members"]
    others = members["alive"] + members["suspect"] - 1
    yield from told_address(status)
    if config is not None and (config.seeds or config.seed_names) and others < 1:
        remedy = f"open port {config.node.port} (udp and tcp) both ways; compare cluster and secret"
        yield Finding("warn", "members", "no other node is seen, though there are seeds", remedy)
    else:
        yield Finding("ok", "members", f"{others} other nodes present, {members['suspect']} of them suspect")
    yield from problems(status, list(nodes))
    offset, most = status["clock_offset"], config.max_clock_drift if config is not None else 60.0
    if abs(offset) > most / 2:
        yield Finding("fail", "clock", f"{offset:+.3f} s to the cluster", "synchronise it (timedatectl set-ntp true)")
    else:
        yield Finding("ok", "clock", f"{offset:+.3f} s to the cluster")
    yield from documents(status)
    if status.get("storage_error"):
        yield Finding("fail", "state", status["storage_error"], "make room or repair the disk; the agent tries again")
    for problem in status.get("state_problems", []):
        remedy = "nothing, if others hold what was lost; look at the disk, and remove the file when it is not needed"
        yield Finding("warn", "state", problem, remedy)
    for found in status.get("internal_errors", []):
        text = f"{found['count']} internal errors in {found['task']} at {found['place']}; the last: {found['error']}"
        yield Finding("fail", "agent", text, "report it with the lines of journalctl -u xdp-gossip")
    guesses = status["counters"].get("api_unauthorized", 0)
    if guesses:
        remedy = "journalctl -u xdp-gossip says whose; who should have access may have a former token"
        yield Finding("warn", "API", f"{guesses} requests had a token that is not this agent's", remedy)
    for name, text in _DISAGREEMENTS.items():
        if status["counters"].get(name):
            yield Finding("warn", "network", f"{status['counters'][name]} {text}", "xdp-gossip status --counters")
