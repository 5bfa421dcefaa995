# SPDX-License-Identifier: MIT
"""Limits the total size of the request bodies that are being received, so that a stalled upload does not block other
uploads.

The Content-Length header of a request reserves no memory, because a client can send a large number there at no cost. If
a new chunk would raise the total size above the limit, the body that is furthest behind the minimum rate is dropped. If
no other body is behind the minimum rate, the body to which the new chunk belongs is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, Callable

from aiohttp import StreamReader

from .errors import Fault

#: Minimum rate of a body, in bytes per second. A body slower than this rate is dropped only when another body needs its
#: memory.
LEAST_PACE = 64 * 1024
#: Seconds for which a body may stall before it counts as slower than the minimum rate. Short stalls are normal, because
#: networks lose packets. Even a body that has arrived faster than the minimum rate may stall only for this time.
PATIENCE = 2.0

REFUSED, CUT = "api_uploads_refused", "api_uploads_cut"


class Upload:
    """The received part of one request body."""

    def __init__(self, now: float) -> None:
        self.data = bytearray()
        #: Monotonic time after which the body counts as slower than the minimum rate, unless more bytes arrive.
        self.due = now + PATIENCE
        #: Completes when the body is dropped because another body needs its memory. Dropping the body frees its
        #: received bytes at once.
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Uploads:
    """All request bodies that are being received, limited to ``total`` bytes together.

    ``counters`` receives the number of bodies that were refused for lack of memory, and of bodies that were dropped
    because another body needed their memory.
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
        """Register a new body while the ``with`` block runs."""
        upload = Upload(self._clock())
        self._open.add(upload)
        try:
            yield upload
        finally:
            self._open.discard(upload)
            self.used -= len(upload.data)

    def add(self, upload: Upload, chunk: bytes) -> None:
        """Add a received chunk to ``upload``.

        Raises :class:`Fault` 503 if the size of all bodies, including ``chunk``, would exceed ``total``.
        """
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
        """Read all of ``content`` into ``upload``. Returns False as soon as ``content`` is longer than ``most`` bytes.

        Raises :class:`Fault` 503 if the size of all bodies would exceed ``total`` or if this body was dropped because
        another body needed its memory, ``asyncio.TimeoutError`` after ``seconds``, and the errors of ``content``.
        """
        end = self._clock() + seconds
        while True:
            piece = asyncio.ensure_future(content.readany())
            either: set[asyncio.Future[Any]] = {piece, upload.cut}
            try:
                left = max(0.0, end - self._clock())
                await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if upload.cut.done():
                    raise _busy(
                        f"the body came at less than {LEAST_PACE} bytes/s while other uploads needed memory, try again"
                    )
                if not piece.done():
                    raise asyncio.TimeoutError
                chunk = piece.result()
            finally:
                if not piece.cancel() and not piece.cancelled():
                    piece.exception()  # mark the exception as retrieved: the caller raises a different error
            if not chunk:
                return True
            if len(upload.data) + len(chunk) > most:
                return False
            self.add(upload, chunk)


def _busy(message: str) -> Fault:
    return Fault(503, "busy", message, headers={"Retry-After": "1"})
