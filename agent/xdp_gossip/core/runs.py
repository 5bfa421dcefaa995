# SPDX-License-Identifier: MIT
"""Incarnations: which of two runs of a node came later.

They are serial numbers of 32 bits (RFC 1982): one is later than another when it is less than half the range ahead. So
they never come to an end, and a leap by a wrong clock or a lying member burns no address: what is further ahead than
that counts as earlier, and its node goes beyond whatever is known of it. 0 stands for "no run is known".
"""

from __future__ import annotations

_BITS = 32
_HALF = 1 << (_BITS - 1)
MAX_INCARNATION = (1 << _BITS) - 1

#: Incarnation, and a sequence within it.
Stamp = tuple[int, int]


def later(one: int, other: int) -> bool:
    """Whether the run ``one`` came after ``other``."""
    if not one or not other:
        return bool(one)
    ahead = (one - other) & MAX_INCARNATION
    return 0 < ahead < _HALF or (ahead == _HALF and one > other)  # of two that are as far apart as can be, the greater


def latest(one: int, other: int) -> int:
    """The later of two runs."""
    return one if later(one, other) else other


def following(incarnation: int) -> int:
    """The next run; after the last number comes 1."""
    return incarnation % MAX_INCARNATION + 1


def first_after(last: int, now_s: int) -> int:
    """The incarnation of a run that starts at ``now_s`` seconds since the epoch. ``last``: that of the run before.

    It is the time if that is later than ``last``, so that a node that lost its state is mostly beyond its earlier runs.
    Otherwise it is the next number.
    """
    wanted = min(max(now_s, 1), MAX_INCARNATION)
    return wanted if later(wanted, last) else following(last)


def after(stamp: Stamp, other: Stamp) -> bool:
    """Whether ``stamp`` is newer than ``other``."""
    return stamp[1] > other[1] if stamp[0] == other[0] else later(stamp[0], other[0])
