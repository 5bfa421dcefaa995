# SPDX-License-Identifier: MIT
"""Frames on a byte stream.

A frame consists of the length of a packet (four bytes, big-endian) and the packet itself.
"""

from __future__ import annotations

HEADER = 4
#: Bytes by which a received frame may exceed the configured maximum, because a peer may also count the bytes of
#: headers.
SLACK = 256


class FrameError(Exception):
    """Raised if a length in a stream is zero or above the limit, so that the stream is not a sequence of frames."""


def encode(packet: bytes) -> bytes:
    """The frame for ``packet``. Raises ``ValueError`` for an empty packet."""
    if not packet:
        raise ValueError("frame: expected at least one byte")
    return len(packet).to_bytes(HEADER, "big") + packet


class FrameDecoder:
    """Splits a stream into packets.

    The buffer contains at most ``limit`` bytes plus the bytes of one call of :meth:`feed`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._start = 0

    @property
    def partial(self) -> bool:
        """Whether the buffer contains bytes that :meth:`take` has not returned yet."""
        return len(self._buffer) > self._start

    def feed(self, data: bytes) -> None:
        """Append the next bytes of the stream to the buffer."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def take(self) -> bytes | None:
        """Remove the next packet from the buffer and return it; None if the buffer has no complete frame.

        Raises ``FrameError``, after which the caller must close the stream.
        """
        body = self._start + HEADER
        if self._start and not self.partial:
            self._buffer, self._start, body = bytearray(), 0, HEADER
        if len(self._buffer) < body:
            return None
        length = int.from_bytes(self._buffer[self._start : body], "big")
        if not 1 <= length <= self._limit:
            raise FrameError(f"frame length: expected 1 to {self._limit}, got {length}")
        if len(self._buffer) < body + length:
            return None
        self._start = body + length
        return bytes(self._buffer[body : self._start])
