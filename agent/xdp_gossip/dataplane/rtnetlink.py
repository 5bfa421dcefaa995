# SPDX-License-Identifier: MIT
"""Sends requests to the kernel over netlink, and parses the kernel's answers and notifications.

Needs no subprocess and no privilege. See netlink(7) and rtnetlink(7). Structures and numbers come from linux/netlink.h,
linux/rtnetlink.h and linux/if_addr.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

#: Fields of struct ifinfomsg: family, hardware type, index, flags, change.
INTERFACE = struct.Struct("=BxHiII")
#: Fields of struct ifaddrmsg: family, prefix length, flags, scope, index of the interface.
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
NETLINK_GENERIC = 16  # Python's socket module does not define this constant

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
#: Mask for the number in an attribute's type; the other bits are flags.
_TYPE_MASK = 0x3FFF
#: Difference between the types of a request and of its answer, for example RTM_GETLINK and RTM_NEWLINK.
_GET_LESS_NEW = 2

#: Timeout in seconds for an answer; the kernel normally answers before the request returns.
_ANSWER_SECONDS = 10.0
#: Maximum datagrams of one answer, which is enough for about a million addresses.
_MOST_REPLIES = 100_000


def ask(kind: int, request: bytes, *, protocol: int = socket.NETLINK_ROUTE, dump: bool = False) -> Iterator[bytes]:
    """Send a request of type ``kind`` and yield the body of each answer. Only a ``dump`` has more than one answer.

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
    raise OSError(errno.EPROTO, "expected an end of the answer, got too many datagrams", "netlink")


def events() -> socket.socket:
    """Open a non-blocking socket that is readable after a change of an interface or address. Raises ``OSError``."""
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
    """Yield the type and body of each message in a datagram. Stops at a damaged message."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """Parse the attributes in ``data``: number -> value. Stops at a damaged attribute."""
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
    """Encode an attribute for a request."""
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, kind) + value).ljust(_aligned(length), b"\0")


def number(value: bytes) -> int:
    """Decode an attribute's value as a number; 0 for an empty value."""
    return int.from_bytes(value, sys.byteorder)


def text(value: bytes) -> str:
    """Decode an attribute's value as text."""
    return value.rstrip(b"\0").decode("utf-8", "replace")


def own_address(body: bytes) -> bytes | None:
    """The packed address in a message about an address (:data:`ADDRESS`); None if the message has none."""
    found = attributes(body[ADDRESS.size :])
    # On a point-to-point interface, IFA_ADDRESS is the peer's address.
    return found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
