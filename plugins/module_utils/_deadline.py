# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: resolves names and uses sockets within one deadline. Python 3.8 or later."""

from __future__ import annotations

import io
import socket
import threading
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import Endpoint

#: Maximum bytes that one call reads or writes.
CHUNK = 64 * 1024


class Deadline:
    """The time until which a whole request must be complete: ``seconds`` after the creation of the ``Deadline``."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise socket.timeout("deadline passed")
        return seconds


class _Reader(io.RawIOBase):
    """Reads from a socket until the deadline. The timeout of each read is the time until the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)


class Channel:
    """Wraps a socket for ``http.client``, so that all reads and writes of this socket end before one deadline.
    ``close`` does nothing, because the caller closes the socket itself.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, *args: t.Any, **kwargs: t.Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline), CHUNK)

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._sock.settimeout(self._deadline.left())
            view = view[self._sock.send(view[:CHUNK]) :]

    def close(self) -> None:
        pass


def resolve(endpoint: Endpoint, deadline: Deadline) -> list[t.Any]:
    """Return the endpoint's addresses as ``socket.getaddrinfo`` returns them. Raises ``OSError``.

    The operating system's resolver has no timeout parameter. The resolver therefore runs in a thread, and the function
    does not wait for this thread after the deadline.
    """
    found: list[t.Any] = []
    problems: list[str] = []

    def look() -> None:
        try:
            found.extend(socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            problems.append(getattr(exc, "strerror", None) or str(exc))

    resolver = threading.Thread(target=look, daemon=True)
    resolver.start()
    resolver.join(deadline.left())
    if problems:
        raise OSError("the host name cannot be resolved: %s" % problems[0])
    if not found:
        raise OSError("the host name is not resolved in time")
    return found
