# SPDX-License-Identifier: MIT
"""Who observes whom: K pseudo-random rings over the members.

The rings are those of Rapid (Suresh et al., USENIX ATC 2018, section 4.1): in each ring the members stand in an order
of their own, and each member observes its successor. All members compute the same rings from the same list.
"""

from __future__ import annotations

import bisect
import hashlib
import struct
from array import array
from collections.abc import Iterator, Sequence

from ..types import Address

#: K, the number of rings: each member has at most ``K`` observers and at most ``K`` subjects (Rapid's default).
K = 10
#: A member accepts an alert of any of the ``NEIGHBOURS`` nearest predecessors of the subject in a ring, because the
#: member lists of two members differ for a moment while members come and go.
NEIGHBOURS = 3
_PLACES = struct.Struct(f">{K}Q")


class _Ring:
    """The members of one ring in the order of their places.

    Two lists take a fifth of the memory of a list of pairs, which counts at ten rings of ten thousand members.
    """

    def __init__(self) -> None:
        self._places: array[int] = array("Q")
        self._members: list[Address] = []

    def index(self, place: int, address: Address) -> int:
        """Where ``address`` stands, or would stand. Members of one place, which is a matter of theory, are in order."""
        at = bisect.bisect_left(self._places, place)
        while at < len(self._places) and self._places[at] == place and self._members[at] < address:
            at += 1
        return at

    def add(self, place: int, address: Address) -> None:
        """Add a member."""
        at = self.index(place, address)
        self._places.insert(at, place)
        self._members.insert(at, address)

    def remove(self, place: int, address: Address) -> None:
        """Remove a member."""
        at = self.index(place, address)
        del self._places[at], self._members[at]

    def around(self, first: int, step: int, amount: int) -> Iterator[Address]:
        """``amount`` members from the index ``first`` on, in one direction."""
        return (self._members[(first + step * n) % len(self._members)] for n in range(amount))


class Rings:
    """K rings over a list of members, which :meth:`update` keeps in step with the membership."""

    def __init__(self) -> None:
        self._rings = [_Ring() for _ in range(K)]
        self._within: set[Address] = set()
        self._members: Sequence[Address] | None = None

    def __contains__(self, address: Address) -> bool:
        return address in self._within

    def update(self, members: Sequence[Address]) -> None:
        """Make ``members`` the members of the rings.

        The caller passes the same object again while the list is unchanged, so that this call costs nothing.
        """
        if members is self._members:
            return
        self._members = members
        wanted = set(members)
        for address in self._within - wanted:
            for ring, place in zip(self._rings, _places(address)):
                ring.remove(place, address)
        for address in wanted - self._within:
            for ring, place in zip(self._rings, _places(address)):
                ring.add(place, address)
        self._within = wanted

    def observers(self, address: Address, depth: int = 1) -> set[Address]:
        """The members that observe ``address``: its ``depth`` nearest predecessors in each ring.

        ``address`` need not be a member. If there are at most K + 1 members, everybody observes everybody.
        """
        return self._neighbours(address, -1, depth)

    def subjects(self, address: Address) -> set[Address]:
        """The members that ``address`` observes: its successor in each ring."""
        return self._neighbours(address, 1, 1)

    def _neighbours(self, address: Address, step: int, depth: int) -> set[Address]:
        within = address in self._within
        if len(self._within) - within <= K:
            return self._within - {address}
        found: set[Address] = set()
        # Outside the ring, the index of an address is that of its successor.
        skip = step if within or step < 0 else 0
        for ring, place in zip(self._rings, _places(address)):
            found.update(ring.around(ring.index(place, address) + skip, step, depth))
        found.discard(address)
        return found


def _places(address: Address) -> tuple[int, ...]:
    """The places of a member in all rings."""
    raw = b"xg-rings" + address.packed + address.port.to_bytes(2, "big")
    return _PLACES.unpack(hashlib.shake_128(raw).digest(_PLACES.size))


def watermarks(observers: int) -> tuple[int, int]:
    """L and H: from L observers on that report a failure, a member is suspect; from H on it is removed.

    Rapid's values, 3 and 9 of 10, scaled to the number of ``observers``. If there are two observers or more, the word
    of a single observer is never enough for a suspicion, because one broken path proves nothing. From five observers
    on, one report may be missing at the high watermark: a rumor does not reach every member.
    """
    low = max(min(2, observers), round(0.3 * observers))
    return low, max(low, round(0.9 * observers))
