# SPDX-License-Identifier: MIT
"""Incarnations: numbers that identify the runs of a node, and the order between them.

Incarnations are serial numbers of 32 bits (RFC 1982): number a is later than number b if a is ahead of b by less than
half of the 32-bit range. Because the numbers wrap around, incarnations never run out. If a wrong clock or a lying
member raises a node's incarnation too far, that node can still choose a later incarnation, because a number that is
more than half the range ahead counts as earlier. The number 0 means that no run is known.
"""

from __future__ import annotations

_BITS = 32
_HALF = 1 << (_BITS - 1)
MAX_INCARNATION = (1 << _BITS) - 1

#: An incarnation, and a sequence number within that incarnation.
Stamp = tuple[int, int]


def later(one: int, other: int) -> bool:
    """Whether the incarnation ``one`` is later than the incarnation ``other``."""
    if not one or not other:
        return bool(one)
    ahead = (one - other) & MAX_INCARNATION
    # If the two incarnations are exactly half the range apart, the greater number counts as later.
    return 0 < ahead < _HALF or (ahead == _HALF and one > other)


def latest(one: int, other: int) -> int:
    """The later of the two incarnations ``one`` and ``other``."""
    return one if later(one, other) else other


def following(incarnation: int) -> int:
    """The incarnation that follows ``incarnation``; after the greatest number comes 1."""
    return incarnation % MAX_INCARNATION + 1


def first_after(last: int, now_s: int) -> int:
    """The incarnation of a run that starts at ``now_s`` (seconds since the epoch). ``last``: the previous incarnation.

    The incarnation is ``now_s`` if ``now_s`` is later than ``last``; otherwise it is the number that follows ``last``.
    Because the clock advances, even a node that lost its state usually starts with a later incarnation than in its
    earlier runs.
    """
    wanted = min(max(now_s, 1), MAX_INCARNATION)
    return wanted if later(wanted, last) else following(last)


def after(stamp: Stamp, other: Stamp) -> bool:
    """Whether ``stamp`` has a later incarnation than ``other``, or the same incarnation and a greater sequence."""
    return stamp[1] > other[1] if stamp[0] == other[0] else later(stamp[0], other[0])
