# SPDX-License-Identifier: MIT
"""Addresses of absent nodes that this node tries to contact: configured seeds, and former members.

Invariant (docs/protocol.md, "Reach"): this node contacts every absent seed and former member again and again, with
pauses. Therefore a network partition heals, however long it lasted, if one side still knows an address of the other
side.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..types import Address, Now
from .membership import Membership

#: Seconds from the first to the second contact of a new seed. Each later pause between contacts is twice as long as the
#: pause before.
_FIRST_PAUSE = 0.5
#: Maximum seconds between two contacts of a new seed. If a cycle is longer than this number of seconds, the maximum
#: pause between two contacts is one cycle. After a pause of this length, only the regular rounds contact the seed.
_LAST_PAUSE = 5.0
#: Maximum number of absent seeds that this node contacts in each round.
_SEEDS_A_ROUND = 2
#: Maximum number of former members, and seconds between two contacts with a former member.
MAX_FORMER = 1024
_FORMER_EVERY = 30.0


class Seeds:
    """Decides which absent nodes to contact, and when.

    ``cycle`` returns the current number of seconds between two rounds.
    """

    def __init__(self, membership: Membership, cycle: Callable[[], float], rng: random.Random) -> None:
        self._membership = membership
        self._cycle = cycle
        self._rng = rng
        self._given: dict[Address, Address] = {}  # Seed address from the user -> the node's own address.
        # Address -> (time of the next contact, seconds from that contact to the one after it).
        self._urgent: dict[Address, tuple[float, float]] = {}
        self._turns: list[Address] = []
        self._former: dict[Address, None] = {}  # in the order in which they left the NodeList
        self._former_at = 0.0
        membership.disowns = self._former.__contains__

    @property
    def given(self) -> list[Address]:
        """The addresses of all seeds, as the user gave them."""
        return list(self._given)

    @property
    def absent(self) -> list[Address]:
        """The seeds that are not present members, by the addresses that the user gave."""
        return [given for given, own in self._given.items() if not self._present(own)]

    @property
    def former(self) -> list[Address]:
        """The former members, which are no longer in the NodeList but which this node still contacts."""
        return list(self._former)

    @property
    def waiting(self) -> bool:
        """Whether a newly added address has not answered yet."""
        return bool(self._urgent)

    def give(self, address: Address, now: Now) -> None:
        """Add a seed. This node contacts the seed at once, and again whenever the seed is not a present member."""
        self._given.setdefault(address, address)
        if not self._present(address):
            self.hurry(address, now)

    def withdraw(self, address: Address) -> None:
        """Remove a seed."""
        self._given.pop(address, None)
        self._urgent.pop(address, None)

    def hurry(self, address: Address, now: Now) -> None:
        """Contact an address at once, and again after growing pauses until the node at the address answers."""
        self._urgent[address] = (now.mono, _FIRST_PAUSE)

    def answered(self, address: Address) -> None:
        """Stop contacting ``address``, because its node was heard."""
        self._urgent.pop(address, None)
        self._former.pop(address, None)

    def is_alias(self, given: Address, own: Address) -> None:
        """Record that the seed address ``given`` is another address of the node whose own address is ``own``."""
        self._urgent.pop(given, None)
        if given in self._given:
            self._given[given] = own

    def add_former(self, address: Address) -> None:
        """Add a former member, which was removed from the NodeList: after a day, by an operator, or to make room."""
        self._former.pop(address, None)
        self._former[address] = None
        while len(self._former) > MAX_FORMER:
            del self._former[next(iter(self._former))]

    def contacts(self, address: Address) -> bool:
        """Whether ``address`` is a seed or a former member."""
        return address in self._given or address in self._former

    def due(self, now: Now) -> list[Address]:
        """Those of the addresses passed to :meth:`hurry` that this node must contact now."""
        found = []
        for address, (when, pause) in list(self._urgent.items()):
            if now.mono < when:
                continue
            found.append(address)
            if pause >= max(_LAST_PAUSE, self._cycle()):
                del self._urgent[address]  # the regular rounds contact the address from now on
            else:
                self._urgent[address] = (now.mono + pause, pause * 2)
        return found

    def round(self, now: Now) -> list[Address]:
        """The addresses to contact in this cycle.

        The list contains some absent seeds. At most every 30 s, the list also contains one former member.
        """
        found = self._next_absent()
        if self._former and now.mono >= self._former_at:
            self._former_at = now.mono + max(_FORMER_EVERY, self._cycle())
            found.append(self._rng.choice(list(self._former)))
        return found

    def _next_absent(self) -> list[Address]:
        """The next absent seeds in a random order. Each seed appears once before the seeds are shuffled again."""
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
