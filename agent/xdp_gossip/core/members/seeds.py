# SPDX-License-Identifier: MIT
"""Addresses to contact that are not members now: configured seeds, which are tried forever, and former members.

Invariant (docs/protocol.md, "Reach"): while a seed or a former member is absent, this node keeps trying it, with
pauses. So a partition of any length heals as long as one side knows an address of the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..types import Address, Now
from .membership import Membership

#: Seconds until a new seed is tried for the second time. Each pause is twice the one before.
_FIRST_PAUSE = 0.5
#: The longest such pause in seconds, or one cycle if that is longer. After it, the regular rounds try the seed.
_LAST_PAUSE = 5.0
#: Absent seeds that are tried in each round.
_SEEDS_A_ROUND = 2
#: Most former members kept, and seconds between two tries of a former member.
MAX_FORMER = 64
_FORMER_EVERY = 30.0


class Seeds:
    """Decides which address to try, and when.

    ``cycle`` returns the present number of seconds between two rounds.
    """

    def __init__(self, membership: Membership, cycle: Callable[[], float], rng: random.Random) -> None:
        self._membership = membership
        self._cycle = cycle
        self._rng = rng
        self._given: dict[Address, Address] = {}  # address as given -> address that the node itself uses
        self._urgent: dict[Address, tuple[float, float]] = {}  # address -> (next try, pause before the one after)
        self._turns: list[Address] = []
        self._former: dict[Address, None] = {}  # the latest to be forgotten comes last
        self._former_at = 0.0

    @property
    def given(self) -> list[Address]:
        """All seeds, as they were given."""
        return list(self._given)

    @property
    def absent(self) -> list[Address]:
        """Seeds that are not present members, as they were given."""
        return [given for given, own in self._given.items() if not self._present(own)]

    @property
    def former(self) -> list[Address]:
        """Forgotten members that are still tried."""
        return list(self._former)

    @property
    def waiting(self) -> bool:
        """Whether a new address is being tried and has not answered yet."""
        return bool(self._urgent)

    def give(self, address: Address, now: Now) -> None:
        """Add a seed. It is tried at once, and from now on whenever it is absent."""
        self._given.setdefault(address, address)
        if not self._present(address):
            self.hurry(address, now)

    def withdraw(self, address: Address) -> None:
        """Remove a seed."""
        self._given.pop(address, None)
        self._urgent.pop(address, None)

    def hurry(self, address: Address, now: Now) -> None:
        """Try an address at once, and again with growing pauses."""
        self._urgent[address] = (now.mono, _FIRST_PAUSE)

    def answered(self, address: Address) -> None:
        """Note that the node at ``address`` was heard."""
        self._urgent.pop(address, None)
        self._former.pop(address, None)

    def is_alias(self, given: Address, own: Address) -> None:
        """Note that the seed ``given`` is a node whose own address is ``own``."""
        self._urgent.pop(given, None)
        if given in self._given:
            self._given[given] = own

    def add_former(self, address: Address) -> None:
        """Add a forgotten member: it was silent for a day, or the table is full of others."""
        self._former.pop(address, None)
        self._former[address] = None
        while len(self._former) > MAX_FORMER:
            del self._former[next(iter(self._former))]

    def due(self, now: Now) -> list[Address]:
        """New addresses that are due to be tried now."""
        found = []
        for address, (when, pause) in list(self._urgent.items()):
            if now.mono < when:
                continue
            found.append(address)
            if pause >= max(_LAST_PAUSE, self._cycle()):
                del self._urgent[address]  # the regular rounds try it from now on
            else:
                self._urgent[address] = (now.mono + pause, pause * 2)
        return found

    def round(self, now: Now) -> list[Address]:
        """The addresses to try in this cycle: some of the absent seeds, and now and then a former member."""
        found = self._next_absent()
        if self._former and now.mono >= self._former_at:
            self._former_at = now.mono + max(_FORMER_EVERY, self._cycle())
            found.append(self._rng.choice(list(self._former)))
        return found

    def _next_absent(self) -> list[Address]:
        """The next absent seeds, in a random order in which each of them gets its turn."""
        found: list[Address] = []
        if not self._turns:
            self._turns = list(self._given)
            self._rng.shuffle(self._turns)
        while self._turns and len(found) < _SEEDS_A_ROUND:
            address = self._turns.pop()
            own = self._given.get(address)
            if own is not None and address not in self._urgent and not self._present(own):
                found.append(address)
        return found

    def _present(self, address: Address) -> bool:
        peer = self._membership.get(address)
        return peer is not None and peer.heard and peer.present
