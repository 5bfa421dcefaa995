# SPDX-License-Identifier: MIT
"""Accepts TCP and Unix connections, in place of asyncio's own servers.

If the process has no free file descriptor, asyncio's servers retry up to ``backlog`` times in one turn of the event
loop, and log each attempt. If the process has no free file descriptor, this module accepts no connections for a second.
This module accepts only a few connections per turn, so that many new connections do not delay other work of the event
loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from ..common.internal_errors import guarded, watch
from ..common.quiet import Quiet

_log = logging.getLogger("xdp_gossip.accepting")

#: Maximum number of connections accepted in one turn of the event loop.
TURN = 8
#: Seconds for which an ``Acceptor`` pauses after no file descriptor or no memory was left for a new connection.
PAUSE_S = 1.0
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: Callback for an accepted connection, with the arguments (non-blocking socket, peer's address). The callback must
#: close the socket.
Take = Callable[[socket.socket, Any], None]


class Acceptor:
    """Accepts connections on a listening, non-blocking ``sock`` after :meth:`start`. :meth:`close` closes ``sock``.

    The counter ``counters[counter]`` is incremented whenever a connection could not be accepted. ``what``: name of the
    listening port in log messages.
    """

    def __init__(self, sock: socket.socket, take: Take, counters: dict[str, int], counter: str, what: str) -> None:
        self._sock = sock
        self._take = take
        self._counters = counters
        self._counter = counter
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._quiet = Quiet(_log)
        counters.setdefault(counter, 0)

    def start(self) -> None:
        """Start to accept connections."""
        self._resume = None
        self._loop.add_reader(self._sock.fileno(), guarded("connections", self._accept))

    def close(self) -> None:
        """Stop accepting and close the socket. Idempotent."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(TURN):
            try:
                connection, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # An error that is not in _SCARCE affects only one connection, which the kernel has already closed
                # (accept(2)).
                self._counters[self._counter] += 1
                self._quiet(errno.errorcode.get(error.errno or 0, ""), f"{self._what}: not accepted: {error.strerror}")
                if error.errno in _SCARCE:
                    self._loop.remove_reader(self._sock.fileno())
                    self._resume = self._loop.call_later(PAUSE_S, guarded("connections", self.start))
                    return
                continue
            connection.setblocking(False)
            self._take(connection, peer)


class Listener:
    """Accepts connections on a listening ``sock``, and uses ``factory`` to create a protocol for each of them.

    ``counters``, ``counter`` and ``what``: see :class:`Acceptor`.
    """

    def __init__(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        counters: dict[str, int],
        counter: str,
        what: str,
    ) -> None:
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[Any]] = set()
        self._acceptor = Acceptor(sock, self._take, counters, counter, what)
        self._acceptor.start()

    def _take(self, connection: socket.socket, peer: Any) -> None:
        # From here on asyncio is responsible for closing the socket, even if this call fails.
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._factory, connection))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        watch(task, "connections", OSError)

    def close(self) -> None:
        """Stop accepting connections. Established connections stay open."""
        self._acceptor.close()

    async def settled(self) -> None:
        """Wait until asyncio protocols exist for all accepted connections."""
        await asyncio.gather(*self._starting, return_exceptions=True)
