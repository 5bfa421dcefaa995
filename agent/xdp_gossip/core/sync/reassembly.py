# SPDX-License-Identifier: MIT
"""Reassembles a large document from its chunks. Chunks may arrive in any order and from several members."""

from __future__ import annotations

import hashlib
import io


class Reassembly:
    """Joins chunks of ``step`` bytes (the last chunk may be shorter) into a value of ``size`` bytes.

    The class hashes each chunk as soon as all chunks before it have arrived, so that no long computation remains at the
    end. The chunks are written into one buffer, so memory contains the value only once.
    """

    def __init__(self, size: int, step: int) -> None:
        self.size = size
        self.step = step
        self.count = -(-size // step)
        self.left = self.count
        self._there = bytearray(self.count)
        self._front = 0  # number of chunks received without a gap from the start of the value
        self._buffer = io.BytesIO()
        self._hash = hashlib.sha256()

    def put(self, offset: int, data: bytes) -> bool | None:
        """Add the chunk at byte ``offset``. Returns whether the chunk is new; None if offset or length is wrong."""
        number, rest = divmod(offset, self.step)
        if rest or number >= self.count or len(data) != min(self.step, self.size - offset):
            return None
        if self._there[number]:
            return False
        self._there[number] = 1
        self.left -= 1
        self._buffer.seek(offset)
        self._buffer.write(data)
        if number == self._front:
            end = self._there.find(0, number)
            self._front = end if end >= 0 else self.count
            with self._buffer.getbuffer() as view:
                self._hash.update(view[offset : self._front * self.step])
        return True

    def gap(self, begin: int, end: int) -> int | None:
        """Index of the first missing chunk from ``begin`` to ``end`` - 1; None if no chunk is missing."""
        found = self._there.find(0, begin, end)
        return found if found >= 0 else None

    def digest(self) -> bytes:
        """SHA-256 of the chunks that were received without a gap from the start of the value."""
        return self._hash.digest()

    def value(self) -> bytes:
        """The whole value. Call this method only when no chunk is missing."""
        return self._buffer.getvalue()
