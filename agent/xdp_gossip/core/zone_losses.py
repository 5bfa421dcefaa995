# SPDX-License-Identifier: MIT
"""Reports the loss of a whole zone as one event, whatever the number of its members."""

from __future__ import annotations

from collections import Counter

from .events import ZoneChanged
from .members.membership import Membership
from .members.peer import Peer
from .outbox import Outbox
from .types import PRESENT, State


class ZoneLosses:
    """Emits ``ZoneChanged`` when the last present member of a zone is lost, and when the first one is back."""

    def __init__(self, membership: Membership, out: Outbox) -> None:
        self._membership = membership
        self._out = out
        self._lost: set[str] = set()

    def moved(self, peer: Peer, previous: State | None) -> None:
        """Note that ``peer`` has changed its state from ``previous``.

        After a start, the nodes of an earlier run are dead until they answer. They were never present in this run, so
        they are no loss.
        """
        zone, zones = peer.zone, self._membership.zones
        if not zone or zone == zones.own:
            return
        if peer.present:
            if zone in self._lost:
                self._lost.discard(zone)
                self._tell(zone, lost=False)
        elif previous in PRESENT and not zones.has_members(zone):
            self._tell(zone, lost=True)

    def _tell(self, zone: str, lost: bool) -> None:
        away = Counter(peer.zone for peer in self._membership.gone.values() if peer.liveness.state is not State.LEFT)
        if lost and not away[zone]:
            return
        if lost:
            # Zones that no known node has any more are forgotten: nodes choose the names of their zones.
            self._lost = {zone, *(name for name in self._lost if name in away)}
        self._out.emit(ZoneChanged(zone, lost, away[zone]))
