# SPDX-License-Identifier: MIT
"""The lane: one link between a generator and a node under test, each in its own network namespace."""

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
#: Seconds to wait after a burst, so that the node can process the last frames of the burst.
_SETTLE = 0.02


@contextlib.contextmanager
def lane() -> Iterator[None]:
    """Context manager: the two network namespaces of the lane, and the link between them. An XDP program at the
    generator's end drops the node's frames.

    The neighbour entries of both ends are permanent. GRO is on at both ends of the link, because veth drops frames
    redirected by XDP if the receiving end has neither GRO nor an XDP program.
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
    """A framer for frames from the generator to the node."""
    return packets.Framer(PEER, LOCAL, PEER_MAC, LOCAL_MAC)


def neighbours(addresses: list[Address]) -> None:
    """Add permanent neighbour entries for all ``addresses`` to the node, so that frames to these addresses go over the
    link.
    """
    ips = sorted({address.ip for address in addresses})
    netns.batch([f"neighbour replace {ip} lladdr {_text(PEER_MAC)} dev {INSIDE} nud permanent" for ip in ips], NODE)


def _text(mac: bytes) -> str:
    return mac.hex(":")


def received() -> int:
    """Return the number of frames that XDP has received so far at the node's end, from the driver's counters."""
    return _taken(NODE, INSIDE)


def copies() -> int:
    """Number of frames that the generator's end received from the node so far."""
    return _taken(GENERATOR, OUTSIDE)


def _taken(namespace: str, name: str) -> int:
    counts = netns.statistics(namespace, name)
    return sum(value for key, value in counts.items() if key.startswith("rx_queue") and key.endswith("xdp_packets"))


@dataclass(frozen=True)
class Burst:
    """The result of one burst of frames: ``seconds`` of processor time, number of frames ``handled``, number of
    ``copies``.
    """

    seconds: float
    handled: int
    copies: int


def burst(generator: Generator, count: int, handled: Callable[[], int] = received) -> Burst:
    """Send ``count`` frames from the one processor to which the caller is pinned, and on which the node also runs.

    The result counts the processor time of two threads: the calling thread, in which the receivers' NAPI polls also
    run, and the processor's ksoftirqd, which continues polls that take too long. The result does not count the time of
    other processes.
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
    """The process id of the kernel thread ``name``. Raises ``BenchError`` if there is no kernel thread ``name``."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/comm", encoding="ascii", errors="replace") as comm:
                if comm.read().rstrip("\n") == name:
                    return int(entry)
    raise netns.BenchError(f"{name}: expected a kernel thread of this name, found none")


def run_time(pid: int) -> int:
    """Nanoseconds of processor time that the main thread of a process has used."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Context manager: the calling thread is pinned to the processor ``cpu``."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
