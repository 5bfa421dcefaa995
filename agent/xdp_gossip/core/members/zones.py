# SPDX-License-Identifier: MIT
"""Chooses the members to which this node sends rumors, so that few copies of a rumor pass from one zone to another.

docs/protocol.md, "Zones", states the rule.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Container, Iterable, Mapping, Sequence

from ..types import Address

#: The members outside a zone together send each rumor to the zone this many times as often as the rumor's number of
#: copies. The probability that none of these copies arrives is e^-12 for a heartbeat with four copies.
LINKS = 3
#: If there are more zones than this, all members count as one zone. The search for targets would cost too much.
MOST_ZONES = 256
#: :meth:`Zones.sample` replaces 1/8 of a sample, so each target stays in the sample for a few cycles. If each call
#: replaced the whole sample, the kernel would have to resolve a next hop for every target in each cycle.
RENEWED = 8
#: Among more than ``_MANY`` times as many members as targets, targets are drawn at random, ``_TRIES`` times each, and a
#: draw rarely fails. Among fewer members, targets are chosen from a list of those that are left.
_MANY = 4
_TRIES = 8


class _Pool:
    """A set of addresses from which random addresses are drawn in constant time."""

    def __init__(self) -> None:
        self.members: list[Address] = []
        self._places: dict[Address, int] = {}

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
        self._others: list[str] = []
        #: Where the share of each zone in ``_others`` ends, as running totals. The rest, up to 1, is the own zone's.
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
        return self._draw(copies, exclude, {})

    def sample(self, limit: int, least: int, former: Iterable[Address]) -> list[Address]:
        """Up to ``limit`` different members from which a data plane takes the targets of all rumors in turn.

        ``least``: number of copies of the rumor with the most copies. ``former``: the sample to renew.
        """
        self._update()
        crossing = self._ends[-1] if self._ends else 0.0
        own = self._pools.get(self.own)
        # If the sample contained more members, the own zone would be a smaller part of the sample than of the targets.
        size = max(least, round(len(own) / (1 - crossing))) if own else limit
        kept: dict[str, list[Address]] = {}
        for address in former:
            zone = self._zone_of.get(address)
            if zone is not None and self._rng.random() >= 1 / RENEWED:
                kept.setdefault(zone, []).append(address)
        drawn = self._draw(min(limit, size), (), kept)
        self._rng.shuffle(drawn)
        return drawn

    def _update(self) -> None:
        """Compute the share of each other zone in the targets of a rumor."""
        if not self._outdated:
            return
        self._outdated = False
        self._others = [zone for zone in self._pools if zone != self.own]
        self._ends = []
        end, peers = 0.0, len(self._zone_of)
        for zone in self._others:
            members = len(self._pools[zone])
            # The second value is the share without zones: no zone gets more copies than that.
            end += min(LINKS / (peers + 1 - members), members / peers)
            self._ends.append(end)

    def _draw(self, amount: int, exclude: Container[Address], prefer: Mapping[str, Sequence[Address]]) -> list[Address]:
        """Up to ``amount`` different members, each zone with its share; of a zone first those in ``prefer``."""
        self._update()
        chosen: dict[Address, None] = {}
        wanted = [0] * (len(self._others) + 1)
        # One random number for all copies, so that the parts of the zones vary by less than one copy.
        offset = self._rng.random()
        for copy in range(amount):
            wanted[bisect.bisect_right(self._ends, (copy + offset) / amount)] += 1
        for zone, number in zip([*self._others, self.own], wanted):
            if number and zone in self._pools:
                chosen.update(dict.fromkeys(self._of(self._pools[zone], number, exclude, prefer.get(zone, ()))))
        # What a small zone cannot take goes to any member, so zones never reduce the number of copies.
        self._fill(chosen, amount, exclude)
        return list(chosen)

    def _of(self, pool: _Pool, amount: int, exclude: Container[Address], prefer: Sequence[Address]) -> list[Address]:
        """Up to ``amount`` members of one zone, first those in ``prefer``."""
        found = dict.fromkeys(prefer[:amount])
        if len(pool) > _MANY * amount:
            for address in self._rng.choices(pool.members, k=_TRIES * (amount - len(found))):
                if len(found) == amount:
                    break
                if address not in exclude:
                    found[address] = None
        self._complete(found, pool.members, amount, exclude)
        return list(found)

    def _fill(self, chosen: dict[Address, None], amount: int, exclude: Container[Address]) -> None:
        """Add random members, whatever their zone, until ``amount`` members are chosen."""
        if len(chosen) < amount and len(self._zone_of) > _MANY * amount:
            pools = list(self._pools.values())
            sizes = [len(pool) for pool in pools]
            for pool in self._rng.choices(pools, sizes, k=_TRIES * (amount - len(chosen))):
                if len(chosen) == amount:
                    break
                address = self._rng.choice(pool.members)
                if address not in exclude:
                    chosen[address] = None
        self._complete(chosen, self._zone_of, amount, exclude)

    def _complete(
        self, chosen: dict[Address, None], members: Iterable[Address], amount: int, exclude: Container[Address]
    ) -> None:
        """Add random ones of ``members`` until ``amount`` are chosen, or all are. The search looks at all members."""
        if len(chosen) < amount:
            rest = [address for address in members if address not in chosen and address not in exclude]
            chosen.update(dict.fromkeys(self._rng.sample(rest, min(len(rest), amount - len(chosen)))))
