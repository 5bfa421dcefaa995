# SPDX-License-Identifier: MIT
"""Verifies that a data plane delivers packets, before a new data plane counts as up and each time ``up`` runs again.

The kernel may load programs that nevertheless deliver no packets. A veth accepts redirected frames only if its peer has
GRO or XDP enabled, and silently drops them otherwise. Kernels before 5.14 cannot redirect one frame to several ports.
At a TC hook, a foreign program may end the chain of programs before our program runs. So the self-test does three
things. The self-test runs each program on frames that are not the agent's. Where possible, the self-test sends real
frames through the hooks. For native XDP, the self-test sends two real copies of one frame out of the interface.

The answers to edge probes need no test of their own: the programs send them in the same way as copies. XDP_TX would
need one, because a veth delays such frames unless its peer has an XDP program.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import time
from pathlib import Path

from ...core.types import Address
from .. import headers, interfaces, libbpf, routes
from . import pins
from .errors import Refused, Rejected, Starved
from .programs import INGRESS, TC_EGRESS, TC_INGRESS

#: Kernel-internal error number ENOTSUPP (include/linux/errno.h).
_ENOTSUPP = 524
_XDP_PASS, _XDP_REDIRECT = 2, 4
_TC_NEXT = 0xFFFFFFFF
_BPF_F_INGRESS = 1
COPIES = 2
#: Destination address that no bridge forwards (IEEE 802). The EtherType below is for local experiments, so no host
#: processes it.
_NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
_ETHER_TYPE = 0x88B5
_TEXT = b"XDP Gossip self-test"
#: UDP ports discard and echo, where a stray frame does no harm (RFC 863, RFC 862). There are two ports, because the
#: agent may use one of them.
_DISCARD_ECHO = (9, 7)
#: Format of ``struct watched`` in selftest.c.
_WATCHED = struct.Struct("=QQIiii")
#: Format of ``struct knock`` in selftest.c.
_KNOCK = struct.Struct("=II")
#: Seconds within which a frame in an interface's receive queue must reach the program.
_ARRIVAL = 3.0
_VERDICTS = {INGRESS: _XDP_PASS, TC_INGRESS: _TC_NEXT, TC_EGRESS: _TC_NEXT}


def run_program(name: str, program: int) -> None:
    """Run a program on frames that are not the agent's, and check that the program passes these frames on.

    Raises ``Rejected``, ``Refused``.

    The egress program for copies, the tracepoint programs and the self-test's own programs never see frames that are
    not the agent's, so this function does not run those programs.
    """
    verdict = _VERDICTS.get(name)
    for kind, frame in _foreign_frames().items() if verdict is not None else ():
        try:
            got = libbpf.run(program, frame).value
        except OSError as error:
            # Other errors, such as a lack of memory, do not mean that this kernel rejects the program.
            kind_of = Rejected if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP) else Refused
            raise kind_of(
                f"self-test: {name} on {kind}: {error.strerror}", "this kernel cannot run programs on test frames"
            ) from None
        if got != verdict:
            raise Rejected(
                f"self-test: {name} on {kind}: expected verdict {verdict}, got {got}",
                "this release is faulty: report the fault, and go back to the previous release",
            )


def knock(program: int, told: int, interface: interfaces.Interface, hook: str, pinned: Path, own: Address) -> None:
    """Check that our program sees a test frame that enters the interface (``hook`` "ingress") or leaves it ("egress").

    ``told`` is the map ``knock`` of selftest.c, ``own`` is the node's address. On ingress, the frame passes generic XDP
    and TC as a frame from the network does. Raises ``Starved`` if the program did not count the frame, and ``Refused``
    for other failures.
    """
    where = f"{interface.name} {hook}"
    libbpf.update(told, bytes(4), _KNOCK.pack(interface.index, _BPF_F_INGRESS if hook == "ingress" else 0))
    counter = list(headers.counters()).index(f"selftest_{hook}")
    with pins.opened(pinned / "counters") as counters:
        before = libbpf.lookup_per_cpu(counters, counter)
        try:
            # Ignore the return value: it comes from the network stack, and on egress it reports that our program
            # dropped the frame.
            libbpf.run(program, frame(interface.mac, own, hook))
        except OSError as error:
            raise Refused(f"self-test: a frame through {where}: {error.strerror}", "see dmesg") from None
        end = time.monotonic() + _ARRIVAL
        while libbpf.lookup_per_cpu(counters, counter) == before:
            if time.monotonic() > end:
                raise Starved(
                    f"self-test: a frame that passed {where} did not reach the program: "
                    "another program there keeps frames from it",
                    f"find that program: bpftool net show dev {interface.name}; detach it, "
                    "then run xdp-gossip dataplane up",
                )
            time.sleep(0.01)


def broadcast(sender: int, interface: interfaces.Interface) -> None:
    """Check that the kernel can redirect a frame to several ports at once. Raises ``Refused``."""
    got = libbpf.run(sender, _frame(interface)).value
    if got != _XDP_REDIRECT:
        raise Refused(
            f"the kernel does not redirect a frame to several ports at once (verdict {got})",
            "XDP needs a kernel with BPF_F_BROADCAST (Linux 5.14 and later have it); TC does not",
        )


def redirect(sender: int, watcher: int | None, watched: int, interface: interfaces.Interface) -> list[str]:
    """Send two copies of a frame out of the interface with native XDP's broadcast, as the data plane does.

    ``watcher``: descriptor of the program ``xg_selftest_watch``; None if the kernel rejects that program. Returns an
    empty list if the interface sent the copies. If the test is not possible, returns a list with the reason. Raises
    ``Refused`` if the interface did not send the copies.
    """
    if watcher is None:
        return _untried(interface, "it rejects the program that watches")
    namespace = os.stat("/proc/self/ns/pid")
    libbpf.update(watched, bytes(4), _WATCHED.pack(namespace.st_dev, namespace.st_ino, os.getpid(), 0, 0, 0))
    tracepoint = libbpf.tracepoint_open("xdp_devmap_xmit", watcher)
    try:
        libbpf.run(sender, _frame(interface), live=1)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _untried(interface, "it has no live frames in test runs")
    finally:
        os.close(tracepoint)
    sent, dropped, code = _WATCHED.unpack(libbpf.lookup(watched, bytes(4), _WATCHED.size))[3:]
    if sent < COPIES:
        raise _not_sent(interface, sent, dropped, code)
    return []


def frame(mac: bytes, own: Address, hook: str) -> bytes:
    """Build the test frame that selftest.h recognises: a UDP packet to ``own`` if ``hook`` is "ingress", from ``own``
    if ``hook`` is "egress".

    The frame contains the node's address, so that filters for one IP version or one address treat the frame like the
    agent's packets. If the frame nevertheless reaches a network stack, the stack drops the frame, because the frame's
    other address is a documentation address, and the frame's port is discard or echo.
    """
    ip = ipaddress.ip_address(own.ip)
    other = ipaddress.ip_address(routes.NOBODY[ip.version])
    source, to = (ip.packed, other.packed) if hook == "egress" else (other.packed, ip.packed)
    port = next(each for each in _DISCARD_ECHO if each != own.port)
    udp = struct.pack(">HHH", port, port, 8 + len(_TEXT))
    udp += _checksum(source + to + struct.pack(">II", 8 + len(_TEXT), socket.IPPROTO_UDP) + udp + _TEXT) + _TEXT
    if ip.version == 4:
        kind, header = 0x0800, struct.pack(">BBHHHBB", 0x45, 0, 20 + len(udp), 0, 0, 1, socket.IPPROTO_UDP)
        header += _checksum(header + source + to) + source + to
    else:
        kind, header = 0x86DD, struct.pack(">IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 1) + source + to
    return _NEAREST_BRIDGE + mac + struct.pack(">H", kind) + header + udp


def _checksum(words: bytes) -> bytes:
    """The Internet checksum of ``words`` (RFC 1071)."""
    total = sum(struct.unpack(f">{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def _frame(interface: interfaces.Interface) -> bytes:
    """Build a frame that leaves the host, with an unused EtherType."""
    return _NEAREST_BRIDGE + interface.mac + struct.pack(">H", _ETHER_TYPE) + _TEXT.ljust(46, b"\0")


def _untried(interface: interfaces.Interface, why: str) -> list[str]:
    if interface.kind == "veth":
        raise Refused(
            f"this kernel cannot send a test frame ({why}), and {interface.name} is a veth, which may drop all copies",
            "Linux 5.18 or later",
        )
    return [f"no test frame was sent: the kernel cannot ({why})"]


def _not_sent(interface: interfaces.Interface, sent: int, dropped: int, code: int) -> Refused:
    text = f"of {COPIES} test frames {interface.name} sent {sent}"
    if dropped or code:
        text += f" and dropped {dropped} ({errno.errorcode.get(-code, str(code))})"
    if interface.kind == "veth":
        return Refused(
            f"{text}: its peer has neither GRO nor XDP, and so receives nothing that XDP sends",
            "on the peer, which is on the host of the container: ethtool -K PEER gro on",
        )
    return Refused(f"{text}: the driver does not send what XDP redirects", "a driver with ndo_xdp_xmit; ethtool -i")


def _foreign_frames() -> dict[str, bytes]:
    """Frames that are not for any agent: another EtherType, and UDP to a documentation address (RFC 5737, RFC 3849)."""
    ethernet = bytes(12)
    udp = struct.pack(">HHHH", 9, 9, 8 + 88, 0) + bytes(88)
    ipv4 = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\xc0\0\2\1", b"\xc0\0\2\2")
    ipv6 = struct.pack(
        ">IHBB16s16s", 6 << 28, len(udp), 17, 64, *(b"\x20\1\x0d\xb8".ljust(15, b"\0") + x for x in (b"1", b"2"))
    )
    return {
        "a frame of another protocol": ethernet + struct.pack(">H", _ETHER_TYPE) + bytes(46),
        "a frame cut short": ethernet + struct.pack(">H", 0x0800) + ipv4 + udp[:4],
        "UDP over IPv4 to another host": ethernet + struct.pack(">H", 0x0800) + ipv4 + udp,
        "UDP over IPv6 to another host": ethernet + struct.pack(">H", 0x86DD) + ipv6 + udp,
    }
