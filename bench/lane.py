# SPDX-License-Identifier: MIT
"""One link between a generator and a node under test, each in a namespace of its own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xdp_gossip.core.types import Address

from . import netns, packets, programs
from .programs import Generator

GENERATOR, NODE = f"{netns.PREFIX}-gen", f"{netns.PREFIX}-node"
OUTSIDE, INSIDE = f"{netns.PREFIX}a", f"{netns.PREFIX}b"
PEER = Address("198.18.64.1", packets.PORT)
LOCAL = Address("198.18.64.2", packets.PORT)
PEER_MAC, LOCAL_MAC = bytes.fromhex("02584700000a"), bytes.fromhex("02584700000b")
#: Seconds to wait until the last frames have gone through.
_SETTLE = 0.02


@contextlib.contextmanager
def lane() -> Iterator[None]:
    """Both namespaces and the link; what the node sends is dropped by an XDP program at the generator's end.

    The neighbours are known beforehand. GRO is on at both ends: without it, or a program, veth drops what XDP sends.
    """
    with netns.namespaces(GENERATOR, NODE):
        netns.run(
            *("ip", "link", "add", OUTSIDE, "netns", GENERATOR, "address", _text(PEER_MAC), "type", "veth"),
            *("peer", "name", INSIDE, "netns", NODE, "address", _text(LOCAL_MAC)),
        )
        for namespace, name, address in ((GENERATOR, OUTSIDE, PEER), (NODE, INSIDE, LOCAL)):
            netns.run("ip", "-n", namespace, "address", "add", f"{address.ip}/20", "dev", name)
            netns.run("ip", "-n", namespace, "link", "set", name, "up")
            netns.run("ethtool", "-K", name, "gro", "on", namespace=namespace)
        netns.run("ip", "-n", GENERATOR, "neighbour", "replace", LOCAL.ip, "lladdr", _text(LOCAL_MAC), "dev", OUTSIDE)
        neighbours([PEER])
        module = programs.compile_source(programs.HERE / "baseline.c", {})
        with programs.attached(programs.load(module, "drop", "XDP"), GENERATOR, OUTSIDE):
            yield


def framer() -> packets.Framer:
    """Makes frames from the generator's end to the node's."""
    return packets.Framer(PEER, LOCAL, PEER_MAC, LOCAL_MAC)


def neighbours(addresses: list[Address]) -> None:
    """Let the node know every address of the list as a neighbour behind the link."""
    ips = sorted({address.ip for address in addresses})
    netns.batch([f"neighbour replace {ip} lladdr {_text(PEER_MAC)} dev {INSIDE} nud permanent" for ip in ips], NODE)


def _text(mac: bytes) -> str:
    return mac.hex(":")


def received() -> int:
    """Frames that the node's end took since it was made, by the driver's count."""
    return _taken(NODE, INSIDE)


def copies() -> int:
    """Frames that came back to the generator's end since it was made."""
    return _taken(GENERATOR, OUTSIDE)


def _taken(namespace: str, name: str) -> int:
    counts = netns.statistics(namespace, name)
    return sum(value for key, value in counts.items() if key.startswith("rx_queue") and key.endswith("xdp_packets"))


@dataclass(frozen=True)
class Burst:
    """What became of the frames of one burst: ``seconds`` of processor time, frames ``handled``, ``copies`` made."""

    seconds: float
    handled: int
    copies: int


def burst(generator: Generator, count: int, handled: Callable[[], int] = received) -> Burst:
    """Send ``count`` frames from the one processor that the caller is pinned to, and which does the node's work too.

    The time is that of the calling thread, in which the receivers' polls run as well, and of the processor's
    ksoftirqd, which takes over when they become too many. What other processes use does not count.
    """
    (cpu,) = os.sched_getaffinity(0)
    helper = kernel_thread(f"ksoftirqd/{cpu}")
    before, copied = handled(), copies()
    began, helped = time.thread_time_ns(), run_time(helper)
    generator.send(count)
    spent = time.thread_time_ns() - began
    time.sleep(_SETTLE)
    spent += run_time(helper) - helped
    return Burst(spent / 1e9, handled() - before, copies() - copied)


def kernel_thread(name: str) -> int:
    """Process id of a kernel thread. Raises ``BenchError``."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/comm", encoding="ascii", errors="replace") as comm:
                if comm.read().rstrip("\n") == name:
                    return int(entry)
    raise netns.BenchError(f"{name}: expected a kernel thread of this name, found none")


def run_time(pid: int) -> int:
    """Nanoseconds that a process was on a processor since it began."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """The calling thread runs on one processor meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
