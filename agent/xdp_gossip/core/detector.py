# SPDX-License-Identifier: MIT
"""The failure detector moves peers between states: by the reports of observers, and silent peers by its own probes.

The observers (``core/observers``) find what fails at any size of the cluster. The rule of PekoNode stays behind them:
a peer without any sign of life for the timeout becomes suspect, is probed, and is removed if it does not answer.
Suspicion and indirect probes are from SWIM (Das, Gupta, Motivala 2002). Local health is from Lifeguard (Dadgar,
Phillips, Currey 2017): a member that runs late, or gets no answers from any member, waits longer before it declares
others dead. Unlike in SWIM, heartbeats travel as rumors, and a member probes only nodes that fell silent.
"""

from __future__ import annotations

from typing import Callable

from .events import MemberChanged, Standing, Warned
from .members.liveness import Liveness
from .members.membership import Membership
from .members.peer import Peer
from .members.timing import ROUND_INTERVAL, Timing
from .messages import Ack, IndirectAck, Ping, PingRequest, Sighting
from .outbox import Local, Outbox
from .received import Received
from .runs import after, later
from .types import PRESENT, Address, Member, Now, State

#: Number of members that this member asks for an indirect probe (SWIM's k; memberlist's default).
INDIRECT = 3
#: Number of unanswered probe rounds after which a silent node counts as dead.
ROUNDS = 3
#: Maximum local health score (0 means healthy). The detector multiplies probe timeouts by 1 + score (Lifeguard's S).
MAX_LOCAL_HEALTH = 8
_STANDINGS = {
    State.ALIVE: "present",
    State.SUSPECT: "suspect",
    State.DEAD: "gone",
    State.LEFT: "gone",
    State.AGENT_DOWN: "suspect",
}
#: _VOUCHED: seconds after an indirect acknowledgement during which a peer's heartbeats count as signs of life although
#: this host cannot reach the peer. _ASK_OTHERS_AGAIN: seconds after which this member asks other members again to probe
#: a peer that no member reached.
_VOUCHED, _ASK_OTHERS_AGAIN = 600.0, 60.0
#: Seconds between two searches for nodes that have been dead for so long that they must be removed from the NodeList.
_FORGET_EVERY = 10.0
#: Seconds for which a silent peer stays suspect beyond the timeout. Within this time its observers report whether its
#: host answers: the age of its lease passes the timeout, and then come one round and one rumor.
_OBSERVERS_FIRST = 3 * ROUND_INTERVAL


