# SPDX-License-Identifier: MIT
"""Checks whether the client of a state-changing request still waits for the answer.

Invariant (docs/api.md, "Requests without an answer"): a request does not take effect after its client has closed the
connection, after its deadline, or after its id was cancelled.
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

#: Format and offset of ``tcpi_last_data_recv`` in struct tcp_info (linux/tcp.h): milliseconds since the last data
#: arrived.
_LAST_DATA = struct.Struct("I")
_LAST_DATA_AT = 52


def _timeout(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_TIMEOUT:  # this comparison also rejects nan and inf
        text = f"{TIMEOUT_HEADER}: expected more than 0 and at most {MAX_TIMEOUT:g} seconds, got {shown(text)}"
        raise bad_request(text, "invalid_header")
    return value


class Asked:
    """One request. :meth:`check` raises an error if the client no longer waits for the answer.

    A client that gives up closes its connection. The kernel records that the connection was closed even while this
    process is stopped or busy, so the check asks the kernel. If the network fails, this host may never learn that the
    client closed the connection. The request then ends at the deadline that its client has set.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._since = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._timeout = _timeout(request.headers.get(TIMEOUT_HEADER))

    @classmethod
    def of(cls, request: web.Request) -> Asked:
        """The :class:`Asked` object of ``request``, created on first use. Raises :class:`Fault` 400 for an invalid
        deadline.
        """
        found = request.get("asked")
        if not isinstance(found, cls):
            found = request["asked"] = cls(request)
        return found

    def check(self) -> None:
        """Raise :class:`Fault` 503 ``client_gone`` or ``deadline_passed`` if the client no longer waits."""
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
    """Return the seconds since the client's last byte arrived; 0.0 for a Unix socket, for which the kernel does not
    record this time.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_AT + _LAST_DATA.size)
    return float(_LAST_DATA.unpack_from(info, _LAST_DATA_AT)[0]) / 1000
