# SPDX-License-Identifier: MIT
"""Sets the source address of packets to ``node.addr`` whenever the host has this address.

Peers know this node by ``node.addr``. If a socket listens on every address, the kernel chooses the source address of
its packets by the route. On a host with several addresses the kernel often chooses a source address other than
``node.addr``. The firewalls and data planes of peers may then reject the packets, because the rules of peers contain
only ``node.addr``.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time

from ..core.types import Address

_log = logging.getLogger(__name__)

COUNTER = "source_unavailable"

#: Seconds from a refusal of the source address by the kernel until the next attempt. DHCP or keepalived may add the
#: address later.
TRY_AGAIN_S = 1.0

#: Errors by which the kernel reports that no interface has the source address. The errors come, in this order, from
#: IPV6_PKTINFO, bind() and IP_PKTINFO.
_NOT_HERE = (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH)
IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # Python's socket module has this constant since version 3.12.
#: With this socket option, the local port is chosen in connect() instead of in bind(), so that connections to different
#: peers may share a local port.
_IP_BIND_ADDRESS_NO_PORT = 24

Ancillary = tuple[int, int, bytes]


class Source:
    """Sends datagrams and opens connections from the source address of one transport.

    ``own``: the address by which peers know this node (None: the kernel chooses the source address). ``bound``: the
    address on which the transport listens. ``counters``: the transport's counters. If the host does not have ``own``,
    datagrams and connections use another source address, and the counter :data:`COUNTER` counts them.
    """

    def __init__(self, own: Address | None, bound: str, counters: dict[str, int]) -> None:
        self._ip = None if own is None else own.ip
        self._six = own is not None and ":" in own.ip
        self._counters = counters
        counters.setdefault(COUNTER, 0)
        self._again_at = 0.0
        self._absent = False
        #: Control messages for sendmsg(2) that set the source address to ``own``; empty if the socket is bound to
        #: ``own``.
        self._ancillary: list[Ancillary] = []
        if own is not None and own.ip != bound:
            self._ancillary = [packet_info(own, 0)]
        self._bound = None if _is_any(bound) else bound

    def control(self, six: bool) -> list[Ancillary]:
        """Return the control messages for a datagram to a peer. ``six``: whether the peer's address is an IPv6 address.

        The list is empty if the kernel must choose the source address, for example while the host lacks ``own``.
        """
        return [] if six is not self._six or self._waiting() else self._ancillary

    def sent(self, six: bool, control: list[Ancillary]) -> None:
        """Record that the caller has sent a datagram with ``control``, which :meth:`control` has returned."""
        if control:
            self._accepted()
        elif six is self._six and self._ancillary:
            self._counters[COUNTER] += 1

    async def connect(self, loop: asyncio.AbstractEventLoop, to: Address) -> socket.socket:
        """Connect a TCP socket from the address ``own``. While the host lacks ``own``, the kernel chooses the address.

        Raises ``OSError``. The caller must set a timeout.
        """
        six = ":" in to.ip
        bound = self._bound if self._bound is not None and (":" in self._bound) is six else None
        own = self._ip if self._six is six and self._ip != bound else None
        if own is None:
            return await _connect(loop, to, bound)
        if self._waiting():
            self._counters[COUNTER] += 1
            return await _connect(loop, to, bound)
        try:
            sock = await _connect(loop, to, own)
        except OSError as error:
            if not absent(error):
                raise
            # if the kernel refused the destination instead of the source, this second call raises the error again
            sock = await _connect(loop, to, bound)
            self.refused(error)
        else:
            self._accepted()
        return sock

    def _waiting(self) -> bool:
        """Whether the kernel refused the source address less than a second ago, which is too early to try again."""
        return self._absent and time.monotonic() < self._again_at

    def refused(self, error: OSError) -> None:
        """Record that a datagram or connection had another source address, because the host lacked ``own``."""
        self._counters[COUNTER] += 1
        self._again_at = time.monotonic() + TRY_AGAIN_S
        if not self._absent:
            self._absent = True
            _log.warning(
                "node.addr %s: expected an address of this host that packets can leave from, the kernel says: %s. They "
                "leave from one that it chooses, and node.addr is tried again each %g s; behind NAT this is as it "
                "should be",
                self._ip,
                error.strerror,
                TRY_AGAIN_S,
            )

    def _accepted(self) -> None:
        if self._absent:
            self._absent = False
            _log.info("node.addr %s is there now: packets leave from it", self._ip)


def absent(error: OSError) -> bool:
    """Whether ``error`` may mean that the host does not have the source address.

    An unreachable destination may cause the same error number.
    """
    return error.errno in _NOT_HERE


def packet_info(own: Address, ifindex: int) -> Ancillary:
    """Return a control message: the datagram's source is ``own``, its interface ``ifindex`` (0: the route decides)."""
    if ":" in own.ip:
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, own.packed + struct.pack("=I", ifindex)
    return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4x", ifindex, own.packed[12:])


async def _connect(loop: asyncio.AbstractEventLoop, to: Address, local: str | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in to.ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if local is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((local, 0))
        await loop.sock_connect(sock, (to.ip, to.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _is_any(ip: str) -> bool:
    return ip in ("0.0.0.0", "::", "")
