# SPDX-License-Identifier: MIT
"""Guards one connection in front of aiohttp, which bounds neither what a stranger sends nor a client that stalls."""

from __future__ import annotations

import asyncio

from aiohttp import web

from .admission import Place

#: Seconds for the first request head as a whole.
HEAD_SECONDS = 10.0
#: Seconds after which a client that reads nothing of its answer is cut off.
STALL_SECONDS = 30.0
#: What a stranger may send: bytes of a head, bytes after a head, and requests at once.
MAX_HEAD = 32 * 1024
MAX_BEHIND = 512 * 1024
MAX_PIPELINED = 16

_END = b"\r\n\r\n"


class GuardedProtocol(asyncio.Protocol):
    """Passes to aiohttp's protocol whatever is within the bounds."""

    def __init__(self, inner: asyncio.Protocol, place: Place) -> None:
        self._inner = inner
        self.place = place
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for_head = True
        self._tail = b""
        self._behind = 0  # bytes since the last end of a head
        self._lost: asyncio.Future[None] | None = None
        self._is_lost = False

    @property
    def lost(self) -> asyncio.Future[None]:
        """A future that is done when the connection is lost."""
        if self._lost is None:
            self._lost = asyncio.get_running_loop().create_future()
            if self._is_lost:
                self._lost.set_result(None)
        return self._lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit for a request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Not earlier: before the end of the TLS handshake only the socket can be cut.
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
        """Pass data on. The first request head must be complete before its deadline."""
        place = self.place
        if self._transport is None or place.refused or self._transport.is_closing():
            return
        if self._waits_for_head or not place.proven:
            # Only as much as an end mark may straddle two reads has to be kept.
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
        except Exception as error:  # a parser's, at what is no HTTP: it must not end the agent
            place.admission.counters["api_malformed"] += 1
            what = f"API: a client sent what is no HTTP ({type(error).__name__})"
            place.admission.quiet("no HTTP", what, place.source)
            self._break_off()

    def _is_flood(self) -> bool:
        at_once = self.place.heads - self.place.handled
        return at_once > MAX_PIPELINED or self._behind > (MAX_BEHIND if at_once > 0 else MAX_HEAD)

    def eof_received(self) -> bool | None:
        """Pass the end of the stream on."""
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        """Start the time limit of a client that does not read."""
        self._arm(STALL_SECONDS, "api_closed_stalled")
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """End that limit: the client reads again."""
        self._disarm()
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Give the place back."""
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
    """The place of the connection that ``request`` came over; None if it is closed."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol.place if isinstance(protocol, GuardedProtocol) else None


def gone(request: web.Request) -> asyncio.Future[None]:
    """A future that is done when the client of ``request`` has closed its connection.

    aiohttp would notice that only on its next write.
    """
    protocol = request.transport.get_protocol() if request.transport is not None else None
    if isinstance(protocol, GuardedProtocol):
        return protocol.lost
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if request.transport is None:
        never.set_result(None)
    return never