class Detector:
    """Moves peers between states, and reports each transition as an event."""

    def __init__(self, local: Local, membership: Membership, outbox: Outbox, timing: Timing) -> None:
        self._local = local
        self._membership = membership
        self._out = outbox
        self._timing = timing
        self._expected: float | None = None
        self._forget_at = 0.0
        # nonce of a ping sent on request -> requesting member, nonce of its request
        self._asked: dict[int, tuple[Address, int]] = {}
        # nonce of a peer's last ping, or of its last ping with helpers -> the peer
        self._pinged: dict[int, Peer] = {}
        self.local_health = 0
        #: Whether this node is isolated. Meanwhile no peer is suspected, removed or forgotten.
        self.suspended = False
        self.on_accused: Callable[[int, Now], None] = lambda incarnation, now: None
        #: Called after each change of a peer's state, with the former state; None for a new peer.
        self.on_moved: Callable[[Peer, State | None], None] = lambda peer, previous: None
        #: Whether observers report that the host of a silent peer answers, so that its silence is no death.
        self.host_is_up: Callable[[Peer, Now], bool] = lambda peer, now: False
        #: Whether observers decide about members, so that silence is only the backstop.
        self.has_observers: Callable[[], bool] = lambda: False
        #: Whether nobody answers this node at the moment. Then the silence of a peer may be the fault of this host.
        self.is_quiet: Callable[[], bool] = lambda: False

    # -- what the engine reports -------------------------------------------------------------------------------

    def enter(self, peer: Peer, state: State, last_heard: float, now: Now) -> None:
        """Give a new peer the state that another member reported, and emit an event about the new peer.

        ``last_heard``: monotonic time in seconds at which any member last heard the peer.
        """
        peer.liveness.last_heard = last_heard
        if state is State.ALIVE and not self._out.reaches(peer.address):
            self._doubt_reach(peer, now)
        else:
            self._move(peer, state, now)

    def remember(self, peer: Peer, last_heard: float) -> None:
        """Mark a peer that is known from an earlier run as dead. Emit no event about the peer before it is heard again.

        ``last_heard``: monotonic time in seconds at which the peer was last heard.
        """
        peer.liveness.last_heard = last_heard
        peer.liveness.move(State.DEAD)
        self._membership.changed(peer)

    def never_heard(self, peer: Peer) -> None:
        """Mark a new peer as never heard by any member."""
        peer.liveness.last_heard = 0.0

    def heard(self, peer: Peer, now: Now, age: float = 0.0) -> None:
        """Record a sign of life of ``peer`` that is ``age`` seconds old. A peer that was not alive becomes alive.

        That the peer is heard proves one direction only. It does not outweigh the reports of its observers: a peer that
        they removed returns with a later incarnation, and one that they accuse stays suspect.
        """
        if self.is_condemned(peer):
            self._out.count("signs_of_removed")
            if peer.mark("unreached", True):
                self._out.count("members_unreached")
                text = (
                    f"node {peer.address} is heard, and its observers removed it: it does not get what is sent to the "
                    "address that it tells (a security group, a firewall, NAT without a forwarded port), or it waits "
                    "until its own probes are answered"
                )
                self._out.emit(Warned("unreached", text))
            return
        if peer.liveness.condemned:
            peer.mark("unreached", False)
        if now.mono >= peer.liveness.vouched_until and not self._out.reaches(peer.address):
            self._doubt_reach(peer, now)
            return
        peer.liveness.last_heard = max(peer.liveness.last_heard, now.mono - age)
        peer.liveness.condemned = 0
        if peer.liveness.state is not State.ALIVE and not peer.liveness.accused:
            self._move(peer, State.ALIVE, now)
        peer.liveness.probes = 0

    @staticmethod
    def is_condemned(peer: Peer) -> bool:
        """Whether observers removed the peer under its present incarnation."""
        condemned = peer.liveness.condemned
        return bool(condemned) and not later(peer.incarnation, condemned)

    # -- what observers report ---------------------------------------------------------------------------------

    def acknowledged(self, peer: Peer, last_seen: float, agent_down: bool, now: Now) -> None:
        """Record that the host of ``peer`` acknowledged a probe at ``last_seen`` (monotonic seconds).

        ``agent_down``: the host answered without an agent. Then its silence is no sign of its death, and nothing more.
        """
        live = peer.liveness
        if live.state is State.LEFT:
            return
        if not agent_down:
            self.heard(peer, now, now.mono - last_seen)
        elif live.state is State.AGENT_DOWN:
            live.last_heard = max(live.last_heard, last_seen)

    def accuse(self, peer: Peer, now: Now) -> None:
        """Suspect a peer because enough of its observers report it."""
        if peer.liveness.state in PRESENT and not peer.liveness.accused:
            peer.liveness.accused = True
            if peer.liveness.state is not State.SUSPECT:
                self._move(peer, State.SUSPECT, now)

    def acquit(self, peer: Peer, now: Now) -> None:
        """End a suspicion because too few observers report the peer now."""
        if not peer.liveness.accused:
            return
        peer.liveness.accused = False
        if peer.liveness.state is State.SUSPECT and self._membership.silence(peer, now) <= self._timing.timeout:
            self._move(peer, State.ALIVE, now)

    def condemn(self, peer: Peer, now: Now) -> None:
        """Remove a peer because its observers report it."""
        peer.liveness.condemned = peer.incarnation
        self._out.count("members_condemned")
        if peer.liveness.state is State.ALIVE:
            self._move(peer, State.SUSPECT, now)
        self._move(peer, State.DEAD, now)

    def host_answers(self, peer: Peer, now: Now) -> None:
        """Record that the host of a peer answers its observers although its agent does not run.

        Reports from before the agent's last sign of life are outdated, so only a silent peer enters this state. So does
        a peer that its silence has removed here, because the reports may come late.
        """
        present = peer.liveness.state in PRESENT
        if (present and self.is_silent(peer, now)) or self.is_gone_by_silence(peer):
            self._move(peer, State.AGENT_DOWN, now)

    @staticmethod
    def is_gone_by_silence(peer: Peer) -> bool:
        """Whether the peer is dead, and no reports of its observers removed it."""
        return peer.liveness.state is State.DEAD and not peer.liveness.condemned

    def is_silent(self, peer: Peer, now: Now) -> bool:
        """Whether the peer was not heard for the timeout."""
        return self._membership.silence(peer, now) > self._timing.timeout

    def suspend(self) -> None:
        """Suspect, remove and forget no peer from now on, because the fault is this node's own."""
        self.suspended = True

    def resume(self, now: Now) -> None:
        """Go on after :meth:`suspend`. The silence until now does not count."""
        self.suspended = False
        for peer in self._membership:
            if peer.present:
                peer.liveness.last_heard = max(peer.liveness.last_heard, now.mono)
                peer.liveness.probe_due = now.mono

    @staticmethod
    def recorded(live: Liveness, last_seen: float) -> None:
        """Record that a data plane received a sign of life of an alive peer at ``last_seen`` (monotonic seconds).

        This method does the same as :meth:`heard` at less cost, for thousands of peers at once.
        """
        live.last_heard = last_seen
        live.probes = 0

    def _doubt_reach(self, peer: Peer, now: Now) -> None:
        """Ask other members to probe a peer that sends heartbeats but shares no address family with this host.

        If no other member gets an answer from the peer, this member treats the peer as dead, even if the peer's
        heartbeats still arrive.
        """
        if peer.mark("no_common_family", True):
            self._out.count("members_no_common_family")
            text = (
                f"node {peer.address} has no address family in common with this one, {self._local.address}: it is "
                "listed only while another member reaches it"
            )
            self._out.emit(Warned("no_common_family", text))
        waits = peer.liveness.state is State.SUSPECT and peer.liveness.introduced and peer.liveness.probes
        if waits or (peer.liveness.state is State.DEAD and now.mono < peer.liveness.probe_due + _ASK_OTHERS_AGAIN):
            return
        peer.liveness.restart_probes()
        self._move(peer, State.SUSPECT, now)
        self._probe(peer, now, self._timing.probe_gap)

    def left(self, peer: Peer, incarnation: int, sequence: int, now: Now) -> None:
        """Record that the node ``peer`` announced that it leaves.

        ``incarnation`` and ``sequence`` are those of the announcement.
        """
        if after((incarnation, sequence), peer.liveness.gone_at):
            peer.liveness.gone_at = (incarnation, sequence)
        if peer.liveness.state is not State.LEFT:
            self._move(peer, State.LEFT, now)

    def on_ping(self, ping: Ping, packet: Received) -> None:
        """Answer a ping if this node is running.

        If the sender suspects this node's current incarnation, refute the suspicion.
        """
        if ping.target != self._local.address:
            self._out.count("rx_misdirected")
            return
        if self._local.status != "running":
            return
        self._out.send(Ack(ping.nonce), packet.origin, packet.now)
        own = self._local.incarnation
        if later(ping.incarnation, own) or (ping.suspect and ping.incarnation == own):
            self.on_accused(ping.incarnation, packet.now)

    def on_ack(self, ack: Ack, packet: Received) -> None:
        """Handle the answer of a probed node, and report the node to the member that requested the probe, if any.

        A helper is a member that this node asked for an indirect probe. A helper acknowledges the request for the probe
        with the nonce of that request. The acknowledgement shows that this node's own network works, so the fault lies
        with the silent target (Lifeguard's NACK).
        """
        self.local_health = max(0, self.local_health - 1)
        suspect = self._pinged.get(ack.nonce)
        if suspect is not None and suspect.liveness.probe_nonce == ack.nonce and suspect is not packet.peer:
            suspect.liveness.helped = True
        asked = self._asked.pop(ack.nonce, None)
        if asked is not None:
            asker, nonce = asked
            sighting = Sighting(packet.origin, packet.peer.incarnation, packet.peer.sighted)
            self._out.send(IndirectAck(nonce, sighting), asker, packet.now)

    def answered(self, nonce: int) -> bool:
        """Whether a ping that this node sent with ``nonce`` is still unanswered."""
        peer = self._pinged.get(nonce)
        return nonce in self._asked or (peer is not None and peer.liveness.pinged == nonce)

    def on_ping_request(self, request: PingRequest, packet: Received) -> None:
        """Ping a node on behalf of another member, and acknowledge the request at once."""
        if self._local.status != "running":
            return
        # An honest member never asks a node to probe that same node.
        if request.target == self._local.address or not request.target.may_be_node(self._local.address):
            self._out.count("rx_bad_address")
            return
        if len(self._asked) >= 1024:
            self._asked.pop(next(iter(self._asked)))
        nonce = self._out.rng.getrandbits(63)
        self._asked[nonce] = (packet.origin, request.nonce)
        self._out.send(Ping(nonce, request.target, request.incarnation, False), request.target, packet.now)
        self._out.send(Ack(request.nonce), packet.origin, packet.now)

    def on_indirect_ack(self, ack: IndirectAck, packet: Received) -> None:
        """Handle the report that another member reached a node which this node could not reach."""
        peer = self._membership.get(ack.sighting.address)
        if peer is None or later(peer.incarnation, ack.sighting.incarnation) or peer.liveness.state is State.LEFT:
            return
        self._out.count("indirect_acks")
        peer.liveness.vouched_until = packet.now.mono + _VOUCHED
        self.heard(peer, packet.now)

    # -- time --------------------------------------------------------------------------------------------------

    def tick(self, now: Now, interval: float) -> None:
        """Suspect silent peers, probe suspects, and forget peers that died long ago.

        ``interval``: seconds until the next call.
        """
        timeout = self._timing.timeout
        gap = self._timing.probe_gap * (1 + self.local_health)
        self._forgive_own_absence(now, interval, timeout)
        if self.suspended:
            return
        for peer in list(self._membership.suspects.values()):
            self._tick_suspect(peer, now.mono - peer.liveness.last_heard, timeout, now, gap)
        self._suspect_silent(timeout, gap, now)
        if now.mono >= self._forget_at:
            self._forget_at = now.mono + _FORGET_EVERY
            self._membership.forget_old(now)
            self._pinged = {nonce: peer for nonce, peer in self._pinged.items() if self._awaits(peer, nonce)}

    def _awaits(self, peer: Peer, nonce: int) -> bool:
        """Whether an acknowledgement with ``nonce`` may still tell something about ``peer``."""
        live = peer.liveness
        return self._membership.get(peer.address) is peer and nonce in (live.pinged, live.probe_nonce)

    def _suspect_silent(self, timeout: float, gap: float, now: Now) -> None:
        """Suspect the alive peers that are silent for longer than ``timeout``, and probe them."""
        for peer in self._membership.alive_but_silent(timeout, now):
            peer.liveness.restart_probes()
            self._move(peer, State.SUSPECT, now)
            self._probe(peer, now, gap)

    def _tick_suspect(self, peer: Peer, silence: float, timeout: float, now: Now, gap: float) -> None:
        if not peer.heard:  # this seed has never answered, so a probe is useless
            if silence > timeout:
                self._move(peer, State.DEAD, now)
        elif now.mono >= peer.liveness.probe_due:
            if silence <= timeout and peer.liveness.accused:
                return  # its observers decide
            if peer.liveness.probes < ROUNDS:
                self._probe(peer, now, gap)
                return
            if silence <= timeout + _OBSERVERS_FIRST and self.has_observers():
                return
            if self.host_is_up(peer, now) or self.is_quiet():
                return
            if peer.liveness.probe_nonce and not peer.liveness.helped:
                self.local_health = min(MAX_LOCAL_HEALTH, self.local_health + 1)
            self._move(peer, State.DEAD, now)

    def _probe(self, peer: Peer, now: Now, gap: float) -> None:
        """Probe a peer: in round 1 by datagram, in later rounds over TCP and also through other members."""
        live = peer.liveness
        live.probes += 1
        live.probe_due = now.mono + gap
        nonce = self._out.rng.getrandbits(63)
        if live.pinged != live.probe_nonce:
            self._pinged.pop(live.pinged, None)
        live.pinged = nonce
        self._pinged[nonce] = peer
        ping = Ping(nonce, peer.address, peer.incarnation, True)
        self._out.send(ping, peer.address, now, reliable=live.probes > 1)
        helpers = self._membership.pick(INDIRECT, peer.address) if live.probes > 1 else []
        if helpers and not live.helped:
            if live.probe_nonce != nonce:
                self._pinged.pop(live.probe_nonce, None)
            live.probe_nonce = nonce
        for helper in helpers:
            self._out.send(PingRequest(nonce, peer.address, peer.incarnation), helper, now)

    def _forgive_own_absence(self, now: Now, interval: float, timeout: float) -> None:
        """If this member did not run for a while, subtract that time from the silence of every peer.

        While a member does not run, it hears no peer, so silence during that time is no sign that a peer has died.
        """
        expected, self._expected = self._expected, now.mono + interval
        if expected is None:
            return
        late = now.mono - expected
        if late <= max(1.0, timeout / 4):
            return
        self._out.count("own_stalls")
        self.local_health = min(MAX_LOCAL_HEALTH, self.local_health + 1)
        for peer in self._membership:
            if peer.present:
                peer.liveness.last_heard += late
                peer.liveness.probe_due += late

    def _move(self, peer: Peer, state: State, now: Now) -> None:
        """Move a peer to ``state``, update the NodeList and its digest, count the transition and emit its events.

        The first call for a peer emits an event about the new peer, even if the peer's state stays the same.
        """
        live = peer.liveness
        previous = live.state if live.introduced else None
        live.move(state)
        live.introduced = True
        live.accused = live.accused and state is State.SUSPECT
        if state is State.ALIVE:
            self._membership.heard_since = min(self._membership.heard_since, live.last_heard)
        self._membership.changed(peer)
        self._out.count(f"members_became_{state.value}")
        self._out.emit(MemberChanged(snapshot(peer, now), previous))
        self.on_moved(peer, previous)
        if peer.heard:
            self._out.emit(standing_of(peer))


def standing_of(peer: Peer, standing: str = "") -> Standing:
    """Return an event with the peer's state for the data plane. ``standing`` defaults to the peer's state."""
    window = peer.rumors
    return Standing(
        peer.address,
        standing or _STANDINGS[peer.liveness.state],
        peer.incarnation,
        window.highest,
        window.bits,
        peer.clock_ahead or 0.0,
    )


def snapshot(peer: Peer, now: Now) -> Member:
    """An immutable copy of a peer's data at the time ``now``."""
    return Member(
        address=peer.address,
        state=peer.liveness.state,
        incarnation=peer.incarnation,
        sequence=peer.sighted,
        record=peer.record.value,
        last_heard=max(0.0, now.mono - peer.liveness.last_heard),
        digest=peer.sync.documents_digest,
        problems=peer.problems,
        stored=peer.sync.stored,
        key_id=peer.key_id,
    )
