# SPDX-License-Identifier: MIT
"""Applies the observations of a kernel data plane to the membership.

The data plane authenticates, de-duplicates and relays rumors without the engine, and stores the newest header fields of
each origin. The engine reads the stored observations about once a cycle, and needs no further work for a heartbeat that
brings no change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .admission import Admission
from .detector import Detector, standing_of
from .events import Standing
from .members.membership import Membership
from .members.peer import Peer
from .members.timing import Timing
from .outbox import Outbox
from .packets import FLAG_PAUSED, Rejected
from .peer_selection import PeerSelection
from .runs import after, later
from .sync.records import NodeRecords
from .types import Address, Now, State

#: What a data plane has stored about one origin. Origins that the data plane treats as gone are left out. The items
#: are: key (20 bytes, ``peer.key_of``), incarnation, highest rumor sequence, window (bit i: highest - i was seen), last
#: sign of life (monotonic seconds; 0: none), the origin's wall clock minus the local wall clock (seconds), documents
#: digest, record digest, flags of the origin's newest packet. The type is a plain tuple for speed, because the engine
#: reads up to ten thousand observations at once.
Observation = tuple[bytes, int, int, int, float, float, int, int, int]


class KernelView:
    """Applies observations of the data plane, and computes when the engine must read the next observations."""

    def __init__(
        self,
        membership: Membership,
        admission: Admission,
        detector: Detector,
        selection: PeerSelection,
        records: NodeRecords,
        out: Outbox,
        timing: Timing,
    ) -> None:
        self._membership = membership
        self._admission = admission
        self._detector = detector
        self._selection = selection
        self._records = records
        self._out = out
        self._timing = timing
        self._last: float | None = None
        #: Monotonic time in seconds at which the engine last detected a suspend of the machine.
        self.woke_up_at = -math.inf

    @property
    def observing(self) -> bool:
        """Whether a data plane is active and records signs of life."""
        return self._last is not None

    @property
    def due(self) -> float:
        """Monotonic seconds of the next read: one cycle after the last read, sooner while a member is suspect."""
        if self._last is None:
            return -math.inf
        suspects = self._membership.suspects
        return self._last + (self._timing.tick if suspects else self._timing.cycle)

    def stop(self) -> None:
        """Note that the data plane has stopped. From now on, every packet goes through the engine."""
        self._last = None
        self._membership.informed_until = math.inf

    def take(self, rows: Iterable[Observation], documents_digest: int, now: Now) -> None:
        """Apply the observations ``rows`` to the membership. ``documents_digest``: this node's documents digest."""
        first = self._last is None
        # A data plane that has just started has no replay windows and no list of dead nodes. Therefore the first call
        # of this method sends the data plane the state of every known peer.
        known = [peer for peer in self._membership if peer.heard] if first else []
        self._last = self._membership.informed_until = now.mono
        by_key = self._membership.by_key
        differs = False
        timeout = self._timing.timeout
        for row in rows:
            key, incarnation, highest, window, last_seen, clock_ahead, state, record, flags = row
            peer = by_key.get(key) or self._newcomer(key, incarnation, last_seen, now)
            if peer is None or later(peer.incarnation, incarnation):
                continue
            if incarnation != peer.incarnation or record != peer.record_digest:
                self._membership.recorded_run(peer, incarnation, record)
                self._records.expect(peer, now)
            if highest != peer.rumors.highest or window != peer.rumors.bits:
                self._membership.recorded(peer, highest, window, state, flags)
                # The data plane compares the clocks of other nodes with a clock that stops during a suspend. Therefore
                # the clock differences that the data plane measured before a suspend are wrong after the suspend.
                if last_seen >= self.woke_up_at:
                    self._admission.note_clock(peer, clock_ahead)
            live = peer.liveness
            if last_seen > live.last_heard and not flags & FLAG_PAUSED:
                if live.state is State.ALIVE:
                    self._detector.recorded(live, last_seen)
                elif after((incarnation, highest), live.gone_at) and now.mono - last_seen < timeout:
                    self._detector.heard(peer, now, now.mono - last_seen)
                self._selection.answered(peer.address)
            differs = differs or (state != documents_digest and peer.present)
            if first and not peer.present:
                self._out.emit(standing_of(peer))
        for peer in known:
            self._out.emit(standing_of(peer))
        if differs:
            self._selection.differs(now)

    def _newcomer(self, key: bytes, incarnation: int, last_seen: float, now: Now) -> Peer | None:
        address = Address.unpack(key[:16], int.from_bytes(key[16:18], "big"))
        try:
            peer = self._membership.add(address, now)
        except Rejected as rejected:
            self._out.count(f"rx_{rejected.reason}")
            self._out.emit(Standing(address, "forgotten", 0, 0, 0, 0.0))
            return None
        if last_seen and now.mono - last_seen < self._timing.timeout:
            self._detector.never_heard(peer)  # Another member will report when ``peer`` was last heard.
        elif last_seen:  # The peer died while this agent was not running.
            self._membership.recorded_run(peer, incarnation, 0)
            self._detector.enter(peer, State.DEAD, last_seen, now)
        return peer
