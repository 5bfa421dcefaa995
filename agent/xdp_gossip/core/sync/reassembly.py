# SPDX-License-Identifier: MIT
"""Reassembles a large document that arrives in parts, in any order and from several holders."""

from __future__ import annotations

import hashlib
import io


class Reassembly:
    """Joins pieces of ``step`` bytes (the last may be shorter), and hashes them as they become contiguous.

    So neither the last piece nor the check of the whole takes long, and memory holds the value only once.
    """

    def __init__(self, size: int, step: int) -> None:
        self.size = size
        self.step = step
        self.count = -(-size // step)
        self.left = self.count
        self._there = bytearray(self.count)
        self._front = 0  # number of contiguous pieces from the start
        self._buffer = io.BytesIO()
        self._hash = hashlib.sha256()

    def put(self, offset: int, data: bytes) -> bool | None:
        """Take a piece. Returns whether it is new; None if it does not belong to this document."""
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
        """Number of the first missing piece from ``begin`` to ``end`` - 1."""
        found = self._there.find(0, begin, end)
        return found if found >= 0 else None

    def digest(self) -> bytes:
        """SHA-256 of the contiguous pieces from the start."""
        return self._hash.digest()

    def value(self) -> bytes:
        """The whole value. Call it once nothing is missing."""
        return self._buffer.getvalue()
