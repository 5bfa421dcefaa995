# SPDX-License-Identifier: MIT
"""Bounds the bodies that are arriving, all together, and keeps one that stalls from blocking others.

A declared length reserves nothing, because it costs the client nothing. A body that needs more room than is left takes
it from the one that is furthest behind the minimum pace; if all keep pace, it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, Callable

from aiohttp import StreamReader

from .errors import Fault

#: Bytes per second below which a body gives way to others that need room. A body that is alone may be slower.
LEAST_PACE = 64 * 1024
#: Seconds for which a body may stall before it counts as behind, because networks lose packets. Faster bodies get no
#: more.
PATIENCE = 2.0

REFUSED, CUT = "api_uploads_refused", "api_uploads_cut"


class Upload:
    """What has arrived of one body."""

    def __init__(self, now: float) -> None:
        self.data = bytearray()
        #: Monotonic time until which the body keeps the minimum pace.
        self.due = now + PATIENCE
        #: Done when the body had to give way. Its bytes are dropped then.
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Uploads:
    """All bodies that are arriving, at most ``total`` bytes together.

    ``counters`` counts those that found no room or had to give way.
    """

    def __init__(self, total: int, counters: dict[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.used = 0
        self._counters = counters
        self._clock = clock
        self._open: set[Upload] = set()
        for name in (REFUSED, CUT):
            counters.setdefault(name, 0)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Upload]:
        """Register a new body for the duration of the block."""
        upload = Upload(self._clock())
        self._open.add(upload)
        try:
            yield upload
        finally:
            self._open.discard(upload)
            self.used -= len(upload.data)

    def add(self, upload: Upload, chunk: bytes) -> None:
        """Account for bytes that have arrived. Raises :class:`Fault` 503 if there is no room for them."""
        now = self._clock()
        while self.used + len(chunk) > self.total:
            late = [other for other in self._open if other is not upload and other.data and other.due < now]
            if not late:
                self._counters[REFUSED] += 1
                raise _busy("too many uploads at this moment, try again")
            self._cut(min(late, key=lambda other: other.due))
        upload.data += chunk
        self.used += len(chunk)
        upload.due = min(upload.due + len(chunk) / LEAST_PACE, now + PATIENCE)

    def _cut(self, upload: Upload) -> None:
        self._counters[CUT] += 1
        self.used -= len(upload.data)
        upload.data = bytearray()
        if not upload.cut.done():
            upload.cut.set_result(None)

    async def read(self, content: StreamReader, upload: Upload, most: int, seconds: float) -> bool:
        """Take all of ``content``; False once it is longer than ``most`` bytes.

        Raises :class:`Fault` 503 (no room, or it had to give way), ``asyncio.TimeoutError`` after ``seconds``, and what
        reading raises.
        """
        end = self._clock() + seconds
        while True:
            piece = asyncio.ensure_future(content.readany())
            either: set[asyncio.Future[Any]] = {piece, upload.cut}
            try:
                left = max(0.0, end - self._clock())
                await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if upload.cut.done():
                    raise _busy(f"less than {LEAST_PACE} bytes a second came while others needed the room, try again")
                if not piece.done():
                    raise asyncio.TimeoutError
                chunk = piece.result()
            finally:
                if not piece.cancel() and not piece.cancelled():
                    piece.exception()  # where the answer says something else
            if not chunk:
                return True
            if len(upload.data) + len(chunk) > most:
                return False
            self.add(upload, chunk)


def _busy(message: str) -> Fault:
    return Fault(503, "busy", message, headers={"Retry-After": "1"})
