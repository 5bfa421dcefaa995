# SPDX-License-Identifier: MIT
"""Chooses the members to which this node sends rumors, so that few copies of a rumor pass from one zone to another.

docs/protocol.md, "Zones", states the rule.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Collection, Container, Iterable

from ..types import Address

#: The members outside a zone together send each rumor to the zone this many times as often as the rumor's number of
#: copies. The probability that none of these copies arrives is e^-12 for a heartbeat with four copies.
LINKS = 3
#: If there are more zones than this, all members count as one zone. The search for targets would cost too much.
MOST_ZONES = 256
#: :meth:`Zones.sample` replaces 1/8 of a sample, so each target stays in the sample for a few cycles. If each call
#: replaced the whole sample, the kernel would have to resolve a next hop for every target in each cycle.
RENEWED = 8
#: Among up to ``_FEW`` + 4 x amount members, targets are chosen from a list of those that are left. Among more members,
#: targets are drawn at random, up to ``_TRIES`` times each. A draw fails in less than a quarter of all cases.
_FEW = 64
_TRIES = 8


class _Pool:
    """A set of addresses from which random addresses are drawn in constant time."""

    def __init__(self) -> None:
        self.members: list[Address] = []
        self._places: dict[Address, int] = {}

    def __contains__(self, address: Address) -> bool:
        return address in self._places

    def __len__(self) -> int:
        return len(self.members)

    def add(self, address: Address) -> None:
        self._places[address] = len(self.members)
        self.members.append(address)

    def remove(self, address: Address) -> None:
        place, last = self._places.pop(address), self.members.pop()
        if last != address:
            self.members[place] = last
            self._places[last] = place


class Zones:
    """The present members by zone. ``own`` is the local node's zone; "" is the zone of nodes without one."""

    def __init__(self, own: str, rng: random.Random) -> None:
        self.own = own
        self._rng = rng
        self._pools: dict[str, _Pool] = {}
        self._zone_of: dict[Address, str] = {}
        self._others: list[_Pool] = []
        #: Where the share of each pool in ``_others`` ends, as running totals. The rest, up to 1, is the own zone's.
        self._ends: list[float] = []
        self._outdated = False

    @property
    def several(self) -> bool:
        """Whether the present nodes, including the local node, are in several zones, and in few enough."""
        return 1 < len(self._pools) + (self.own not in self._pools) <= MOST_ZONES

    def has_members(self, zone: str) -> bool:
        """Whether a peer in ``zone`` is present."""
        return zone in self._pools

    def place(self, address: Address, zone: str | None) -> None:
        """Note the zone of a present member; None: the node is no present member."""
        before = self._zone_of.get(address)
        if before == zone:
            return
        self._outdated = True
        if before is not None:
            del self._zone_of[address]
            pool = self._pools[before]
            pool.remove(address)
            if not pool:
                del self._pools[before]
        if zone is not None:
            self._zone_of[address] = zone
            self._pools.setdefault(zone, _Pool()).add(address)

    def targets(self, copies: int, exclude: Container[Address]) -> list[Address]:
        """Up to ``copies`` different members for one rumor, none of them in ``exclude``."""
        return self._draw(copies, exclude, ())

    def sample(self, limit: int, least: int, former: Iterable[Address]) -> list[Address]:
        """Up to ``limit`` different members from which a data plane takes the targets of all rumors in turn.

        ``least``: number of copies of the rumor with the most copies. ``former``: the sample to renew.
        """
        self._update()
        crossing = self._ends[-1] if self._ends else 0.0
        own = self._pools.get(self.own, ())
        # If the sample contained more members, the own zone would be a smaller part of the sample than of the targets.
        size = max(least, round(len(own) / (1 - crossing))) if crossing < 1 else limit
        kept = [address for address in former if self._rng.random() >= 1 / RENEWED]
        drawn = self._draw(min(limit, size), (), kept)
        self._rng.shuffle(drawn)
        return drawn

    def _update(self) -> None:
        """Compute the share of each other zone in the targets of a rumor."""
        if not self._outdated:
            return
        self._outdated = False
        self._others = [pool for zone, pool in self._pools.items() if zone != self.own]
        self._ends = []
        end, peers = 0.0, len(self._zone_of)
        for pool in self._others:
            # The second value is the share without zones: no zone gets more copies than that.
            end += min(LINKS / (peers + 1 - len(pool)), len(pool) / peers)
            self._ends.append(end)

    def _draw(self, amount: int, exclude: Container[Address], prefer: Collection[Address]) -> list[Address]:
        self._update()
        chosen: dict[Address, None] = {}
        own = self._pools.get(self.own) or _Pool()
        wanted = [0] * (len(self._others) + 1)
        # One random number for all copies, so that the parts of the zones vary by less than one copy.
        offset = self._rng.random()
        for copy in range(amount):
            wanted[bisect.bisect_right(self._ends, (copy + offset) / amount)] += 1
        for pool, number in zip([*self._others, own], wanted):
            if number:
                chosen.update(dict.fromkeys(self._of(pool, number, exclude, prefer)))
        # What a small zone cannot take goes to any member, so zones never reduce the number of copies.
        self._fill(chosen, amount, exclude)
        return list(chosen)

    def _of(self, pool: _Pool, amount: int, exclude: Container[Address], prefer: Collection[Address]) -> list[Address]:
        """Up to ``amount`` members of one zone, first those in ``prefer``."""
        found = dict.fromkeys([address for address in prefer if address in pool][:amount])
        if len(pool) <= _FEW + 4 * amount:
            rest = [address for address in pool.members if address not in found and address not in exclude]
            found.update(dict.fromkeys(self._rng.sample(rest, min(len(rest), amount - len(found)))))
            return list(found)
        for _ in range(_TRIES * amount):
            if len(found) == amount:
                break
            address = self._rng.choice(pool.members)
            if address not in exclude:
                found[address] = None
        return list(found)

    def _fill(self, chosen: dict[Address, None], amount: int, exclude: Container[Address]) -> None:
        """Add random members, whatever their zone, until ``amount`` members are chosen."""
        if len(chosen) >= amount:
            return
        if len(self._zone_of) <= _FEW + 4 * amount:
            rest = [address for address in self._zone_of if address not in chosen and address not in exclude]
            chosen.update(dict.fromkeys(self._rng.sample(rest, min(len(rest), amount - len(chosen)))))
            return
        pools = list(self._pools.values())
        sizes = [len(pool) for pool in pools]
        for pool in self._rng.choices(pools, sizes, k=_TRIES * (amount - len(chosen))):
            if len(chosen) == amount:
                return
            address = self._rng.choice(pool.members)
            if address not in exclude:
                chosen[address] = None
