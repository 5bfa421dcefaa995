# SPDX-License-Identifier: MIT
"""Frames: packets on a byte stream, each preceded by its length in four bytes, big-endian."""

from __future__ import annotations

HEADER = 4
#: Bytes a frame may have beyond the configured size: a peer may count its headers differently.
SLACK = 256


class FrameError(Exception):
    """The stream is not a sequence of frames: it has a length of zero or one above the limit."""


def encode(packet: bytes) -> bytes:
    """One frame. An empty packet has no frame: ``ValueError``."""
    if not packet:
        raise ValueError("frame: expected at least one byte")
    return len(packet).to_bytes(HEADER, "big") + packet


class FrameDecoder:
    """Splits a stream into packets. Holds at most ``limit`` bytes plus what one :meth:`feed` brought."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._start = 0

    @property
    def partial(self) -> bool:
        """Whether bytes are held that are not a complete frame yet, or that were not taken yet."""
        return len(self._buffer) > self._start

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def take(self) -> bytes | None:
        """The next packet, or None when no complete one is held.

        Raises ``FrameError``; the stream is useless then.
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
