# SPDX-License-Identifier: MIT
"""Enforces limits on the data and the time of each connection, before aiohttp receives the data.

aiohttp itself limits neither the data of an unauthenticated client nor the time of a client that stalls.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from .admission import Place

#: Seconds within which the first request head must be complete.
HEAD_SECONDS = 10.0
#: The agent disconnects a client that has read nothing of its response for this many seconds.
STALL_SECONDS = 30.0
#: Limits for a client that has not authenticated: bytes of a request head, bytes after a head, and concurrent requests.
MAX_HEAD = 32 * 1024
MAX_BEHIND = 512 * 1024
MAX_PIPELINED = 16

_END = b"\r\n\r\n"


class GuardedProtocol(asyncio.Protocol):
    """A protocol that forwards data to aiohttp's protocol ``inner`` while the connection keeps within the limits of
    data and time.
    """

    def __init__(self, inner: asyncio.Protocol, place: Place) -> None:
        self._inner = inner
        self.place = place
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for_head = True
        self._tail = b""
        self._behind = 0  # bytes since the end of the last request head
        self._lost: asyncio.Future[None] | None = None
        self._is_lost = False

    @property
    def lost(self) -> asyncio.Future[None]:
        """A future that completes when the connection is lost."""
        if self._lost is None:
            self._lost = asyncio.get_running_loop().create_future()
            if self._is_lost:
                self._lost.set_result(None)
        return self._lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline for the first request head."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # ``cut`` is set only now: before the end of the TLS handshake, there is no transport to abort.
        self.place.cut = self._break_off
        self._arm(HEAD_SECONDS, "api_closed_idle")
        self._inner.connection_made(transport)

    def _break_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _arm(self, seconds: float, counter: str) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._cut, counter)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self, counter: str) -> None:
        self.place.admission.counters[counter] += 1
        self._break_off()

    def data_received(self, data: bytes) -> None:
        """Forward ``data`` to aiohttp; close the connection instead if the client exceeds a limit."""
        place = self.place
        if self._transport is None or place.refused or self._transport.is_closing():
            return
        if self._waits_for_head or not place.proven:
            # Keep the last three bytes for the next read, because the four bytes that end a head may be split between
            # two reads.
            text = self._tail + data
            self._tail = text[-3:]
            found = text.count(_END)
            if self._waits_for_head and (found or b"\n\n" in text):
                self._waits_for_head = False
                self._disarm()
            place.heads += found
            self._behind = len(text) - text.rindex(_END) - len(_END) if found else self._behind + len(data)
            if not place.proven and self._is_flood():
                self._cut("api_closed_flood")
                return
        try:
            self._inner.data_received(data)
        except Exception as error:  # the parser's exception for data that is not HTTP must not stop the agent
            place.admission.counters["api_malformed"] += 1
            what = f"API: a client sent what is no HTTP ({type(error).__name__})"
            place.admission.quiet("no HTTP", what, place.source)
            self._break_off()

    def _is_flood(self) -> bool:
        at_once = self.place.heads - self.place.handled
        return at_once > MAX_PIPELINED or self._behind > (MAX_BEHIND if at_once > 0 else MAX_HEAD)

    def eof_received(self) -> bool | None:
        """Forward the end of the stream to aiohttp."""
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        """Start the deadline for a client that does not read its response."""
        self._arm(STALL_SECONDS, "api_closed_stalled")
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Cancel the deadline of :meth:`pause_writing`, because the client reads again."""
        self._disarm()
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop counting the connection in the admission."""
        self._disarm()
        self._is_lost = True
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        self.place.leave()
        if self._transport is None:
            return
        self._transport = None
        self._inner.connection_lost(error)


def place_of(request: web.Request) -> Place | None:
    """Return the admission state of the connection that carries ``request``; None if the connection is closed."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol.place if isinstance(protocol, GuardedProtocol) else None


def gone(request: web.Request) -> asyncio.Future[None]:
    """Return a future that completes when the client of ``request`` closes its connection.

    aiohttp itself would detect only on its next write that the client has closed the connection.
    """
    protocol = request.transport.get_protocol() if request.transport is not None else None
    if isinstance(protocol, GuardedProtocol):
        return protocol.lost
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if request.transport is None:
        never.set_result(None)
    return never
