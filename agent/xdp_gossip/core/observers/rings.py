# SPDX-License-Identifier: MIT
"""Who observes whom: K pseudo-random rings over the members.

The rings are those of Rapid (Suresh et al., USENIX ATC 2018, section 4.1): in each ring the members stand in an order
of their own, and each member observes its successor. All members compute the same rings from the same list.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence

from ..types import Address

#: K, the number of rings: each member has at most ``K`` observers and at most ``K`` subjects (Rapid's default).
K = 10
#: A member accepts an alert of any of the ``NEIGHBOURS`` nearest predecessors of the subject in a ring, because the
#: member lists of two members differ for a moment while members come and go.
NEIGHBOURS = 3
#: Bytes of a member's place in one ring.
_PLACE = 8

#: A member's place in a ring, and the member.
_Seat = tuple[bytes, Address]


class Rings:
    """K rings over a list of members, which :meth:`update` keeps in step with the membership."""

    def __init__(self) -> None:
        self._rings: list[list[_Seat]] = [[] for _ in range(K)]
        self._places: dict[Address, list[bytes]] = {}
        self._members: Sequence[Address] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, address: Address) -> bool:
        return address in self._places

    def update(self, members: Sequence[Address]) -> bool:
        """Make ``members`` the members of the rings. Returns whether they changed.

        The caller passes the same object again while the list is unchanged, so that this call costs nothing.
        """
        if members is self._members:
            return False
        self._members = members
        wanted = set(members)
        gone = self._places.keys() - wanted
        new = wanted - self._places.keys()
        for address in gone:
            for ring, place in zip(self._rings, self._places.pop(address)):
                del ring[bisect.bisect_left(ring, (place, address))]
        for address in new:
            places = self._places[address] = _places(address)
            for ring, place in zip(self._rings, places):
                bisect.insort(ring, (place, address))
        return bool(gone or new)

    def observers(self, address: Address, depth: int = 1) -> set[Address]:
        """The members that observe ``address``: its ``depth`` nearest predecessors in each ring.

        ``address`` need not be a member. If there are at most K + 1 members, everybody observes everybody.
        """
        return self._neighbours(address, -1, depth)

    def subjects(self, address: Address) -> set[Address]:
        """The members that ``address`` observes: its successor in each ring."""
        return self._neighbours(address, 1, 1)

    def _neighbours(self, address: Address, step: int, depth: int) -> set[Address]:
        others = len(self._places) - (address in self._places)
        if others <= K:
            return {other for other in self._places if other != address}
        found: set[Address] = set()
        inside = address in self._places
        for ring, place in zip(self._rings, self._places.get(address) or _places(address)):
            at = bisect.bisect_left(ring, (place, address))
            # Outside the ring, ``at`` is the index of the successor.
            first = at + step if inside or step < 0 else at
            found.update(ring[(first + step * n) % len(ring)][1] for n in range(depth))
        found.discard(address)
        return found


def _places(address: Address) -> list[bytes]:
    """The places of a member in all rings."""
    raw = hashlib.shake_128(b"xg-rings" + address.packed + address.port.to_bytes(2, "big")).digest(K * _PLACE)
    return [raw[at : at + _PLACE] for at in range(0, len(raw), _PLACE)]


def watermarks(observers: int) -> tuple[int, int]:
    """L and H: from L observers on that report a failure, a member is suspect; from H on it is removed.

    Rapid's values, 3 and 9 of 10, scaled to the number of ``observers``. If there are two observers or more, the word
    of a single observer is never enough for a suspicion, because one broken path proves nothing. From five observers
    on, one report may be missing at the high watermark: a rumor does not reach every member.
    """
    low = max(min(2, observers), round(0.3 * observers))
    return low, max(low, round(0.9 * observers))
