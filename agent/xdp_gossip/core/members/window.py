# SPDX-License-Identifier: MIT
"""Anti-replay window over sequence numbers (RFC 4303, 3.4.3; the bitmap form of RFC 6479)."""

from __future__ import annotations


class ReplayWindow:
    """Stores which of the last ``width`` sequence numbers of one sender were received.

    ``fresh`` only reads the window. ``commit`` marks a number as seen. Call ``commit`` only for an authenticated
    packet, so that a forged packet cannot mark the numbers of future packets as seen.
    """

    __slots__ = ("highest", "_bits", "_width", "_mask")

    def __init__(self, width: int) -> None:
        self.highest = 0
        self._width = width
        self._mask = (1 << width) - 1
        self._bits = 0

    def fresh(self, sequence: int) -> bool:
        """Whether ``sequence`` is still acceptable: it is not marked as seen, and not older than the window."""
        if sequence > self.highest:
            return True
        age = self.highest - sequence
        return sequence > 0 and age < self._width and not self._bits >> age & 1

    def commit(self, sequence: int) -> None:
        """Mark ``sequence`` as seen."""
        if sequence > self.highest:
            self._bits = (self._bits << min(sequence - self.highest, self._width) | 1) & self._mask
            self.highest = sequence
        elif self.highest - sequence < self._width:
            self._bits |= 1 << (self.highest - sequence)

    @property
    def bits(self) -> int:
        """The window as an integer: bit i is set if the sequence ``highest`` - i was seen."""
        return self._bits

    def merge(self, highest: int, bits: int) -> None:
        """Mark as seen all numbers that another window of the same sender marks as seen.

        The other window must not be wider than this window.
        """
        if highest > self.highest:
            self._bits = (self._bits << min(highest - self.highest, self._width) | bits) & self._mask
            self.highest = highest
        else:
            self._bits |= bits << min(self.highest - highest, self._width) & self._mask
