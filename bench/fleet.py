# SPDX-License-Identifier: MIT
"""A fleet of hosts on one bridge. Each host is a network namespace with an agent. The fleet is removed at the end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xdp_gossip.core.types import Address

from . import agents, netns, packets
from .agents import Agent

HUB = f"{netns.PREFIX}-hub"
_FIRST = ipaddress.IPv4Address("198.18.64.10")
_NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default")
#: Number of data planes that are loaded in parallel. The compilation of a data plane takes about a second on one core.
_AT_ONCE = 2


@contextlib.contextmanager
def fleet(count: int, plane: str, **settings: Any) -> Iterator[list[Agent]]:
    """Context manager: ``count`` hosts with loaded data planes, on which no agent has been started yet.

    Raises ``BenchError`` if a host cannot be created, or if the log of an agent contains internal errors at the end.
    """
    names = [f"{netns.PREFIX}{number}" for number in range(count)]
    with agents.workspace() as base, netns.namespaces(HUB, *names), neighbour_room(count):
        wire(names)
        addresses = [address_of(number) for number in range(count)]
        seeds = [str(address) for address in addresses[:2]]
        hosts: list[Agent] = []
        try:
            for number, (name, address) in enumerate(zip(names, addresses)):
                hosts.append(Agent(base, f"host{number}", name, "eth0", address, plane, seeds=seeds, **settings))
            with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(Agent.bring_plane_up, hosts))
            yield hosts
            for host in hosts:
                host.expect_no_internal_errors()
        finally:
            for host in hosts:
                host.end()


def form(hosts: Sequence[Agent], total: int, probed: bool = False, seconds: float = 90.0) -> float:
    """Start the agents of ``hosts``, and wait until each of them lists ``total`` members.

    Return the seconds from the moment at which all agents serve their APIs until the end of the wait.
    """
    for host in hosts:
        host.launch(probed=probed)
    for host in hosts:
        host.wait_ready()

    def missing() -> str | None:
        for host in hosts:
            alive = host.status()["members"]["alive"]
            if alive != total:
                return f"{host.name} lists {alive} members, expected {total}\n{host.log_tail()}"
        return None

    return agents.until(missing, seconds, 0.5)


def address_of(number: int) -> Address:
    """The address of host ``number``."""
    return Address(str(_FIRST + number), packets.PORT)


def port_of(number: int, prefix: str = netns.PREFIX) -> str:
    """Name of the bridge port of host ``number`` in the hub's namespace."""
    return f"{prefix}v{number}"


def wire(names: Sequence[str], hub: str = HUB, prefix: str = netns.PREFIX, mtu: int = 1500) -> None:
    """Create a bridge in the hub's namespace, and a veth pair from the bridge to each host.

    GRO is on at the hub's end of each pair, because veth without GRO drops frames redirected by XDP. ``prefix``:
    beginning of the names of all links in the hub's namespace. ``mtu``: MTU of all links in bytes.
    """
    bridge = f"{prefix}br"
    netns.run("ip", "-n", hub, "link", "add", bridge, "mtu", str(mtu), "type", "bridge")
    netns.run("ip", "-n", hub, "link", "set", bridge, "up")
    ports = [port_of(number, prefix) for number in range(len(names))]
    netns.batch(
        [
            f"link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}"
            for port, name in zip(ports, names)
        ],
        hub,
    )
    netns.batch([f"link set {port} master {bridge} up" for port in ports], hub)
    script = "for port in " + " ".join(ports) + '; do ethtool -K "$port" gro on || exit 1; done'
    netns.run("sh", "-c", script, namespace=hub, seconds=60)
    for number, name in enumerate(names):
        netns.batch([f"address add {_FIRST + number}/20 dev eth0", "link set eth0 up"], name)


@contextlib.contextmanager
def neighbour_room(count: int) -> Iterator[None]:
    """Context manager: raise the kernel's limits on neighbour entries to what ``count`` hosts need.

    All namespaces share the kernel's limits, and every host has a neighbour entry for every other host.
    """
    needed = 4 * count * count + 4096
    before = {}
    try:
        for name in ("gc_thresh3", "gc_thresh2", "gc_thresh1"):
            path = _NEIGHBOURS / name
            value = path.read_text().strip()
            if int(value) < needed:
                path.write_text(f"{needed}\n")
                before[path] = value
        yield
    finally:
        for path, value in reversed(before.items()):
            path.write_text(f"{value}\n")
