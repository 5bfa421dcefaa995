# SPDX-License-Identifier: MIT
"""The members to which a data plane relays rumors: a random sample.

Each call of :meth:`RelayRing.refresh` replaces a part of the sample.
"""

from __future__ import annotations

import random

from ..types import Address
from .membership import Membership

#: Each call of :meth:`RelayRing.refresh` replaces 1/8 of a full sample, so each target stays in the sample for a few
#: cycles. If each call replaced the whole sample, the kernel would have to resolve a next hop for every target in each
#: cycle.
_EXCHANGED = 8


class RelayRing:
    """A random sample of relay targets that changes slowly."""

    def __init__(self, membership: Membership, rng: random.Random) -> None:
        self._membership = membership
        self._rng = rng
        self._sample: list[Address] = []

    def refresh(self, limit: int) -> list[Address]:
        """Replace a part of the sample, and return up to ``limit`` different present members in random order."""
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
