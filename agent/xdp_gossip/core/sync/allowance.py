# SPDX-License-Identifier: MIT
"""Bounds what one member may cost another: an allowance of work for each, renewed every few seconds."""

from __future__ import annotations

from ..types import Address, Now

#: Seconds for which an allowance lasts.
WINDOW = 5.0
#: Askers that are remembered at most; the one that was remembered first goes first.
_MOST = 4096


class Allowance:
    """Work that each of many others may cause, in whatever unit ``take`` is called with."""

    def __init__(self) -> None:
        self._used: dict[Address, tuple[float, int]] = {}  # since when, how much

    def take(self, address: Address, amount: int, most: int, now: Now) -> int:
        """Up to ``amount`` of what is left of ``most`` in this window, taken away from it."""
        since, used = self._used.pop(address, (now.mono, 0))
        if now.mono - since >= WINDOW:
            since, used = now.mono, 0
        granted = max(0, min(amount, most - used))
        if len(self._used) >= _MOST:
            del self._used[next(iter(self._used))]
        self._used[address] = (since, used + granted)
        return granted
