# SPDX-License-Identifier: MIT
"""Limits the work that each other member can cause on this node: an allowance that is renewed every few seconds."""

from __future__ import annotations

from ..types import Address, Now

#: Seconds after which an allowance is renewed.
WINDOW = 5.0
#: Maximum number of members whose use of their allowance is stored. If there are more members, the class drops the
#: entry of the member whose last request is the oldest.
_MOST = 4096


class Allowance:
    """The work that each member has caused on this node in its current window.

    The caller of :meth:`take` chooses the unit of the work, such as bytes or entries.
    """

    def __init__(self) -> None:
        self._used: dict[Address, tuple[float, int]] = {}  # start of the window, amount used in the window

    def take(self, address: Address, amount: int, most: int, now: Now) -> int:
        """Use up to ``amount`` of the allowance of the member ``address``. The allowance is ``most`` per window.

        Returns the part of ``amount`` that the allowance still covered.
        """
        since, used = self._used.pop(address, (now.mono, 0))
        if now.mono - since >= WINDOW:
            since, used = now.mono, 0
        granted = max(0, min(amount, most - used))
        if len(self._used) >= _MOST:
            del self._used[next(iter(self._used))]
        self._used[address] = (since, used + granted)
        return granted
