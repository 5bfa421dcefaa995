# SPDX-License-Identifier: MIT
"""Requests to the kernel over netlink, and the parts of its answers and notifications.

Needs no subprocess and no privilege. netlink(7), rtnetlink(7); structures and numbers are those of linux/netlink.h,
linux/rtnetlink.h and linux/if_addr.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

#: struct ifinfomsg: family, type of hardware, index, flags, change
INTERFACE = struct.Struct("=BxHiII")
#: struct ifaddrmsg: family, length of the prefix, flags, scope, index of the interface
ADDRESS = struct.Struct("=BBBBI")
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_GETROUTE, RTM_GETQDISC, RTM_GETTFILTER = 26, 38, 46
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_CARRIER_CHANGES, IFLA_LINK_NETNSID, IFLA_XDP = 35, 37, 43
IFLA_INFO_KIND = 1
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x8, 0x40
NETLINK_GENERIC = 16  # not in the socket module

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
#: Bits of an attribute's type that are not its number.
_TYPE_MASK = 0x3FFF
#: Type of a request less type of its answer: RTM_GETLINK is answered by RTM_NEWLINK, and so on.
_GET_LESS_NEW = 2

#: Seconds for an answer, which the kernel gives before the request returns.
_ANSWER_SECONDS = 10.0
#: Datagrams of one answer: a host with a million addresses is not one that this is for.
_MOST_REPLIES = 100_000


def ask(kind: int, request: bytes, *, protocol: int = socket.NETLINK_ROUTE, dump: bool = False) -> Iterator[bytes]:
    """The body of each message that answers a request of type ``kind``; of the only one, unless it is a dump.

    Raises ``OSError`` with the kernel's error number, and with EPROTO for an answer of another type.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.settimeout(_ANSWER_SECONDS)
        channel.bind((0, 0))
        flags = _NLM_F_REQUEST | (_NLM_F_DUMP if dump else 0)
        channel.send(_HEADER.pack(_HEADER.size + len(request), kind, flags, 1, 0) + request)
        for _ in range(_MOST_REPLIES):
            for answer, body in messages(channel.recv(1 << 16)):
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                    raise OSError(number, os.strerror(number), "netlink")
                if protocol == socket.NETLINK_ROUTE and answer != kind - _GET_LESS_NEW:
                    text = f"expected an answer of type {kind - _GET_LESS_NEW}, got {answer}"
                    raise OSError(errno.EPROTO, text, "netlink")
                yield body
                if not dump:
                    return
    raise OSError(errno.EPROTO, "expected an end of the answer, got more and more", "netlink")


def events() -> socket.socket:
    """A non-blocking socket that becomes readable when an interface or an address changes. Raises ``OSError``."""
    channel = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    try:
        channel.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    except BaseException:
        channel.close()
        raise
    return channel


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message in a datagram; what follows a damaged one is left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data``, by their numbers; what follows a damaged one is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def packed(kind: int, value: bytes) -> bytes:
    """An attribute for a request."""
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, kind) + value).ljust(_aligned(length), b"\0")


def number(value: bytes) -> int:
    """An attribute's value as a number; 0 for an empty one."""
    return int.from_bytes(value, sys.byteorder)


def text(value: bytes) -> str:
    """An attribute's value as text."""
    return value.rstrip(b"\0").decode("utf-8", "replace")


def own_address(body: bytes) -> bytes | None:
    """The packed address of a message about one (:data:`ADDRESS`); None when it has none."""
    found = attributes(body[ADDRESS.size :])
    # On a point-to-point interface IFA_ADDRESS is the peer's.
    return found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
