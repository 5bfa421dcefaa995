# SPDX-License-Identifier: MIT
"""Accepts the API's connections, so that the admission counts each connection before its TLS handshake.

asyncio's own servers report a connection only after the handshake.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from typing import Any, Callable

from ..common.internal_errors import watch, without_frames
from ..transport.accepting import Acceptor
from ..transport.sockets import BACKLOG
from .admission import Admission, Place, source_of
from .connection import GuardedProtocol

#: Seconds within which a TLS handshake must be complete.
HANDSHAKE_SECONDS = 5.0
_CREDENTIALS = struct.Struct("3i")  # layout of struct ucred: pid, uid, gid (unix(7))


class Listener:
    """One listening socket.

    The listener owns the socket and closes it. ``inner`` creates the protocol of an admitted connection.
    """

    def __init__(
        self,
        sock: socket.socket,
        admission: Admission,
        inner: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._sock = sock
        self._admission = admission
        self._inner = inner
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._acceptor = Acceptor(sock, self._admit, admission.counters, "api_accept_failed", "API")
        self._acceptor.start()

    @property
    def name(self) -> tuple[str, int]:
        """The address and port on which the socket listens."""
        found = self._sock.getsockname()
        return found[0], found[1]

    def _admit(self, connection: socket.socket, peer: Any) -> None:
        place = self._admission.admit(_source(connection, peer))
        if place is None:
            connection.close()
            return
        # Until the connection has a transport, the only way to close it is to shut down its socket.
        place.cut = lambda: _shut_down(connection)
        task = self._loop.create_task(self._take_in(connection, place))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        watch(task, "connections")

    async def _take_in(self, connection: socket.socket, place: Place) -> None:
        try:
            # asyncio owns the socket from here on and closes it even if this call fails.
            await self._loop.connect_accepted_socket(
                lambda: GuardedProtocol(self._inner(), place),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
            )
        except (OSError, asyncio.TimeoutError) as error:
            self._admission.counters["api_tls_failed"] += 1
            text = f"API: a client made no TLS connection ({type(error).__name__})"
            self._admission.quiet("TLS", text, place.source)
            place.leave()
            without_frames(error)  # the error's traceback would keep 300 KiB of TLS state in memory
        except BaseException:
            place.leave()
            raise

    async def close(self) -> None:
        """Stop accepting connections, and abort TLS handshakes in progress. Idempotent."""
        self._acceptor.close()
        for task in self._coming:
            task.cancel()
        await asyncio.gather(*self._coming, return_exceptions=True)


def _source(connection: socket.socket, peer: object) -> str:
    if connection.family != socket.AF_UNIX:
        return source_of(peer)
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid = _CREDENTIALS.unpack(raw)[1]
    return "" if uid in (0, os.geteuid()) else f"user {uid}"


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the socket is closed already
