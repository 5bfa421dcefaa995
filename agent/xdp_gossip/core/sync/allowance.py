# SPDX-License-Identifier: MIT
"""Bounds what one member may cost another: an allowance of work for each, renewed every few seconds."""

from __future__ import annotations

from ..types import Address, Now

#: Seconds for which an allowance lasts.
WINDOW = 5.0
#: Most requesters that are remembered. Beyond that the first remembered one is dropped first.
_MOST = 4096


class Allowance:
    """The work that each other member may cause, in whatever unit the caller of ``take`` uses."""

    def __init__(self) -> None:
        self._used: dict[Address, tuple[float, int]] = {}  # start of the window, amount used

    def take(self, address: Address, amount: int, most: int, now: Now) -> int:
        """Take up to ``amount`` from what is left of ``most`` in this window. Returns how much was taken."""
        since, used = self._used.pop(address, (now.mono, 0))
        if now.mono - since >= WINDOW:
            since, used = now.mono, 0
        granted = max(0, min(amount, most - used))
        if len(self._used) >= _MOST:
            del self._used[next(iter(self._used))]
        self._used[address] = (since, used + granted)
        return granted
