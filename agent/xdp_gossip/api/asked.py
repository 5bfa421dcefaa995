# SPDX-License-Identifier: MIT
"""Tells whether the client of a request that changes something still waits for the answer.

Invariant (docs/api.md, "Requests without an answer"): a request that its client has given up, by closing its
connection, by its deadline or by cancelling its id, does not take effect later.
"""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from typing import Any

from aiohttp import web

from ..core.shown import shown
from .errors import Fault, bad_request
from .headers import TIMEOUT_HEADER

MAX_TIMEOUT = 86_400.0

#: struct tcp_info (linux/tcp.h): tcpi_last_data_recv, milliseconds since the last data arrived.
_LAST_DATA = struct.Struct("I")
_LAST_DATA_AT = 52


def _timeout(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_TIMEOUT:  # also refuses nan and inf
        text = f"{TIMEOUT_HEADER}: expected more than 0 and at most {MAX_TIMEOUT:g} seconds, got {shown(text)}"
        raise bad_request(text, "invalid_header")
    return value


class Asked:
    """One request, and whether its client still waits for the answer.

    A client that is gone has closed its connection. The kernel knows that before this process does, even if this
    process was stopped or busy since before the request arrived. If the network hides it, the client's own deadline
    ends the request.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._since = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._timeout = _timeout(request.headers.get(TIMEOUT_HEADER))

    @classmethod
    def of(cls, request: web.Request) -> Asked:
        """The state of ``request``. Raises :class:`Fault` 400 for an invalid deadline."""
        found = request.get("asked")
        if not isinstance(found, cls):
            found = request["asked"] = cls(request)
        return found

    def check(self) -> None:
        """Raise :class:`Fault` 503 ``client_gone`` or ``deadline_passed`` if nobody waits for the answer."""
        transport = self._request.transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None or _is_closed(sock):
            raise Fault(503, "client_gone", "the client closed the connection; nothing was done")
        if self._timeout is None:
            return
        age = max(time.clock_gettime(time.CLOCK_BOOTTIME) - self._since, _silence(sock))
        if age > self._timeout:
            text = f"the request came {age:.1f} s ago, and its client waits {self._timeout:g} s; nothing was done"
            raise Fault(503, "deadline_passed", text)


def _is_closed(sock: Any) -> bool:
    number = sock.fileno()
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, select.POLLRDHUP)
    return bool(poll.poll(0))


def _silence(sock: Any) -> float:
    """Seconds since the client's last byte arrived; 0.0 where that is unknown (a Unix socket)."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_AT + _LAST_DATA.size)
    return float(_LAST_DATA.unpack_from(info, _LAST_DATA_AT)[0]) / 1000
