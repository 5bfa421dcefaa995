# SPDX-License-Identifier: MIT
"""Selects the peers to sync with: absent seeds, random members, dead nodes, and members whose documents differ."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from .detector import Detector
from .interface import Known
from .members.membership import Membership
from .members.seeds import Seeds
from .members.timing import Timing
from .outbox import Local, Outbox
from .packets import Rejected
from .sync.anti_entropy import AntiEntropy
from .sync.records import NodeRecords
from .timers import Timers
from .types import Address, Node, Now, State

#: Maximum number of dead nodes that this node tries to contact in each cycle.
_RETRIES = 4
#: Number of cycles between two syncs with a random member, while no member has missed two heartbeats. A sync is the
#: most expensive work of an idle member.
_CALM = 3
#: At start, this node contacts at most this many of the nodes that it knows from an earlier run. This node contacts the
#: rest of these nodes in later cycles, in the same way as dead nodes.
_FIRST_TRIES = 8


class PeerSelection:
    """Opens syncs with the selected members, and triggers requests for missing node records."""

    def __init__(
        self,
        local: Local,
        membership: Membership,
        detector: Detector,
        anti_entropy: AntiEntropy,
        records: NodeRecords,
        out: Outbox,
        timing: Timing,
        timers: Timers,
        rng: random.Random,
    ) -> None:
        self._local = local
        self._membership = membership
        self._detector = detector
        self._anti_entropy = anti_entropy
        self._records = records
        self._out = out
        self._timing = timing
        self._timers = timers
        self._rng = rng
        self._seeds = Seeds(membership, lambda: timing.cycle, rng)
        self._settling = False
        self._pause = 0.0
        self._rounds = 0
        self._round_at = math.inf

    def start(self, known: Iterable[Known], now: Now) -> None:
        """Contact some of the ``known`` nodes, and start the regular rounds of contacts.

        Known nodes count as dead until they answer, and former members are not in the NodeList until they answer.
        """
        remembered = [item.address for item in known if self._remember(item, now)]
        for address in self._rng.sample(remembered, min(len(remembered), _FIRST_TRIES)):
            self._seeds.hurry(address, now)
        self.tick(now)
        self._round_at = now.mono + self._rng.uniform(0.1, 1.0) * self._timing.cycle

    def seed(self, node: Node, now: Now) -> None:
        """Contact ``node`` now, and again whenever it is not a present member.

        As in PekoNode, a new seed counts as present until the timeout.
        """
        address = node.address
        peer = self._membership.get(address)
        if address == self._local.address:
            return
        self._seeds.give(address, now)
        if peer is not None and peer.heard and peer.present:
            return
        if peer is None:
            try:
                peer = self._membership.add(address, now)
            except Rejected as rejected:  # contact the seed anyway: its node may have another address
                self._out.count(f"rx_{rejected.reason}")
            else:
                self._records.remember(peer, node.name, node.private_data)
        if self._local.status == "running":
            self.tick(now)

    def unseed(self, address: Address) -> None:
        """Remove a seed, so that this node no longer contacts the seed when the seed is absent."""
        self._seeds.withdraw(address)

    @property
    def seeds(self) -> Seeds:
        """The configured seeds and the former members that this node contacts."""
        return self._seeds

    @property
    def waiting(self) -> bool:
        """Whether a new seed has not answered yet, or the record of a member is missing."""
        return bool(self._seeds.waiting or self._membership.incomplete)

    def answered(self, address: Address) -> None:
        """Note that the node at ``address`` was heard, so that this node need not contact it any more."""
        self._seeds.answered(address)

    def tick(self, now: Now) -> None:
        """Contact seeds that did not answer, request missing records, and run a round once a cycle."""
        # The next tick may be as late as one cycle from now, so a round that is due within a third of a cycle runs now.
        if now.mono + self._timing.cycle / 3 >= self._round_at:
            self._round(now)
        for address in self._seeds.due(now):
            self._anti_entropy.request(address, now)
        self._records.tick(now)

    def differs(self, now: Now) -> None:
        """Schedule a sync, because a member advertises a documents digest that differs from this node's digest.

        This node delays the sync for a moment, because a rumor with the missing document usually arrives and removes
        the difference. The delay doubles after each sync that does not remove the difference. A sync cannot remove the
        difference if, for example, a member has documents that this node refuses.
        """
        if not self._settling and self._local.status == "running":
            self._settling = True
            self._timers.at(now.mono + self._rng.uniform(0.05, 0.25) + self._pause, self._settle)

    def _settle(self, now: Now) -> None:
        self._settling = False
        ours = self._anti_entropy.documents_digest
        differing = [
            peer for peer in self._membership if peer.present and peer.heard and peer.sync.documents_digest != ours
        ]
        if not differing:
            self._pause = 0.0
            return
        self._pause = min(self._timing.cycle, self._pause * 2 + 0.1)
        self._anti_entropy.request(self._rng.choice(differing).address, now)

    def _round(self, now: Now) -> None:
        """Contact some dead nodes and absent seeds, and in some cycles also a random member.

        The method runs once a cycle.
        """
        self._round_at = now.mono + self._timing.cycle * self._rng.uniform(0.9, 1.1)
        if self._local.status == "left":
            return
        gone = [
            peer.address for peer in self._membership.gone.values() if peer.liveness.state is State.DEAD and peer.heard
        ]
        self._rounds += 1
        calm = self._rounds % _CALM and not self._membership.overdue(self._timing.overdue, 1, now)
        members = [] if calm else self._membership.targets(1)
        second_chances = self._rng.sample(gone, min(len(gone), _RETRIES))
        for address in dict.fromkeys((*members, *second_chances, *self._seeds.round(now))):
            self._anti_entropy.request(address, now)

    def _remember(self, item: Known, now: Now) -> bool:
        if item.address == self._local.address or self._membership.get(item.address) is not None:
            return False
        if item.is_former:
            self._seeds.add_former(item.address)
            return True
        try:
            peer = self._membership.add(item.address, now)
        except Rejected as rejected:
            self._out.count(f"rx_{rejected.reason}")
            return False
        self._membership.remember(peer, item.incarnation, item.sequence)
        self._records.remember(peer, item.name, item.private_data, item.zone)
        self._detector.remember(peer, now.mono - max(0.0, (now.wall_ns - item.last_heard_ns) / 1e9))
        return True
