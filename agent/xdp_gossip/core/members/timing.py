# SPDX-License-Identifier: MIT
"""Timing: cycle, timeout and the values derived from these two. Automatic values depend on the size of the cluster."""

from __future__ import annotations

from ..packets import PacketType
from ..settings import Settings
from .membership import Membership

#: Each node sends rare and urgent rumors to ``WIDE`` times ``amount`` members. At 50 nodes and an amount of 4, only
#: about one of these rumors in 3,000 fails to reach some member. If rare and urgent rumors went only to ``amount``
#: members, most of the rumors would miss at least one member.
WIDE = 3
WIDE_RUMORS = frozenset({PacketType.METADATA, PacketType.LEAVE, PacketType.ALERT})
MAX_COPIES = 64
#: Seconds between two rounds of edge probes, whatever the size of the cluster.
ROUND_INTERVAL = 1.0


class Timing:
    """The cycle, the timeout and the values derived from these two, in seconds."""

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
        """Seconds without a sign of life after which a member becomes suspect.

        If the setting ``timeout`` is not set, the value is ``timeout_cycles`` x cycle + 2, as in PekoNode.
        """
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
        """Seconds of silence after which a sync requests newer data about a member.

        The member has then missed two heartbeats.
        """
        return self.cycle * 2.5

    def copies(self, kind: PacketType) -> int:
        """Number k of members to which each node sends a rumor. About one member in e^k does not receive the rumor."""
        amount = self._settings.amount
        return min(MAX_COPIES, WIDE * amount) if kind in WIDE_RUMORS else amount

    @property
    def members(self) -> int:
        """Number of present members, including the local member."""
        return self._membership.number_present + 1
