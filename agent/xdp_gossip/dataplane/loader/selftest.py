# SPDX-License-Identifier: MIT
"""Proves the path before it is called up.

Programs that load may still carry nothing: a veth takes redirected frames only when its peer has GRO or XDP switched
on, and throws them away in silence otherwise; a kernel before 5.14 knows no broadcast. So the programs are run on
frames, and for native XDP two copies of one frame really leave by the interface.
"""

from __future__ import annotations

import errno
import os
import struct

from . import calls, netlink
from .compile import INGRESS, TC_EGRESS, TC_INGRESS, Programs
from .errors import LoaderError, Refused

_XDP_PASS, _XDP_REDIRECT = 2, 4
_TC_NEXT = 0xFFFFFFFF
_COPIES = 2
#: IEEE 802: a bridge does not forward frames to this address, nobody listens on the second (local experiments).
_NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
_ETHER_TYPE = 0x88B5
#: struct watched of selftest.c
_WATCHED = struct.Struct("=QQIiii")


def run_programs(programs: dict[str, int]) -> None:
    """Run each program on frames that are none of the agent's: they must pass. Raises ``LoaderError``."""
    expected = {INGRESS: _XDP_PASS, TC_INGRESS: _TC_NEXT, TC_EGRESS: _TC_NEXT}
    for name, verdict in expected.items():
        for kind, frame in _foreign_frames().items():
            try:
                got = calls.run(programs[name], frame)
            except OSError as error:
                raise LoaderError(f"self-test: {name} on {kind}: {error.strerror}", "the kernel is too old") from None
            if got != verdict:
                raise LoaderError(f"self-test: {name} on {kind}: expected verdict {verdict}, got {got}")


def redirect(interface: netlink.Interface) -> list[str]:
    """Send a frame twice by the interface as the data plane sends: by native XDP's broadcast.

    Returns nothing when it was proved, else why it could not be tried. Raises ``LoaderError``, ``Refused`` when the
    frames did not leave.
    """
    source = Programs("selftest.c", {})
    sender = source.load("xg_selftest_send", "XDP")
    source.fill_devmap("ports", _COPIES, interface.index, None)
    frame = _NEAREST_BRIDGE + interface.mac + struct.pack(">H", _ETHER_TYPE) + b"XDP Gossip self-test".ljust(46, b"\0")
    got = calls.run(sender, frame)
    if got != _XDP_REDIRECT:
        raise Refused(
            f"the kernel does not redirect to several ports at once (verdict {got})", "native XDP needs Linux 5.14"
        )
    watcher = source.load("xg_selftest_watch", "RAW_TRACEPOINT")
    namespace = os.stat("/proc/self/ns/pid")
    calls.update(
        source.map("watched"), bytes(4), _WATCHED.pack(namespace.st_dev, namespace.st_ino, os.getpid(), 0, 0, 0)
    )
    tracepoint = source.attach_tracepoint(watcher, "xdp_devmap_xmit")
    try:
        calls.run(sender, frame, live=1)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _untried(interface)
    finally:
        os.close(tracepoint)
    sent, dropped, code = _WATCHED.unpack(calls.lookup(source.map("watched"), bytes(4), _WATCHED.size))[3:]
    if sent < _COPIES:
        raise _not_sent(interface, sent, dropped, code)
    return []


def _untried(interface: netlink.Interface) -> list[str]:
    if interface.kind == "veth":
        raise Refused(
            f"this kernel cannot send a test frame (before 5.18), and {interface.name} is a veth, which may drop all",
            "a newer kernel",
        )
    return ["no test frame was sent: the kernel is older than 5.18"]


def _not_sent(interface: netlink.Interface, sent: int, dropped: int, code: int) -> Refused:
    text = f"of {_COPIES} test frames {interface.name} sent {sent}"
    if dropped or code:
        text += f" and dropped {dropped} ({errno.errorcode.get(-code, str(code))})"
    if interface.kind == "veth":
        return Refused(
            f"{text}: its peer has neither GRO nor XDP, and so receives nothing that XDP sends",
            "on the peer, which is on the host of the container: ethtool -K PEER gro on",
        )
    return Refused(f"{text}: the driver does not send what XDP redirects", "a driver with ndo_xdp_xmit; ethtool -i")


def _foreign_frames() -> dict[str, bytes]:
    """Frames that no agent is addressed by: another EtherType, and UDP to a documentation address (RFC 5737, 3849)."""
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
