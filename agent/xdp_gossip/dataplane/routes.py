# SPDX-License-Identifier: MIT
"""Asks the kernel by which interface it sends packets to an address (rtnetlink(7), RTM_GETROUTE)."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Sequence

from . import rtnetlink
from .rtnetlink import attributes, number, packed

_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_UID = 1, 2, 4, 25
#: No route to it, or none from this source.
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM)

#: An address of nobody (RFC 5737, RFC 3849): only the default route leads there.
NOBODY = {4: "192.0.2.1", 6: "2001:db8::1"}
#: More of them: 192.0.2.1 is what routers commonly drop unwanted traffic by.
_NOBODY_ELSE = {4: "198.51.100.1", 6: "3fff::1"}


def interface(to: str, source: str, within: int = 0, uid: int | None = None) -> int | None:
    """Index of the interface by which packets from ``source`` to ``to`` leave; None without a route.

    ``within`` is the index of a VRF whose routes count, 0 for the ordinary ones; ``uid`` is whose packets they are, as
    rules may tell users apart (None: this process's). Raises ``OSError``.
    """
    target, own = ipaddress.ip_address(to).packed, ipaddress.ip_address(source).packed
    if len(target) != len(own):
        return None
    family, bits = (socket.AF_INET, 32) if len(own) == 4 else (socket.AF_INET6, 128)
    request = _ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0) + packed(_RTA_DST, target) + packed(_RTA_SRC, own)
    if uid is not None:
        request += packed(_RTA_UID, struct.pack("=I", uid))
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


def ways(
    source: str, toward: Sequence[str], usable: Callable[[int], bool], within: int = 0, uid: int | None = None
) -> list[int]:
    """Indexes of the ``usable`` interfaces by which packets from ``source`` leave: one for each of ``toward``.

    Where no route leads to any of them, or there are none, the default route's, if there is one. See :func:`interface`
    for ``within`` and ``uid``. Raises ``OSError``.
    """
    version = ipaddress.ip_address(source).version
    for among in (toward, (NOBODY[version],), (_NOBODY_ELSE[version],)):
        leading = (interface(to, source, within, uid) for to in among if to != source)
        found = [index for index in leading if index is not None and usable(index)]
        if found:
            return found
    return []
