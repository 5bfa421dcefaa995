# SPDX-License-Identifier: MIT
"""A network with real stacks: the programs at one end of a veth, a neighbour with many addresses at the other."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bpf import scene
from tests.bpf.harness import Plane, inside
from tests.bpf.wire import ip, wait_until_up
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane import libbpf

#: Of this process: test files run side by side.
HERE, THERE = f"xgb-here-{os.getpid()}", f"xgb-there-{os.getpid()}"
NEAR, FAR = "xgb0", "xgb1"
NATIVE, GENERIC, TC = "XDP (native)", "XDP (generic)", "TC"
MODES = [NATIVE, GENERIC, TC]
#: Addresses at the far end beside the source's.
MEMBERS = 64
ALL_NODES = {4: "224.0.0.1", 6: "ff02::1"}

_IP_PKTINFO, _IP_RECVTTL = 8, 12


@dataclass(frozen=True)
class Datagram:
    """What a socket got: to which address, from where, with how many hops left."""

    to: str
    source: Address
    hops: int
    data: bytes


class Stage:
    """Both ends, with sockets on the gossip port. Programs are attached with :meth:`attach`."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.members = scene.targets(family, MEMBERS)
        with inside(HERE):
            self.ifindex = socket.if_nametoindex(NEAR)
            self.agent = self._socket(scene.local(family))
        with inside(THERE):
            self.neighbour = self._socket(scene.source(family))
            self.everybody = self._socket(None)

    def _socket(self, address: Address | None) -> socket.socket:
        made = socket.socket(socket.AF_INET if self.family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        if self.family == 4:
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        made.bind((address.ip if address else "", scene.PORT))
        made.setblocking(False)
        return made

    @contextlib.contextmanager
    def attach(self, plane: Plane, mode: str, amount: int = 4, wide: int = MEMBERS) -> Iterator[None]:
        """The programs of a mode on the near end, and the devmaps filled, as the loader does it."""
        links = []
        with inside(HERE):
            for name, count in (("relay", amount), ("relay_wide", wide)):
                for index in range(64):
                    if mode != TC and index < count:
                        value = struct.pack("=Ii", self.ifindex, plane.program("xg_xdp_egress"))
                        plane.write(name, struct.pack("=I", index), value)
                    else:
                        plane.delete(name, struct.pack("=I", index))
            try:
                if mode == TC:
                    links.append(libbpf.link_create(plane.program("xg_tc_ingress"), self.ifindex, libbpf.TCX_INGRESS))
                else:
                    flags = libbpf.XDP_NATIVE if mode == NATIVE else libbpf.XDP_GENERIC
                    links.append(libbpf.link_create(plane.program("xg_xdp_ingress"), self.ifindex, libbpf.XDP, flags))
                links.append(libbpf.link_create(plane.program("xg_tc_egress"), self.ifindex, libbpf.TCX_EGRESS))
                if mode == NATIVE:
                    links.append(plane.watch())
                yield
            finally:
                for link in links:
                    os.close(link)

    def send(self, sender: socket.socket, data: bytes, to: Address | str) -> None:
        """Through the stack. A text is a multicast address of the near end's link."""
        if isinstance(to, Address):
            sender.sendto(data, (to.ip, to.port))
        elif self.family == 4:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(scene.local(4).ip))
            sender.sendto(data, (to, scene.PORT))
        else:
            sender.sendto(data, (to, scene.PORT, 0, self.ifindex))

    def received(self, receiver: socket.socket, expected: int = 0, seconds: float = 3.0) -> list[Datagram]:
        """What came: at least ``expected`` if they come within ``seconds``, and all that are there."""
        found: list[Datagram] = []
        end = time.monotonic() + seconds
        while True:
            try:
                while True:
                    found.append(self._datagram(*receiver.recvmsg(4096, 256)))
            except BlockingIOError:
                pass
            if len(found) >= expected or time.monotonic() > end:
                return found
            select.select([receiver], [], [], 0.05)

    def _datagram(
        self, data: bytes, ancillary: Sequence[tuple[int, int, bytes]], _flags: int, source: tuple[str, int]
    ) -> Datagram:
        to, hops = "", 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                to = socket.inet_ntoa(value[8:12])
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                to = socket.inet_ntop(socket.AF_INET6, value[:16])
            else:
                hops = int.from_bytes(value[:4], "little")
        return Datagram(to, Address.of(source[0], source[1]), hops, data)

    def teach(self, plane: Plane, members: Sequence[Address]) -> None:
        """Have the near stack send to each, so that the egress program learns the way."""
        for member in members:
            self.send(self.agent, b"to be learnt from", member)
        assert len(self.received(self.everybody, len(members))) == len(members), _state(plane)
        assert plane.counted()["hop_learnt"] == len(members)

    def close(self) -> None:
        """Give the sockets back."""
        for one in (self.agent, self.neighbour, self.everybody):
            one.close()


def _state(plane: Plane) -> str:
    """What a reader needs when nothing arrived: links, neighbours, what the stacks and the programs counted."""
    told = [str(plane.counted())]
    for namespace in (HERE, THERE):
        told += [ip("-n", namespace, "-s", "link"), ip("-n", namespace, "neigh")]
        told.append(ip("netns", "exec", namespace, "cat", "/proc/net/snmp"))
    return "\n".join(told)


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Make both namespaces; take them away."""
    for namespace in (HERE, THERE):
        ip("netns", "del", namespace, check=False)
        ip("netns", "add", namespace)
    try:
        ip("-n", HERE, "link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", THERE)
        numbers = {HERE: [1], THERE: [2, *range(10, 10 + MEMBERS)]}
        for namespace, link in ((HERE, NEAR), (THERE, FAR)):
            ip("-n", namespace, "link", "set", link, "up")
            for number in numbers[namespace]:
                ip("-n", namespace, "addr", "add", f"{scene.NET[4]}{number}/24", "dev", link)
                ip("-n", namespace, "addr", "add", f"{scene.NET[6]}{number:x}/64", "dev", link, "nodad")
        # What is redirected out of a veth arrives only where the peer polls, which GRO makes it do.
        _ethtool(THERE, FAR, "gro", "on")
        # The far end sends half a checksum, as veth does by default; the near end must make them whole.
        _ethtool(HERE, NEAR, "tx", "off")
        wait_until_up(HERE, NEAR)
        wait_until_up(THERE, FAR)
        yield
    finally:
        for namespace in (HERE, THERE):
            ip("netns", "del", namespace, check=False)


def _ethtool(namespace: str, link: str, feature: str, state: str) -> None:
    command = ("ip", "netns", "exec", namespace, "ethtool", "-K", link, feature, state)
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@contextlib.contextmanager
def stage(family: int) -> Iterator[Stage]:
    """The sockets of one IP version on the network."""
    made = Stage(family)
    try:
        yield made
    finally:
        made.close()
