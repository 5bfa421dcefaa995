# SPDX-License-Identifier: MIT
"""The observer's side: probes its subjects in rounds, and decides about each edge from the answers of a window.

An edge is the relation of an observer and one of its subjects. In each round an observer sends one probe, the same
packet, to all its subjects. An answer proves both directions of the path. The window and its threshold are those of
Rapid (USENIX ATC 2018, section 6): an edge has failed if 4 of the last 10 probes are unanswered. Local health
(Lifeguard, 2017) corrects the threshold: what all edges lose, the observer itself loses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Callable

from ..detector import Detector
from ..events import Warned
from ..members.membership import Membership
from ..members.peer import Peer
from ..members.timing import ROUND_INTERVAL, Timing
from ..messages import Alert, Alerts
from ..outbox import Local, Outbox
from ..packets import FLAG_PAUSED, Header, PacketType
from ..runs import later
from ..types import Address, EdgeState, Now, State
from .rings import Rings

#: Probes in the window of an edge, and the number of unanswered ones at which the edge has failed.
WINDOW, FAILED_AT = 10, 4
#: An edge that has failed is sound again when at most this many probes of its window are unanswered.
SOUND_AT = 1
#: Number of bits that are set in each number of ``WINDOW`` bits.
_IN_WINDOW = (1 << WINDOW) - 1
_ONES = bytes(sum(number >> bit & 1 for bit in range(WINDOW)) for number in range(_IN_WINDOW + 1))
#: Rounds that acknowledgements may be late; the kernel's record of an edge has as many (bpf/maps.h).
ROUNDS_KEPT = 64
#: Rounds without any acknowledgement, from whomever, after which a member calls itself isolated.
ISOLATED_AFTER = 4
#: Rounds without any acknowledgement after which a member also probes members that are no subjects of it, and the
#: number of these members. They show whether the subjects failed or this host did.
_ASK_OTHERS_AFTER, _OTHERS = 2, 3
#: Rounds after which an observer repeats an alert, for members that missed it: first, doubled each time, and at last.
REPEATED_FIRST, REPEATED_AT_LAST = 2, 80
#: Rounds after a late one in which this node removes nobody: the reports that waited for it may be outdated.
_AFTER_STALL = 2
#: Other known nodes without which a node is not isolated: one silent peer proves nothing about this host.
_LEAST_KNOWN = 2

#: What a data plane has recorded of the acknowledgements of one node: key (20 bytes, ``peer.key_of``), incarnation,
#: newest acknowledged round, window (bit i: round newest - i was acknowledged), time of the last acknowledgement
#: (monotonic seconds), the node's wall clock minus the local one (seconds), documents digest, record digest, flags,
#: milliseconds since the agent of the node renewed its lease.
Acknowledgement = tuple[bytes, int, int, int, float, float, int, int, int, int]


class Edge:
    """The probes of one subject: bit i of ``asked`` and ``answered`` belongs to the round before the last i ones."""

    __slots__ = (
        "asked", "answered", "asked_run", "lease_age", "lease_run", "current", "told", "told_run", "again_in",
        "reached", "returns",
    )  # fmt: skip

    def __init__(self, returns: int = 0) -> None:
        self.asked = 0
        self.answered = 0
        self.asked_run = 0  # The subject's incarnation at the last probe.
        # Seconds, in the newest acknowledgement, and the subject's incarnation in it.
        self.lease_age, self.lease_run = 0.0, 0
        self.current = EdgeState.OK
        # The state that was told last, and the subject's incarnation in it.
        self.told, self.told_run = EdgeState.OK, 0
        # Rounds until the state is told again, and the pause after that.
        self.again_in = (0, 0)
        self.reached = True  # Whether this host can send to the address family of the subject.
        # How often the subject had returned when the edge began. A subject that returns has a new edge.
        self.returns = returns

    @property
    def missing(self) -> int:
        """Number of unanswered probes in the window."""
        return _ONES[self.asked & ~self.answered & _IN_WINDOW]

    @property
    def newest_missing(self) -> bool:
        """Whether the newest probe is unanswered."""
        return bool(self.asked & ~self.answered & 1)


class Edges:
    """All edges of the local node as an observer."""

    def __init__(
        self,
        local: Local,
        membership: Membership,
        detector: Detector,
        rings: Rings,
        out: Outbox,
        timing: Timing,
    ) -> None:
        self._local = local
        self._membership = membership
        self._detector = detector
        self._rings = rings
        self._out = out
        self._timing = timing
        self._edges: dict[Address, Edge] = {}
        # The list of members from which the subjects were chosen.
        self._chosen_from: Sequence[Address] | None = None
        # Members asked in addition to the subjects, with the round in which they were last asked.
        self._others: dict[Address, int] = {}
        self._retracted: list[Alert] = []  # Alerts that end the reports of edges that are no more.
        self._answered_in = 0  # The newest round that was acknowledged by anybody.
        self._quiet = 0  # Rounds without any acknowledgement.
        self._expected = math.inf
        self._clean_since: float | None = None
        self._late_at = -math.inf
        #: Number of the newest round; 0 before the first. Random at first: nobody but the nodes that this run of the
        #: agent has asked knows a number that it accepts.
        self.round = 0
        #: Monotonic time of the next round.
        self.due = math.inf
        self.isolated = False
        #: Whether at least half of the subjects answered the last probe, so that others hear what this node says. A
        #: node without subjects is heard if any node answered. It is true before the first answers can be expected.
        self.heard = True
        #: Called with the alerts of this node.
        self.on_alerts: Callable[[tuple[Alert, ...], Now], None] = lambda alerts, now: None
        #: Called for each acknowledgement that counts: peer, acknowledgement, now.
        self.on_answer: Callable[[Peer, Acknowledgement, Now], None] = lambda peer, answer, now: None

    # -- rounds ------------------------------------------------------------------------------------------------

    def start(self, now: Now) -> None:
        """Begin with the first round, which follows within one interval."""
        self.round = self._out.rng.getrandbits(62) + ROUNDS_KEPT
        self.due = now.mono + ROUND_INTERVAL * self._out.rng.uniform(0.1, 1.0)
        self._expected = self.due

    def run(self, now: Now) -> None:
        """End the round before, and begin a new one: judge the edges, tell the changes, and probe all subjects."""
        late = now.mono - self._expected > ROUND_INTERVAL / 2
        self._late_at = now.mono if late else self._late_at
        self._expected = self.due = now.mono + ROUND_INTERVAL
        self._grade(late, now)
        self._choose()
        if not late:
            self._tell(now)
        self._probe(now)

    def has_stalled(self, now: Now) -> bool:
        """Whether the next round is late, or a round of the last moments was: this process does not run in time."""
        return now.mono - self.due > ROUND_INTERVAL / 2 or now.mono - self._late_at < _AFTER_STALL * ROUND_INTERVAL

    def rest(self, now: Now) -> None:
        """Let a round pass in which this node asks nobody, because it is paused or has left."""
        self._expected = self.due = now.mono + ROUND_INTERVAL
        self._edges.clear()
        self._chosen_from = None
        self._others.clear()
        self._quiet = 0

    def _grade(self, late: bool, now: Now) -> None:
        if not self._edges and not self._others:
            return
        if late:
            # This process did not run, so answers may still wait in its socket, or it asked too late.
            self._out.count("edge_rounds_forgiven")
            for edge in self._edges.values():
                edge.asked &= edge.answered | ~1
            return
        self._quiet = 0 if self._answered_in == self.round else self._quiet + 1
        if self._edges:
            sound = sum(not edge.newest_missing for edge in self._edges.values() if edge.reached)
            self.heard = bool(sound) and sound * 2 >= len(self._edges)
            clean = sound * 5 >= len(self._edges) * 4
        else:
            # Two members that removed each other have no subjects. The nodes that are probed instead show the path.
            self.heard = clean = self._answered_in == self.round
        if not clean:
            self._clean_since = None
        elif self._clean_since is None:
            self._clean_since = now.mono
        if self._quiet >= ISOLATED_AFTER and not self.isolated and len(self._known()) >= _LEAST_KNOWN:
            self._isolate(now)

    @property
    def is_quiet(self) -> bool:
        """Whether nobody answered the last round. If this lasts, this node is isolated."""
        return self._quiet > 0 and len(self._known()) >= _LEAST_KNOWN

    @property
    def active(self) -> bool:
        """Whether this node has subjects, so that observers decide about members."""
        return bool(self._edges)

    def _known(self) -> list[Address]:
        """All nodes that were heard and have not left, dead ones included."""
        return [peer.address for peer in self._membership if peer.heard and peer.liveness.state is not State.LEFT]

    def _isolate(self, now: Now) -> None:
        self.isolated = True
        self._detector.suspend()
        self._out.count("isolations")
        text = (
            f"no other node has answered for {self._quiet} rounds of probes: this node is isolated. It removes nobody, "
            "confirms no publish and renders nothing until a node answers"
        )
        self._out.emit(Warned("isolated", text))

    def _rejoin(self, now: Now) -> None:
        self.isolated = False
        self._detector.resume(now)
        self._out.emit(Warned("isolated_no_more", "a node has answered: this node is not isolated any more"))

    def clean_for(self, now: Now) -> float:
        """Seconds for which at least four of five subjects have answered every probe of this node."""
        return 0.0 if self._clean_since is None else now.mono - self._clean_since

    def _choose(self) -> None:
        """Follow the rings: forget the edges to members that are no subjects any more, and begin new ones."""
        members = self._membership.observed
        if members is self._chosen_from:
            return
        self._chosen_from = members
        self._rings.update(members)
        subjects = self._rings.subjects(self._local.address)
        for address in sorted(self._edges.keys() - subjects):
            edge, peer = self._edges.pop(address), self._membership.get(address)
            if edge.told is not EdgeState.OK and peer is not None and address in self._rings:
                self._retracted.append(Alert(address, peer.incarnation, EdgeState.OK))
        for address in sorted(subjects):
            peer, known = self._membership.get(address), self._edges.get(address)
            returns = peer.liveness.returns if peer is not None else 0
            # Within one round a subject may be removed and return. What it left unanswered before is no evidence.
            if known is None or known.returns != returns:
                self._edges[address] = Edge(returns)

    # -- states ----------------------------------------------------------------------------------------------

    def _tell(self, now: Now) -> None:
        """Decide about all edges, and tell what changed since it was told last."""
        if self.isolated:
            return
        judged = {address: edge for address, edge in self._edges.items() if edge.reached}
        losses = {address: edge.missing for address, edge in judged.items()}
        lossless = not any(losses.values())
        for address, edge in judged.items():
            missing = losses[address]
            others = [] if lossless else [lost for other, lost in losses.items() if other != address]
            edge.current = self._judge(edge, missing, others, self._membership.get(address))
        failed = sum(edge.current is EdgeState.FAILED for edge in judged.values())
        clean = sum(missing <= SOUND_AT for missing in losses.values())
        # More than twice as many edges failed as are clean: this host is at fault, or most of the fleet died. Silence
        # decides then, which needs no judgement of this host's network.
        sick = len(judged) > 2 and failed > 2 * clean
        alerts = []
        for address, edge in judged.items():
            peer = self._membership.get(address)
            if peer is None or not self._is_news(edge, peer):
                continue
            if sick and edge.current is not EdgeState.OK:
                self._out.count("alerts_withheld")
                continue
            edge.told, edge.told_run = edge.current, peer.incarnation
            alerts.append(Alert(address, peer.incarnation, edge.current))
        alerts += self._retracted
        self._retracted = []
        if alerts:
            told = tuple(alerts[:64])
            self._out.rumor(PacketType.ALERT, Alerts(told), now)
            self.on_alerts(told, now)

    def _judge(self, edge: Edge, missing: int, others: list[int], peer: Peer | None) -> EdgeState:
        """The state of an edge with ``missing`` unanswered probes. ``others``: those of the other edges."""
        shared = sorted(others)[(len(others) - 1) // 2] if others else 0  # the lower median
        threshold = min(WINDOW, FAILED_AT + shared + self._detector.local_health)
        limit = SOUND_AT + shared if edge.current is EdgeState.FAILED else threshold - 1
        if missing > limit:
            return EdgeState.FAILED
        # The age of a former run's lease says nothing about an agent that has started again.
        expired = edge.lease_age > 0 and edge.lease_age >= self._timing.timeout
        same_run = peer is not None and edge.lease_run == peer.incarnation
        return EdgeState.AGENT_DOWN if expired and same_run else EdgeState.OK

    def _is_news(self, edge: Edge, peer: Peer) -> bool:
        if edge.current is not edge.told:
            edge.again_in = (REPEATED_FIRST, 2 * REPEATED_FIRST)
            return True
        if edge.current is EdgeState.OK:
            return False
        if edge.told_run != peer.incarnation:
            # The subject began a new incarnation. What it left unanswered before is no evidence against it.
            return edge.current is EdgeState.AGENT_DOWN or (edge.newest_missing and edge.asked_run == peer.incarnation)
        rounds, pause = edge.again_in
        if rounds > 1:
            edge.again_in = (rounds - 1, pause)
            return False
        edge.again_in = (pause, min(2 * pause, REPEATED_AT_LAST))
        return True

    # -- probes ------------------------------------------------------------------------------------------------

    def _probe(self, now: Now) -> None:
        self.round += 1
        mask = (1 << ROUNDS_KEPT) - 1
        targets = []
        for address, edge in self._edges.items():
            edge.asked = (edge.asked << 1 | 1) & mask
            edge.answered = edge.answered << 1 & mask
            peer = self._membership.get(address)
            edge.asked_run = peer.incarnation if peer is not None else 0
            edge.reached = self._out.reaches(address)
            if edge.reached:
                targets.append(address)
        targets += self._choose_others()
        self._others = {a: asked for a, asked in self._others.items() if self.round - asked < ROUNDS_KEPT}
        self._out.probe(self.round, targets, now)

    def _choose_others(self) -> list[Address]:
        """Members to probe although they are no subjects: after quiet rounds random ones."""
        if self._quiet < _ASK_OTHERS_AFTER and self._edges:
            return []
        known = [a for a in self._known() if a not in self._edges and self._out.reaches(a)]
        chosen = self._out.rng.sample(known, min(_OTHERS, len(known)))
        self._others.update(dict.fromkeys(chosen, self.round))
        return chosen

    # -- acknowledgements --------------------------------------------------------------------------------------

    def receive(self, header: Header, now: Now) -> None:
        """Take an authentic acknowledgement that came through the socket."""
        peer = self._membership.get(header.origin)
        if peer is None:
            self._out.count("rx_unasked_response")
            return
        self._take(
            peer,
            (
                peer.key,
                header.incarnation,
                header.sequence,
                1,
                now.mono,
                (header.wall_ns - now.wall_ns) / 1e9,
                header.documents_digest,
                header.record_digest,
                header.flags,
                header.lease_age_ms,
            ),
            now,
        )

    def recorded(self, rows: Iterable[Acknowledgement], now: Now) -> None:
        """Take the acknowledgements that a data plane has recorded."""
        for row in rows:
            peer = self._membership.by_key.get(row[0])
            if peer is not None and row[2] > self.round - ROUNDS_KEPT:
                self._take(peer, row, now)

    def _take(self, peer: Peer, row: Acknowledgement, now: Now) -> None:
        _, incarnation, newest, window, last_seen, _, _, _, flags, age_ms = row
        back = self.round - newest
        edge = self._edges.get(peer.address)
        asked = edge is not None or self._others.get(peer.address, newest + 1) <= newest
        if not asked or not 0 <= back < ROUNDS_KEPT:
            self._out.count("rx_unasked_response")
            return
        fresh = True
        if edge is not None:
            answered = edge.answered | (window << back & edge.asked)
            fresh, edge.answered = answered != edge.answered, answered
            if fresh:
                edge.lease_age, edge.lease_run = age_ms / 1000, incarnation
        if not fresh:
            return
        if newest > self._answered_in:
            self._answered_in = newest
        if self.isolated:
            self._rejoin(now)
        self._quiet = 0
        if later(peer.incarnation, incarnation):
            return  # A node that lost its state, or a twin. The edge is sound, and ``Identity`` deals with the rest.
        self.on_answer(peer, row, now)
        if not flags & FLAG_PAUSED:
            self._detector.acknowledged(peer, last_seen, age_ms / 1000 >= self._timing.timeout, now)
