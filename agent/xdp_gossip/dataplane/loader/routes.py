# SPDX-License-Identifier: MIT
"""Which interface the kernel sends packets to an address by, asked over rtnetlink(7) (RTM_GETROUTE)."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys

from .netlink import _attributes

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLMSG_ERROR, _NLM_F_REQUEST = 2, 1
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
#: No route to it, or none from this source.
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM)

#: An address of nobody (RFC 5737, RFC 3849): only the default route leads there.
NOBODY = {4: "192.0.2.1", 6: "2001:db8::1"}


def interface(to: str, source: str, within: int = 0) -> int | None:
    """Index of the interface by which packets from ``source`` to ``to`` leave; None without a route.

    ``within`` is the index of a VRF whose routes count, 0 for the ordinary ones. Raises ``OSError``.
    """
    target, own = ipaddress.ip_address(to).packed, ipaddress.ip_address(source).packed
    if len(target) != len(own):
        return None
    family, bits = (socket.AF_INET, 32) if len(own) == 4 else (socket.AF_INET6, 128)
    body = _ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
    body += _attribute(_RTA_DST, target) + _attribute(_RTA_SRC, own)
    if within:
        body += _attribute(_RTA_OIF, struct.pack("=I", within))
    header = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as channel:
        channel.settimeout(10)
        channel.bind((0, 0))
        channel.send(header + body)
        data = channel.recv(1 << 16)
    length, answer, _flags, _sequence, _port = _HEADER.unpack_from(data)
    if answer == _NLMSG_ERROR:
        number = -int.from_bytes(data[_HEADER.size : _HEADER.size + 4], sys.byteorder, signed=True)
        if number in _NO_ROUTE:
            return None
        raise OSError(number, os.strerror(number), f"route to {to}")
    if answer != _RTM_NEWROUTE:
        raise OSError(errno.EPROTO, f"route to {to}: expected an answer of type {_RTM_NEWROUTE}, got {answer}")
    found = _attributes(data[_HEADER.size + _ROUTE.size : length]).get(_RTA_OIF)
    return int.from_bytes(found, sys.byteorder) if found else None


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
