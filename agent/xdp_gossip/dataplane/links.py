# SPDX-License-Identifier: MIT
"""What the kernel says of one interface and one address, and when that changes: rtnetlink and the netdev family of
generic netlink, without a privilege.

rtnetlink(7); structures and numbers are those of linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h,
linux/genetlink.h and linux/netdev.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_GENERIC = struct.Struct("=BBxx")
_ATTRIBUTE = struct.Struct("=HH")

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_CARRIER_CHANGES, _IFLA_XDP = 1, 3, 4, 35, 43
_IFLA_LINKINFO, _IFLA_INFO_KIND = 18, 1
#: IFLA_XDP_PROG_ID and, where programs are attached in several modes, one for each.
_XDP_PROGRAMS = (4, 5, 6, 7)
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_NESTED = 0x3FFF

_NETLINK_GENERIC = 16  # not in the socket module
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 0x10, 3, 1, 2
_NETDEV_CMD_DEV_GET, _NETDEV_A_DEV_IFINDEX, _NETDEV_A_DEV_XDP_FEATURES = 1, 1, 3

#: Seconds for an answer, which the kernel gives before the request returns.
_ANSWER_SECONDS = 10.0
#: Datagrams of one answer.
_MOST_REPLIES = 10_000


@dataclass(frozen=True)
class Link:
    """An interface. ``kind``: veth, bond, ..., "" for a device; ``programs``: ids of the XDP programs on it;
    ``features``: what its driver can do with XDP now (enum netdev_xdp_act), None before Linux 6.3."""

    index: int
    name: str
    kind: str
    up: bool
    running: bool
    mtu: int
    mac: bytes
    programs: frozenset[int]
    carrier_changes: int
    features: int | None


@dataclass(frozen=True)
class Facts:
    """The interface that a plane is on (None: it is not there), and the indexes of those that have the address."""

    link: Link | None
    owners: tuple[int, ...]

    def __str__(self) -> str:
        """For a log."""
        has = f"the address is on interface {self.owners[0]}" if self.owners else "no interface has the address"
        link = self.link
        if link is None:
            return f"no interface to watch; {has}"
        state = "carrier" if link.running else "no carrier" if link.up else "down"
        return f"{link.name} (interface {link.index}): {state}, MTU {link.mtu}; {has}"


def look(ip: str, index: int, name: str) -> Facts:
    """The facts about the interface ``index``; with 0, about the first one that has ``ip``, or else about ``name``.

    Raises ``OSError``.
    """
    owners = tuple(_owners(ip))
    link = _link(index=index) if index else _link(index=owners[0]) if owners else _link(name=name) if name else None
    return Facts(link, owners)


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


def concerns(data: bytes, ip: bytes, index: int, name: str) -> bool:
    """Whether a datagram of :func:`events` tells of the address ``ip`` (packed) or of the interface."""
    for kind, body in _messages(data):
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and len(body) >= _LINK.size:
            attributes = _attributes(body[_LINK.size :])
            if _LINK.unpack_from(body)[2] == index or _text(attributes.get(_IFLA_IFNAME, b"")) == name:
                return True
        elif kind in (_RTM_NEWADDR, _RTM_DELADDR) and len(body) >= _ADDRESS.size:
            attributes = _attributes(body[_ADDRESS.size :])
            if attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS)) == ip:
                return True
    return False


def _owners(ip: str) -> Iterator[int]:
    wanted = ipaddress.ip_address(ip)
    family = socket.AF_INET if wanted.version == 4 else socket.AF_INET6
    request = _ADDRESS.pack(family, 0, 0, 0, 0)
    for body in _ask(socket.NETLINK_ROUTE, _RTM_GETADDR, request, dump=True):
        attributes = _attributes(body[_ADDRESS.size :])
        # On a point-to-point interface IFA_ADDRESS is the peer's.
        if attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS)) == wanted.packed:
            yield _ADDRESS.unpack_from(body)[4]


def _link(*, index: int = 0, name: str = "") -> Link | None:
    request = _LINK.pack(0, 0, index, 0, 0) + (_packed(_IFLA_IFNAME, name.encode() + b"\0") if name else b"")
    try:
        body = next(iter(_ask(socket.NETLINK_ROUTE, _RTM_GETLINK, request)))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENOENT):
            return None
        raise
    _family, _type, found, flags, _change = _LINK.unpack_from(body)
    attributes = _attributes(body[_LINK.size :])
    xdp = _attributes(attributes.get(_IFLA_XDP, b""))
    programs = frozenset(_number(xdp[which]) for which in _XDP_PROGRAMS if which in xdp) - {0}
    return Link(
        found,
        _text(attributes.get(_IFLA_IFNAME, b"")),
        _text(_attributes(attributes.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")),
        bool(flags & _IFF_UP),
        bool(flags & _IFF_RUNNING),
        _number(attributes.get(_IFLA_MTU, b"")),
        attributes.get(_IFLA_ADDRESS, b""),
        programs,
        _number(attributes.get(_IFLA_CARRIER_CHANGES, b"")),
        _features(found),
    )


def _features(index: int) -> int | None:
    """What the driver says that it can do with XDP; None where the kernel has no such family."""
    wanted = _packed(_CTRL_ATTR_FAMILY_NAME, b"netdev\0")
    try:
        family = next(iter(_ask(_NETLINK_GENERIC, _GENL_ID_CTRL, _GENERIC.pack(_CTRL_CMD_GETFAMILY, 1) + wanted)))
        number = _number(_attributes(family[_GENERIC.size :]).get(_CTRL_ATTR_FAMILY_ID, b""))
        asked = _GENERIC.pack(_NETDEV_CMD_DEV_GET, 1) + _packed(_NETDEV_A_DEV_IFINDEX, struct.pack("=I", index))
        answer = next(iter(_ask(_NETLINK_GENERIC, number, asked)))
    except (OSError, StopIteration):
        return None
    return _number(_attributes(answer[_GENERIC.size :]).get(_NETDEV_A_DEV_XDP_FEATURES, b""))


def _ask(protocol: int, kind: int, request: bytes, dump: bool = False) -> Iterator[bytes]:
    """The body of each message that answers a request; of the only one, unless it is a dump."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.settimeout(_ANSWER_SECONDS)
        channel.bind((0, 0))
        flags = _NLM_F_REQUEST | (_NLM_F_DUMP if dump else 0)
        channel.send(_HEADER.pack(_HEADER.size + len(request), kind, flags, 1, 0) + request)
        for _ in range(_MOST_REPLIES):
            for answer, body in _messages(channel.recv(1 << 16)):
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                    raise OSError(number, os.strerror(number), "netlink")
                yield body
                if not dump:
                    return
    raise OSError("netlink: expected an end of the answer, got more and more")


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NESTED] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _packed(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, kind) + value).ljust((length + 3) & ~3, b"\0")


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
