# SPDX-License-Identifier: MIT
"""Timing: cycle, timeout and what derives from them. Automatic values follow the size of the cluster."""

from __future__ import annotations

from ..packets import PacketType
from ..settings import Settings
from .membership import Membership

#: Rare and urgent rumors go to this many times ``amount`` members. At 50 nodes and Amount 4, only about one rumor in
#: 3,000 then misses a member, instead of most of them.
WIDE = 3
WIDE_RUMORS = frozenset({PacketType.METADATA, PacketType.LEAVE})
MAX_COPIES = 64


class Timing:
    """Cycle, timeout and the values that derive from them, in seconds."""

    def __init__(self, settings: Settings, membership: Membership) -> None:
        self._settings = settings
        self._membership = membership

    @property
    def cycle(self) -> float:
        """Seconds between two heartbeats."""
        if self._settings.cycle > 0:
            return self._settings.cycle
        return max(1.0, self.members / 250)

    @property
    def timeout(self) -> float:
        """Seconds without a sign of life before a member becomes suspect. Default: PekoNode's rule."""
        if self._settings.timeout > self.cycle:
            return self._settings.timeout
        return self._settings.timeout_cycles * self.cycle + 2

    @property
    def probe_gap(self) -> float:
        """Seconds between two rounds of probes."""
        return min(1.0, self.cycle / 2)

    @property
    def tick(self) -> float:
        """Seconds between two checks of all members."""
        return min(1.0, max(0.1, self.cycle / 6))

    @property
    def overdue(self) -> float:
        """Seconds of silence before others are asked about a member in a sync: two heartbeats in a row were missed."""
        return self.cycle * 2.5

    def copies(self, kind: PacketType) -> int:
        """To how many members a node relays a rumor. With k, about one member in e^k misses it (docs/protocol.md)."""
        amount = self._settings.amount
        return min(MAX_COPIES, WIDE * amount) if kind in WIDE_RUMORS else amount

    @property
    def members(self) -> int:
        """Present members, the local one included."""
        return len(self._membership.present) + 1
