# SPDX-License-Identifier: MIT
"""The interface of an engine to its runtime: packets, time and kernel records come in, packets and events go out."""

from __future__ import annotations

import heapq
import math
import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Callable

from ..applied import AppliedSource, FilesSource
from ..detector import standing_of
from ..events import Event, HeartbeatSent, IncarnationChanged, Joined, MemberChanged, Rumor, Transmit, Warned
from ..interface import Known, ProtocolError
from ..kernel_view import Observation
from ..members.peer import Peer
from ..members.timing import ROUND_INTERVAL
from ..messages import RecordRumor
from ..observers.edges import Acknowledgement
from ..outbox import UnstoredSource
from ..packets import Codec, PacketType
from ..runs import following, later, latest
from ..settings import Settings
from ..signers import Signers
from ..types import Address, Document, Member, Node, Now, Record, State
from ..zone_losses import ZoneLosses
from .parts import Parts


class Drive(Parts):
    """Implements ``interface.Driven``, the interface for the runtime, and handles the timers of a member."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        codec: Codec,
        rng: random.Random,
        incarnation: int,
        *,
        agent_version: str = "",
        plane: str = "",
        signers: Signers | None = None,
        sealing: bytes = b"",
    ) -> None:
        about = (node, settings, codec, rng, incarnation)
        super().__init__(*about, agent_version=agent_version, plane=plane, signers=signers, sealing=sealing)
        self._admission.on_accused = self._refute
        self.documents.before_write = self._look_at_clocks
        self.documents.on_change = self._state_changed
        self._detector.on_accused = self._refute
        self._detector.on_moved = ZoneLosses(self._membership, self._out).moved
        self._lists.on_claimed = self._go_beyond
        self._membership.on_forget = self._forget
        self._dispatcher.on_removed = self._cuts.on_removed = self._removed
        self._edges.on_alerts = lambda alerts, now: self._cuts.take(self._local.address, alerts, now)
        self._cuts.on_stuck = self._compare
        self._lists.misses_reports = self._cuts.misses_reports
        self._cuts.has_stalled = self._edges.has_stalled
        self._detector.has_observers = lambda: self._edges.active
        self._detector.is_quiet = lambda: self._edges.is_quiet
        self._detector.host_is_up = lambda peer, now: self._cuts.answers(peer.address, now)
        self._last_heartbeat = -math.inf
        self._next_heartbeat = math.inf
        self._next_tick = -math.inf
        self._next_expiry = math.inf
        self._round_at = math.inf

    @property
    def node(self) -> Node:
        """The local node."""
        return self._local.node

    @property
    def incarnation(self) -> int:
        """The incarnation: the number of the local node's current run."""
        return self._local.incarnation

    @property
    def status(self) -> str:
        """The status of the local node: new, running, paused or left."""
        return self._local.status

    @property
    def local(self) -> Member:
        """The local node as a ``Member``."""
        return Member(
            self._local.address,
            State.LEFT if self.status == "left" else State.ALIVE,
            self.incarnation,
            self._out.rumor_sequence,
            self._local.record,
            0.0,
            self.documents.digest,
            local=True,
            stored=not self._local.unstored(),
            problems=self._local.problems,
        )

    @property
    def cycle(self) -> float:
        """The current number of seconds between two heartbeats."""
        return self._timing.cycle

    @property
    def timeout(self) -> float:
        """The current number of seconds of silence after which a member becomes suspect. Default: PekoNode's rule."""
        return self._timing.timeout

    @property
    def clock_offset(self) -> float:
        """Seconds by which the cluster's clock is ahead of the local clock."""
        return self.documents.offset

    # -- packets -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Now, screened: bool = False) -> bool | None:
        """Process one received packet. See ``Driven.receive`` for arguments and result."""
        if self.status in ("new", "left"):
            self._out.count("rx_not_running")
            return None
        self._look_at_clocks(now)
        taken = self._dispatcher.receive(data, source, now, screened)
        self._attend(now)
        return taken

    def take_transmits(self) -> list[Transmit | Rumor]:
        """Return the packets that were queued since the last call."""
        return self._out.take_transmits()

    def take_events(self) -> list[Event]:
        """Return the events that were queued since the last call."""
        return self._out.take_events()

    # -- time --------------------------------------------------------------------------------------------------

    def start(self, now: Now, known: Iterable[Known] = (), documents: Iterable[Document] = ()) -> None:
        """Join the cluster; see ``Driven.start``. Raises ``ProtocolError`` (already_joined) on a second call."""
        if self.status != "new":
            raise ProtocolError("already_joined", "the node has joined already")
        known = list(known)
        self.documents.load(documents, now)
        self.documents.expire(now)
        self._catch_up.begin(now)
        self._local.status = "running"
        self._out.emit(Joined(self.node))
        self._warn_of_absence(known, now)
        self._announce(now)
        self._selection.start(known, now)
        self._tick(now)
        self._edges.start(now)
        self._schedule_round()
        self._schedule_expiry(now)

    def _warn_of_absence(self, known: Sequence[Known], now: Now) -> None:
        """Warn if this node was absent for longer than members remember deletions.

        After an absence longer than the grace period of tombstones, this node may have stored documents that the
        cluster has deleted.
        """
        if not known or not self.documents.table.live:
            return
        away = (now.wall_ns - max(item.last_heard_ns for item in known)) / 1e9
        if away > self.settings.tombstone_grace:
            text = f"the last member was heard {away / 86_400:.1f} days ago, longer than deletions are told of"
            text += ": what was deleted since comes back if no member that knew of it is left; to prevent that, stop"
            self._out.emit(Warned("was_away", f"{text} this agent and empty its state directory"))

    def next_timer(self) -> float | None:
        """Monotonic time at which :meth:`handle_timer` is due; None: no timer is set."""
        return self._timers.next()

    def handle_timer(self, now: Now) -> None:
        """Call the timers that are due."""
        self._look_at_clocks(now)
        self._timers.run(now)

    def _tick(self, now: Now) -> None:
        """Run the failure detector, repeat unanswered requests, and delete outdated data.

        A tick runs several times a cycle while :attr:`_busy` is true, and otherwise only together with each heartbeat.
        In an idle agent, a wake-up just for the tick would cost more CPU time than the tick itself.
        """
        if now.mono < self._next_tick:
            return
        interval = self._timing.tick if self._busy else self.cycle
        if self.status == "running" and not self._busy:
            self._next_tick = math.inf
        else:
            self._schedule_tick(now.mono + interval)
        self._detector.tick(now, interval)
        self._update_clock(now)
        self._selection.tick(now)
        self._fetcher.tick(now)
        self._anti_entropy.tick(now)
        self._admission.tick(now)
        self._unknown_keys.tick(now)
        self._identity.tick(now)
        self._paths.tick(now)
        self.documents.tick(now)
        seeds = self._selection.seeds
        self._catch_up.tick(seeds.absent, bool(seeds.given), now)

    @property
    def _busy(self) -> bool:
        """Whether a member is suspect, or whether a request that this node may have to repeat is unanswered."""
        waiting = self._selection.waiting or self._catch_up.fetching
        return bool(self._membership.suspects or len(self._fetcher) or waiting or self._paths.testing)

    def _schedule_tick(self, when: float) -> None:
        """Set the timer of the next tick. A timer that was set before still fires, but does nothing."""
        self._next_tick = when
        self._timers.at(when, self._tick)

    def _attend(self, now: Now) -> None:
        """Bring the next tick forward if the last input has made this node busy."""
        soon = now.mono + self._timing.tick
        if soon < self._next_tick and self._busy:
            self._schedule_tick(soon)

    def _heartbeat(self, now: Now) -> None:
        if now.mono < self._next_heartbeat:
            return
        if self.status == "running":
            self._out.rumor(PacketType.HEARTBEAT, None, now)
            self._out.emit(HeartbeatSent(self.node))
            self._last_heartbeat = now.mono
            self._schedule_heartbeat(now.mono + self.cycle * self._rng.uniform(0.95, 1.05))
        if self._next_tick == math.inf:
            self._next_tick = now.mono
            self._tick(now)
        # A round that is nearly due takes place together with the heartbeat, because a wake-up of its own would cost
        # more than the round.
        if now.mono >= self._edges.due - ROUND_INTERVAL / 4:
            self._run_round(now)

    def _round(self, now: Now) -> None:
        if now.mono >= self._round_at:
            self._run_round(now)

    def _run_round(self, now: Now) -> None:
        if self.status == "running":
            self._edges.run(now)
            self._cuts.tick(now)
            if self._edges.heard and self._readmission.may_return(self._edges.clean_for(now), now):
                self._renew(self.incarnation, now)
        else:
            self._edges.rest(now)
        self._schedule_round()

    def _schedule_round(self) -> None:
        """Set the timer of the next round, a little late if a heartbeat will come before it and bring the round."""
        shared = self.cycle <= ROUND_INTERVAL
        self._round_at = self._edges.due + (ROUND_INTERVAL / 8 if shared else 0.0)
        self._timers.at(self._round_at, self._round)

    def _schedule_heartbeat(self, when: float) -> None:
        """Set the timer of the next heartbeat. A timer that was set before still fires, but does nothing."""
        self._next_heartbeat = when
        self._timers.at(when, self._heartbeat)

    def _state_changed(self, now: Now) -> None:
        """Send the next heartbeat early.

        The documents digest in the heartbeat shows other members that this node's documents changed. The delay is
        random, and its upper bound grows with the number of members. If the delay were not random, all members would
        send heartbeats at the same moment after a publish.
        """
        self._schedule_expiry(now)
        size = self._timing.members
        soon = now.mono + self._rng.uniform(0.0, min(0.5, size * 0.002))
        soon = max(soon, self._last_heartbeat + min(self.cycle, max(0.1, size * 0.004)))
        if soon < self._next_heartbeat and self.status == "running":
            self._schedule_heartbeat(soon)

    def _schedule_expiry(self, now: Now) -> None:
        """Set the timer of the next document expiry. A timer that was set before still fires, but does nothing."""
        left = self.documents.until_expiry(now)
        if left is None:
            return
        # The timer is set at most 60 s ahead, because a correction of the cluster's clock may bring the expiry forward.
        when = now.mono + min(max(left, 0.0), 60.0) + 0.001
        if when < self._next_expiry or self._next_expiry <= now.mono:
            self._next_expiry = when
            self._timers.at(when, self._expire)

    def _expire(self, now: Now) -> None:
        if now.mono < self._next_expiry:
            return
        self._next_expiry = math.inf
        self.documents.expire(now)
        self._schedule_expiry(now)

    def _update_clock(self, now: Now) -> None:
        self.documents.offset = self._admission.known_offset()
        self._admission.mark_clocks(self.documents.offset)

    def _look_at_clocks(self, now: Now) -> None:
        woke_up = self._admission.woke_up(now)
        if woke_up:
            self._kernel_view.woke_up_at = now.mono
        if self._admission.clock_was_set(now) or woke_up:
            self._update_clock(now)
            self.documents.expire(now)

    # -- observers ---------------------------------------------------------------------------------------------

    @property
    def isolated(self) -> bool:
        """Whether no other node answers this one, although it knows several."""
        return self._edges.isolated

    @property
    def unknown_key_nodes(self) -> int:
        """Number of known nodes whose recent packets are signed with a key that this node does not have."""
        return self._unknown_keys.nodes

    @property
    def missed_rotation(self) -> bool:
        """Whether this node hears packets, but none with a key that it has."""
        return self._unknown_keys.missed_rotation

    def dropped_unknown_keys(self, now: Now) -> None:
        """Record that a data plane has dropped packets that are signed with a key that this node does not have."""
        self._unknown_keys.counted(now)

    @property
    def edge_round(self) -> int:
        """Number of the newest round of edge probes; 0 before the first."""
        return self._edges.round

    @property
    def edges_due(self) -> float:
        """Monotonic time of the next round. A data plane's acknowledgements must be handed over before it."""
        return self._edges.due if self.status == "running" else math.inf

    def acknowledged(self, rows: Iterable[Acknowledgement], now: Now) -> None:
        """Apply the acknowledgements of edge probes that a data plane has recorded."""
        self._look_at_clocks(now)
        if self.status == "running":
            self._edges.recorded(rows, now)
            self._attend(now)

    # -- a data plane that works by itself ---------------------------------------------------------------------

    def observe(self, rows: Iterable[Observation], now: Now) -> None:
        """Apply the records that a kernel data plane has made of other nodes' packets.

        After the first call, the engine relies on records of the data plane to decide which members are alive.
        """
        self._look_at_clocks(now)
        if self.status not in ("new", "left"):
            self._kernel_view.take(rows, self.documents.digest, now)
            self._attend(now)

    def stop_observing(self) -> None:
        """Stop relying on a data plane. From now on the runtime passes all packets to :meth:`receive`."""
        self._kernel_view.stop()

    @property
    def observation_due(self) -> float:
        """Monotonic time at which the next :meth:`observe` is due.

        Every call that passes data to the engine may change the result.
        """
        return math.inf if self.status in ("new", "left") else self._kernel_view.due

    def relay_targets(self, limit: int) -> list[Address]:
        """Return up to ``limit`` members, in random order, to which a data plane relays rumors.

        Each call replaces some of the members that the previous call returned.
        """
        return self._ring.refresh(limit)

    def destinations(self, limit: int) -> list[Address]:
        """Return up to ``limit`` addresses to which this node sends packets. All have the address family of this node.

        The destinations are the present members, or the seeds while no member is present. If there are more than
        ``limit`` destinations, the method selects ``limit`` of them by a hash of the address, so that the result
        changes only when members or seeds change.
        """
        six = ":" in self.node.address.ip
        for known in (self._membership.present, self._selection.seeds.given):
            alike = (address for address in known if (":" in address.ip) == six)
            chosen = heapq.nsmallest(limit, alike, key=lambda address: (zlib.crc32(address.packed), address.port))
            if chosen:
                return chosen
        return []

    def set_plane(self, plane: str, now: Now) -> None:
        """Set the mode in which packets travel from now on. The mode is part of the local record."""
        if self.status == "new":
            # no other member has seen this node's record yet, so only the local copy changes
            self._local.record = replace(self._local.record, plane=plane)
        elif plane != self._local.record.plane:
            self._spread_record(replace(self._local.record, plane=plane), now)

    # -- what the shell knows ----------------------------------------------------------------------------------

    @property
    def reaches(self) -> Callable[[Address], bool]:
        """A function that tells whether this host can send to the family of an address. The runtime sets it."""
        return self._out.reaches

    @reaches.setter
    def reaches(self, answer: Callable[[Address], bool]) -> None:
        self._out.reaches = answer

    @property
    def unstored_source(self) -> UnstoredSource:
        """A function that returns the keys of documents that are not on the disk yet. The runtime sets it."""
        return self._local.unstored

    @unstored_source.setter
    def unstored_source(self, source: UnstoredSource) -> None:
        self._local.unstored = source

    @property
    def applied_source(self) -> AppliedSource:
        """A function that returns a document's state in this node's rendered files, for queries of other members."""
        return self._queries.applied_source

    @applied_source.setter
    def applied_source(self, source: AppliedSource) -> None:
        self._queries.applied_source = source

    @property
    def files_source(self) -> FilesSource:
        """A function that returns this node's failed, drifted and pending files, for queries of other members."""
        return self._queries.files_source

    @files_source.setter
    def files_source(self, source: FilesSource) -> None:
        self._queries.files_source = source

    # -- this member ---------------------------------------------------------------------------------------------

    def _announce(self, now: Now) -> None:
        """Spread the local record and a heartbeat."""
        self._out.rumor(PacketType.RECORD, RecordRumor(self._local.record), now)
        self._schedule_heartbeat(now.mono)
        self._heartbeat(now)

    def _spread_record(self, record: Record, now: Now) -> None:
        self._local.record = replace(record, stamp=(self.incarnation, self._out.rumor_sequence + 1))
        if self.status == "running":
            self._out.rumor(PacketType.RECORD, RecordRumor(self._local.record), now)
        self._out.emit(MemberChanged(self.local, State.ALIVE))

    def _refute(self, incarnation: int, now: Now) -> None:
        """Refute a report that this node is dead.

        Raise this node's incarnation above ``incarnation``, and spread this node's record. While most others do not
        hear this node, a refutation would reach few of them, and spend an incarnation. After a removal nearly all must
        hear it, so that a host with a bad cable does not refute in its lucky moments.
        """
        if later(self.incarnation, incarnation) or self.status != "running":
            return
        if later(incarnation, self.incarnation):
            self._go_beyond(incarnation, now)
            return
        sound = self._edges.clean_for(now) > 0 if self._readmission.was_removed(now) else self._edges.heard
        if self._readmission.waiting or not sound:
            self._out.count("refutations_withheld")
            return
        self._renew(incarnation, now)

    def _compare(self, now: Now) -> None:
        """Sync with a random member."""
        for member in self._membership.pick(1):
            self._anti_entropy.request(member, now)

    def _removed(self, incarnation: int, now: Now) -> None:
        """Note that other members removed this node. A later round brings it back."""
        if incarnation != self.incarnation or self.status != "running" or self._readmission.waiting:
            return
        wait = self._readmission.removed(now)
        if wait:
            self._out.count("readmissions_delayed")
            text = (
                "the other members removed this node more than once within ten minutes: it returns when its probes "
                f"have been answered for {wait:g} s"
            )
            self._out.emit(Warned("readmission_delayed", text))

    def _go_beyond(self, incarnation: int, now: Now) -> None:
        """Raise this node's incarnation above ``incarnation``.

        An earlier run of this node, or another host with its address, used ``incarnation``.
        """
        if self._identity.may_go_beyond(now):
            self._renew(incarnation, now)

    def _renew(self, beyond: int, now: Now) -> None:
        """Raise this node's incarnation above ``beyond``, and tell all members."""
        self._out.count("refutations")
        self._raise_incarnation(beyond)
        self._announce(now)

    def _raise_incarnation(self, beyond: int) -> None:
        self._local.incarnation = following(latest(beyond, self.incarnation))
        self._out.restart_sequences()
        self._local.record = replace(self._local.record, stamp=(self.incarnation, 0))
        self._out.emit(IncarnationChanged(self.incarnation))

    def _forget(self, peer: Peer) -> None:
        """Delete the data about ``peer`` in the other parts of the engine, after the membership removed the peer."""
        if peer.heard and peer.liveness.state is not State.LEFT:
            self._selection.seeds.add_former(peer.address)
        self._identity.forget(peer)
        self._paths.forget(peer.address)
        self._lists.forget(peer.address)
        self._out.emit(standing_of(peer, "forgotten"))
