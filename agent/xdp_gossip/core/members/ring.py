# SPDX-License-Identifier: MIT
"""The members to which a data plane relays rumors: a random sample."""

from __future__ import annotations

from ..packets import PacketType
from ..types import Address
from .membership import Membership
from .timing import Timing


class RelayRing:
    """A random sample of relay targets that changes slowly."""

    def __init__(self, membership: Membership, timing: Timing) -> None:
        self._membership = membership
        self._timing = timing
        self._sample: list[Address] = []

    def refresh(self, limit: int) -> list[Address]:
        """Replace a part of the sample, and return up to ``limit`` different present members in random order."""
        self._sample = self._membership.sample(limit, self._timing.copies(PacketType.METADATA), self._sample)
        return list(self._sample)
