# SPDX-License-Identifier: MIT
"""Where the API listens: a Unix socket, a TCP port, and the bounds on what clients may hold open there."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from typing import Callable

from aiohttp import web
from aiohttp.http import HttpProcessingError

from ..core.types import Address
from ..transport.sockets import bound_socket, closing_on_error

_log = logging.getLogger("xdp_gossip.api")

MAX_CONNECTIONS = 512
MAX_PER_PEER = 64
#: A connection that has not sent one whole request head by then is closed.
HEAD_SECONDS = 10.0
#: A client that takes none of its answer for so long is cut off.
STALL_SECONDS = 30.0
_KEEPALIVE_SECONDS = 30.0
#: What running requests get to finish in when the agent closes.
_CLOSE_SECONDS = 2.0


class ApiBindError(OSError):
    """The API cannot listen where it should; the text names the address and the reason."""


class Guard(logging.Filter):
    """Counts connections, the reasons for which some were refused or cut, and requests that are no HTTP.

    It also stands as a filter on aiohttp's log, which would show a traceback for every request that is no HTTP.
    """

    NAMES = ("api_refused_full", "api_refused_peer", "api_closed_idle", "api_closed_stalled", "api_malformed")

    def __init__(self, counters: dict[str, int]) -> None:
        super().__init__()
        self.open = 0
        self.per_peer: collections.Counter[str] = collections.Counter()
        self.counters = counters
        for name in self.NAMES:
            counters.setdefault(name, 0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what is not a client's fault."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, (HttpProcessingError, ConnectionError)):
            return True
        self.counters["api_malformed"] += 1
        return False


class GuardedProtocol(asyncio.Protocol):
    """Stands before aiohttp's protocol, which by itself bounds neither connections nor a client that only stalls."""

    def __init__(self, inner: asyncio.Protocol, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None
        self._head: bytes | None = b""
        self._lost: asyncio.Future[None] | None = None
        self._is_lost = False

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done when the connection is."""
        if self._lost is None:
            self._lost = asyncio.get_running_loop().create_future()
            if self._is_lost:
                self._lost.set_result(None)
        return self._lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or abort it when there are too many."""
        assert isinstance(transport, asyncio.Transport)
        guard = self._guard
        peer = transport.get_extra_info("peername")
        name = peer[0] if isinstance(peer, tuple) else ""
        if guard.open >= MAX_CONNECTIONS or (name and guard.per_peer[name] >= MAX_PER_PEER):
            guard.counters["api_refused_full" if guard.open >= MAX_CONNECTIONS else "api_refused_peer"] += 1
            transport.abort()
            return
        self._transport = transport
        self._peer = name
        guard.open += 1
        guard.per_peer[name] += 1
        self._arm(HEAD_SECONDS, "api_closed_idle")
        self._inner.connection_made(transport)

    def _arm(self, seconds: float, counter: str) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._cut, counter)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self, counter: str) -> None:
        self._guard.counters[counter] += 1
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on; the first request head must come as a whole before its deadline."""
        if self._transport is None:
            return
        if self._head is not None:
            # Only as much as an end mark may straddle two reads has to be kept.
            self._head = self._head[-3:] + data
            if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
                self._head = None
                self._disarm()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        """The client does not read: it has so long to begin again."""
        self._arm(STALL_SECONDS, "api_closed_stalled")
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._disarm()
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Give the place back."""
        self._disarm()
        self._is_lost = True
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        if self._transport is None:
            return
        self._transport = None
        self._guard.open -= 1
        self._guard.per_peer[self._peer] -= 1
        if not self._guard.per_peer[self._peer]:
            del self._guard.per_peer[self._peer]
        self._inner.connection_lost(error)


def gone(request: web.Request) -> asyncio.Future[None]:
    """Done when the client of ``request`` has closed its connection, which aiohttp would only notice by writing."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    if isinstance(protocol, GuardedProtocol):
        return protocol.lost
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if request.transport is None:
        never.set_result(None)
    return never


class ApiServer:
    """One application on one socket. ``counters``, which may be shared, take what the guard counts."""

    def __init__(self, app: web.Application, counters: dict[str, int] | None = None) -> None:
        self.guard = Guard({} if counters is None else counters)
        http_log = logging.Logger("xdp_gossip.http")
        http_log.parent = _log
        http_log.addFilter(self.guard)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_log,
            handle_signals=False,
            keepalive_timeout=_KEEPALIVE_SECONDS,
        )
        self._server: asyncio.AbstractServer | None = None
        self._socket_path = ""

    async def _factory(self) -> Callable[[], asyncio.Protocol]:
        await self._runner.setup()
        inner = self._runner.server
        assert inner is not None
        return lambda: GuardedProtocol(inner(), self.guard)

    async def open_unix(self, path: str) -> None:
        """Listen on a Unix socket, mode 0660. A socket that no process serves any more is replaced.

        Raises :class:`ApiBindError`, also when another process serves it.
        """
        with _naming(path):
            _remove_stale(path)
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # Narrow first, then the group: between bind and chmod nobody else may connect.
                before = os.umask(0o177)
                try:
                    bound.bind(path)
                finally:
                    os.umask(before)
                os.chmod(path, 0o660)
                loop = asyncio.get_running_loop()
                self._server = await loop.create_unix_server(await self._factory(), sock=bound, backlog=128)
            except BaseException:
                bound.close()
                raise
        self._socket_path = path

    async def open_tcp(self, listen: Address, tls: ssl.SSLContext | None = None) -> Address:
        """Listen on a TCP address, also before an interface has it; returns the one in use.

        Raises :class:`ApiBindError`.
        """
        with _naming(str(listen)):
            loop = asyncio.get_running_loop()
            factory = await self._factory()
            bound = bound_socket(listen.ip, listen.port, socket.SOCK_STREAM, only_six=True)
            with closing_on_error(bound):
                server = await loop.create_server(
                    factory,
                    sock=bound,
                    ssl=tls,
                    backlog=128,
                    ssl_handshake_timeout=HEAD_SECONDS if tls else None,
                )
        self._server = server
        name = server.sockets[0].getsockname()
        return Address(listen.ip, name[1])

    async def close(self) -> None:
        """Stop listening, let running requests end (two seconds), and remove the socket file."""
        if self._server is not None:
            self._server.close()
        if self._runner.server is not None:
            # What aiohttp's own sites would do; those cannot take the guard.
            await self._runner.shutdown()
            await self._runner.server.shutdown(_CLOSE_SECONDS)
        await self._runner.cleanup()
        if self._socket_path:
            with contextlib.suppress(OSError):
                os.unlink(self._socket_path)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except ApiBindError:
        raise
    except OSError as error:
        raise ApiBindError(f"API: cannot listen on {where}: {error.strerror or error}") from None


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody serves. Raises :class:`ApiBindError` when it is served, or no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ApiBindError(f"API: cannot listen on {path}: expected a socket or nothing there, got another file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                return
            raise
    raise ApiBindError(f"API: cannot listen on {path}: another process serves it")


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate. Raises ``OSError`` (``ssl.SSLError``) when the files do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context
