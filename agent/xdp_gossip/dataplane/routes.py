# SPDX-License-Identifier: MIT
"""Which interface the kernel sends packets to an address by, asked over rtnetlink(7) (RTM_GETROUTE)."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence

from . import rtnetlink
from .rtnetlink import attributes, number, packed

_ROUTE = struct.Struct("=BBBBBBBBI")
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
    request = _ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0) + packed(_RTA_DST, target) + packed(_RTA_SRC, own)
    if within:
        request += packed(_RTA_OIF, struct.pack("=I", within))
    try:
        body = next(iter(rtnetlink.ask(rtnetlink.RTM_GETROUTE, request)))
    except OSError as error:
        if error.errno in _NO_ROUTE:
            return None
        raise OSError(error.errno, error.strerror, f"route to {to}") from None
    found = attributes(body[_ROUTE.size :]).get(_RTA_OIF)
    return number(found) if found else None


def ways(source: str, toward: Sequence[str], within: int = 0) -> list[int]:
    """Indexes of the interfaces by which packets from ``source`` leave: one for each of ``toward`` with a route.

    Where none leads to any of them, or there are none, the default route's, if there is one. Raises ``OSError``.
    """
    found = [index for to in toward if to != source and (index := interface(to, source, within)) is not None]
    if not found:
        default = interface(NOBODY[ipaddress.ip_address(source).version], source, within)
        found = [default] if default is not None else []
    return found
