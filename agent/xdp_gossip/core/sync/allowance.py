# SPDX-License-Identifier: MIT
"""Limits the work that each other member can cause on this node: an allowance that is renewed every few seconds."""

from __future__ import annotations

from ..types import Address, Now

#: Length of a window in seconds. Each member gets its full allowance again in the next window.
WINDOW = 5.0
#: Maximum number of members for which this class stores how much of their allowance they have used. If there are more
#: members, the class drops the entry of the member that has sent no request for the longest time.
_MOST = 4096


class Allowance:
    """Counts the work that each other member has caused on this node in that member's current time window.

    The caller of :meth:`take` chooses the unit of the work, such as bytes or entries.
    """

    def __init__(self) -> None:
        self._used: dict[Address, tuple[float, int]] = {}  # start of the window, amount used in the window

    def take(self, address: Address, amount: int, most: int, now: Now) -> int:
        """Use up ``amount`` of the allowance of the member ``address``, or as much as is left.

        The allowance is ``most`` units of work per window. Returns the part of ``amount`` for which the allowance was
        sufficient.
        """
        since, used = self._window(address, now)
        self._used.pop(address, None)
        granted = max(0, min(amount, most - used))
        if len(self._used) >= _MOST:
            del self._used[next(iter(self._used))]
        self._used[address] = (since, used + granted)
        return granted

    def left(self, address: Address, most: int, now: Now) -> int:
        """What is left of the allowance ``most`` of the member ``address`` in the present window."""
        return max(0, most - self._window(address, now)[1])

    def _window(self, address: Address, now: Now) -> tuple[float, int]:
        since, used = self._used.get(address, (now.mono, 0))
        return (now.mono, 0) if now.mono - since >= WINDOW else (since, used)
