# SPDX-License-Identifier: MIT
"""Asks the kernel through which interface it sends packets to an address (rtnetlink(7), RTM_GETROUTE)."""

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
#: Errors that mean: no route to the destination, or no route from this source.
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM)

#: An unassigned address of each IP version (RFC 5737, RFC 3849), to which only the default route leads.
NOBODY = {4: "192.0.2.1", 6: "2001:db8::1"}
#: Alternative unassigned addresses, because many routers have a discard route for 192.0.2.1.
_NOBODY_ELSE = {4: "198.51.100.1", 6: "3fff::1"}


def interface(to: str, source: str, within: int = 0, uid: int | None = None) -> int | None:
    """Return the index of the interface that the route from ``source`` to ``to`` uses; None if there is no route.

    ``within``: index of the VRF whose routing table is used; 0 for the main routing table. ``uid``: the user who sends
    the packets, because routing rules may depend on the user (None: this process's user). Raises ``OSError``.
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
    """Return, for each destination in ``toward``, the index of the interface that the route from ``source`` uses.

    Interfaces for which ``usable`` returns False are left out. If no interface remains, the result is the interface of
    the default route, if there is one. See :func:`interface` for ``within`` and ``uid``. Raises ``OSError``.
    """
    version = ipaddress.ip_address(source).version
    for among in (toward, (NOBODY[version],), (_NOBODY_ELSE[version],)):
        leading = (interface(to, source, within, uid) for to in among if to != source)
        found = [index for index in leading if index is not None and usable(index)]
        if found:
            return found
    return []
