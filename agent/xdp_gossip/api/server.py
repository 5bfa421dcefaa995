# SPDX-License-Identifier: MIT
"""Opens the sockets on which the API listens: a Unix socket and a TCP port."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator

from aiohttp import web
from aiohttp.http import HttpProcessingError

from ..common.internal_errors import RECORD, is_own, without_frames
from ..core.types import Address
from ..transport.sockets import bound_socket, closing_on_error
from .admission import Admission
from .listener import Listener

_log = logging.getLogger("xdp_gossip.api")

_KEEPALIVE_SECONDS = 30.0
#: Seconds for which the server reads and discards the rest of a refused request's body, so that the client receives the
#: response.
_LINGERING_SECONDS = 1.0
#: Seconds within which running requests must finish when the agent shuts down.
_CLOSE_SECONDS = 2.0


class ApiBindError(OSError):
    """The API cannot listen at an address; the message names the address and the reason."""


class _NoTraceback(logging.Filter):
    """A filter for aiohttp's log.

    Without this filter, aiohttp would log a traceback for each malformed request and each request whose client
    disconnected.
    """

    def __init__(self, admission: Admission) -> None:
        super().__init__()
        self._admission = admission

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, which lets ``record`` pass, if ``record`` contains no error of a request.

        If ``record`` contains an error of a request, return False, which drops ``record``. An error of the agent is
        added to ``RECORD``; an error that the client caused is counted.
        """
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return record.levelno > logging.DEBUG
        foreseen = isinstance(error, (HttpProcessingError, ConnectionError))
        if is_own(error) and not foreseen:
            RECORD.add("API request", error)
            return False
        self._admission.counters["api_malformed"] += 1
        without_frames(error)  # the error's traceback would keep the connection in memory
        if not foreseen:
            # Clients can cause these uncaught errors of aiohttp as often as they like, so log the errors at a limited
            # rate.
            self._admission.quiet("aiohttp", f"API: a request failed before it was handled ({type(error).__name__})")
        return False


class ApiServer:
    """One API application on one socket.

    ``counters`` receives the counts of connections; several servers may share one ``counters`` dictionary.
    """

    def __init__(self, app: web.Application, counters: dict[str, int] | None = None) -> None:
        self._app = app
        self._counters = {} if counters is None else counters
        self.admission = Admission(self._counters, _log)
        self._listener: Listener | None = None
        self._runner: web.AppRunner | None = None
        self._socket_path = ""

    async def _listen(self, bound: socket.socket, tls: ssl.SSLContext | None, local: bool) -> Listener:
        self.admission = Admission(self._counters, _log, local=local)
        http_log = logging.Logger("xdp_gossip.http")
        http_log.parent = _log
        http_log.setLevel(logging.DEBUG)  # later versions of aiohttp log some requests at this level
        http_log.addFilter(_NoTraceback(self.admission))
        self._runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=http_log,
            handle_signals=False,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            # Bodies are not decompressed: even before authentication, a client could send a kilobyte that expands to a
            # megabyte.
            auto_decompress=False,
            lingering_time=_LINGERING_SECONDS,
        )
        await self._runner.setup()
        inner = self._runner.server
        assert inner is not None
        self._listener = Listener(bound, self.admission, inner, tls)
        return self._listener

    async def open_unix(self, path: str) -> None:
        """Listen on a Unix socket with mode 0660. A stale socket file, which no process serves, is replaced.

        Raises :class:`ApiBindError` if the socket cannot be opened or another process serves it.
        """
        with _naming(path):
            _remove_stale(path)
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # Create the socket with mode 0600 and give the group access later, so nobody else can connect between
                # bind and chmod.
                before = os.umask(0o177)
                try:
                    bound.bind(path)
                finally:
                    os.umask(before)
                os.chmod(path, 0o660)
                await self._listen(bound, None, local=True)
            except BaseException:
                bound.close()
                raise
        self._socket_path = path

    async def open_tcp(self, listen: Address, tls: ssl.SSLContext | None = None) -> Address:
        """Listen on a TCP address, even if no interface has this address yet.

        Returns the address and port on which the server listens.

        Raises :class:`ApiBindError`.
        """
        with _naming(str(listen)):
            bound = bound_socket(listen.ip, listen.port, socket.SOCK_STREAM, only_six=True)
            with closing_on_error(bound):
                listener = await self._listen(bound, tls, local=False)
        return Address(listen.ip, listener.name[1])

    async def close(self) -> None:
        """Stop listening, wait up to two seconds for running requests to end, and remove the socket file."""
        if self._listener is not None:
            await self._listener.close()
        if self._runner is not None:
            if self._runner.server is not None:
                # aiohttp's site classes, which would make these calls, are not used because they cannot install
                # GuardedProtocol.
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
    """Remove a socket file that no process serves any more.

    Raises :class:`ApiBindError` if a process serves the socket, or if the file is not a socket.
    """
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
    """Build a server context for TLS 1.2 or later from the files ``cert`` and ``key``.

    Raises ``OSError`` (``ssl.SSLError``) if the files cannot be read or do not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context
