# SPDX-License-Identifier: MIT
"""The members that a data plane relays rumors to: a shuffled sample, partly replaced at each refresh."""

from __future__ import annotations

import random

from ..types import Address
from .membership import Membership

#: One part in this many of a full sample is replaced at each refresh. Replacing all of it would make the kernel resolve
#: as many new next hops each cycle. This way each target stays for a few cycles.
_EXCHANGED = 8


class RelayRing:
    """Keeps the sample of relay targets."""

    def __init__(self, membership: Membership, rng: random.Random) -> None:
        self._membership = membership
        self._rng = rng
        self._sample: list[Address] = []

    def refresh(self, limit: int) -> list[Address]:
        """Up to ``limit`` different present members in random order; all of them if there are not more."""
        present = self._membership.present
        rng = self._rng
        if len(present) <= limit:
            self._sample = list(present)
        else:
            members = set(present)
            kept = [address for address in self._sample if address in members]
            rng.shuffle(kept)
            del kept[limit - limit // _EXCHANGED :]
            chosen = set(kept)
            while len(kept) < limit:
                address = rng.choice(present)
                if address not in chosen:
                    chosen.add(address)
                    kept.append(address)
            self._sample = kept
        rng.shuffle(self._sample)
        return list(self._sample)
