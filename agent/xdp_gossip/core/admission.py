# SPDX-License-Identifier: MIT
"""Admits a packet only if it is authentic, belongs to this cluster, is recent, and is not a duplicate."""

from __future__ import annotations

import math
from typing import Callable

from .detector import Detector
from .documents.clock import cluster_offset
from .events import Warned
from .members.membership import Membership
from .members.peer import Peer
from .members.timing import Timing
from .messages import Ack, Ping, SyncRequest, SyncResponse
from .outbox import Local, Outbox
from .packets import Codec, Header, PacketType, Rejected
from .registry import Message
from .runs import later
from .sync.anti_entropy import AntiEntropy
from .types import Address, Now, State

#: Seconds. If the wall clock moves by at least this much against the monotonic clock, the wall clock was set, not
#: slewed.
_CLOCK_STEP = 0.5
#: Maximum number of open challenges. A challenge is a sync request whose answer proves that a node is alive.
_MAX_CHALLENGES = 1024
#: From this number of alive peers on, the median of their clocks is computed again only once a cycle, or when a
#: sixteenth of them has come or gone.
_MANY_CLOCKS = 64


class Admission:
    """Admits or rejects packets. The cheapest checks come first (docs/protocol.md, "What a packet goes through").

    The class also tracks the clocks of other members, because a packet counts as recent only if its time agrees with
    the clock of its origin.
    """

    def __init__(
        self,
        codec: Codec,
        local: Local,
        membership: Membership,
        detector: Detector,
        anti_entropy: AntiEntropy,
        out: Outbox,
        timing: Timing,
        max_clock_drift: float,
    ) -> None:
        self._codec = codec
        self._local = local
        self._membership = membership
        self._detector = detector
        self._anti_entropy = anti_entropy
        self._out = out
        self._timing = timing
        self._max_clock_drift = max_clock_drift
        self._challenged: dict[Address, float] = {}
        # When this member last notified a node of that node's own later incarnation, in monotonic seconds.
        self._told: dict[tuple[Address, bool], float] = {}
        self._clocks_apart: float | None = None  # Wall clock minus monotonic clock, seconds.
        self._slept = 0.0  # Seconds suspended since boot.
        self._known_offset = 0.0
        # The cluster's offset when it was computed last, and the number of alive peers at that time.
        self._computed = (0.0, 0)
        self.on_accused: Callable[[int, Now], None] = lambda incarnation, now: None
        self.on_stale_run: Callable[[Peer, Header, Now], None] = lambda peer, header, now: None
        #: Called with the origin that an unauthenticated packet with an unknown key claims.
        self.on_unknown_key: Callable[[Address, Now], None] = lambda origin, now: None

    def parse(self, data: bytes) -> Header:
        """Read and count the header of a packet. Raises ``Rejected``."""
        header = self._codec.parse(data)
        self._out.count(f"rx_{header.type.name.lower()}")
        return header

    def _verify(self, data: bytes, header: Header, now: Now) -> None:
        try:
            self._codec.verify(data, header)
        except Rejected as rejected:
            if rejected.reason == "unknown_key":
                self.on_unknown_key(header.origin, now)
            raise

    def admit_edge(self, data: bytes, header: Header, now: Now) -> None:
        """Check an edge probe or an edge acknowledgement. Raises ``Rejected``.

        Neither has a replay window or a time limit. The round in the packet makes a recording worthless: an answered
        probe is not answered again, and only rounds of this run of this observer are acknowledged.
        """
        if header.origin == self._local.address:
            raise Rejected("own")
        self._verify(data, header, now)

    def admit(self, data: bytes, header: Header, now: Now, screened: bool = False) -> tuple[Peer, Message | None]:
        """Check a packet and return its origin and message. Add an unknown origin to the membership.

        The method does not mark the packet as seen in the replay window; the dispatcher does that later. ``screened``:
        a data plane has already found that the packet is authentic, recent and not a duplicate. Raises ``Rejected``.
        """
        if header.origin == self._local.address:
            self._own_packet(data, header, now)
            raise Rejected("own")
        try:
            peer = self._membership.screen(header, screened)
        except Rejected as rejected:
            if rejected.reason == "stale_incarnation":
                self._tell_later_incarnation(data, header, now)
            raise
        if not screened:
            self._verify(data, header, now)
        message = self._codec.open(data, header)
        if peer is None:
            self._require_node_address(header.origin)
        if not screened and not self._answers(message):
            self._require_fresh(peer, header, message, now)
        return peer or self._newcomer(header, now), message

    def tick(self, now: Now) -> None:
        """Forget challenges sent more than a cycle ago.

        Also forget each notification about a later incarnation that this node sent more than 1 s ago.
        """
        self._challenged = {a: t for a, t in self._challenged.items() if now.mono - t < self._timing.cycle}
        self._told = {a: t for a, t in self._told.items() if now.mono - t < 1.0}

    # -- clocks ------------------------------------------------------------------------------------------------

    def _expected_offset(self) -> float:
        """Seconds by which a newcomer's clock is expected to be ahead of the local clock: the cluster's offset, or 0.

        The median of many clocks hardly changes with one of them. If it were computed for each newcomer, the joining of
        n nodes would cost n squared.
        """
        offset, alive = self._computed
        number = self._membership.number_alive
        if number < _MANY_CLOCKS or abs(number - alive) * 16 > alive:
            offset = cluster_offset(self._samples())
            self._computed = (offset, number)
        return offset

    def _samples(self) -> list[float]:
        alive = (peer for peer in self._membership if peer.liveness.state is State.ALIVE)
        return [peer.clock_ahead for peer in alive if peer.clock_ahead is not None]

    def note_clock(self, peer: Peer, ahead: float) -> None:
        """Store that the wall clock of ``peer`` is ``ahead`` seconds ahead of the local wall clock."""
        peer.clock_ahead = ahead

    def known_offset(self) -> float:
        """Seconds to add to the local clock to get the cluster's time; 0 if the cluster's time is unknown.

        With fewer than two other members alive, no member can know which clock is right, so this member uses its local
        clock. However, if the local clock was ahead of the cluster's time while more members were alive, the result is
        still the last known difference.
        """
        samples = self._samples()
        if len(samples) > 1:
            self._known_offset = cluster_offset(samples)
            self._computed = (self._known_offset, self._membership.number_alive)
        else:
            self._known_offset = min(0.0, self._known_offset)
        return self._known_offset

    def mark_clocks(self, offset: float) -> None:
        """Mark the members whose clocks differ too much from the cluster's clock.

        ``offset``: seconds by which the cluster's clock is ahead of the local clock. If a member is no longer alive,
        remove its mark, because its clock is unknown from then on.
        """
        for peer in self._membership:
            known = peer.liveness.state is State.ALIVE and peer.clock_ahead is not None
            far = known and abs((peer.clock_ahead or 0.0) - offset) > self._max_clock_drift / 2
            if far != ("clock" in peer.problems):
                peer.mark("clock", far)
                if far and peer.clock_ahead is not None:
                    self._out.count("clocks_apart")
                    ahead = peer.clock_ahead - offset
                    told = f"the clock of node {peer.address} is {ahead:+.1f} s from the cluster's"
                    self._out.emit(Warned("clock_apart", told))

    def clock_was_set(self, now: Now) -> bool:
        """Return whether the local clock was set since the last call.

        If the local clock was set, shift the known clocks of other members. Without the shift of known clocks, this
        node would refuse current documents as documents from the future until it has heard enough members again.
        """
        # Subtract the time for which the machine was suspended. While the machine is suspended, the wall clock runs and
        # the monotonic clock stops. The time of a suspend must not count as a step of the wall clock.
        apart = now.wall_ns / 1e9 - now.mono - now.slept
        step = 0.0 if self._clocks_apart is None else apart - self._clocks_apart
        self._clocks_apart = apart
        if abs(step) < _CLOCK_STEP:
            return False
        self._out.count("clock_steps")
        self._out.emit(Warned("clock_step", f"the local clock was set by {step:+.3f} s"))
        for peer in self._membership:
            if peer.clock_ahead is not None:
                peer.clock_ahead -= step
        self._computed = (0.0, 0)
        if self._known_offset < 0.0:
            self._known_offset -= step
        return True

    def woke_up(self, now: Now) -> bool:
        """Return whether the machine was suspended since the last call; if so, emit a warning."""
        slept, self._slept = now.slept - self._slept, now.slept
        if slept < _CLOCK_STEP or self._clocks_apart is None:
            return False
        self._out.count("suspends")
        self._out.emit(Warned("suspended", f"the machine was suspended for {slept:.1f} s"))
        return True

    # -- freshness ---------------------------------------------------------------------------------------------

    def _answers(self, message: Message | None) -> bool:
        """Whether a packet answers an open request of this node. Such an answer cannot be a replayed recording."""
        if isinstance(message, SyncResponse):
            return self._anti_entropy.answered(message.nonce)
        if isinstance(message, Ack):
            return self._detector.answered(message.nonce) or self._anti_entropy.answered(message.nonce)
        return False

    def _require_fresh(self, peer: Peer | None, header: Header, message: Message | None, now: Now) -> None:
        """Compare the packet's time with its origin's clock, so that a replayed recording cannot revive a dead node.

        If the packet's time and the origin's clock differ too much, reject the packet and challenge the origin with a
        sync request that only a live node can answer. The origin may also challenge this node with a sync request.
        Therefore this node acknowledges even a sync request that it rejects; otherwise two nodes with different clocks
        would challenge each other forever. Raises ``Rejected``: stale_time.
        """
        known = peer.clock_ahead if peer is not None else None
        expected = self._expected_offset() if known is None else known
        age = expected - (header.wall_ns - now.wall_ns) / 1e9
        limit = self._timing.timeout
        if peer is not None and peer.liveness.state is State.ALIVE and known is not None:
            limit = max(limit, self._max_clock_drift)
        if abs(age) <= limit:
            return
        if isinstance(message, SyncRequest) and self._local.status == "running":
            self._out.send(Ack(message.nonce), header.origin, now)
        self._challenge(header.origin, now)
        raise Rejected("stale_time")

    def _challenge(self, origin: Address, now: Now) -> None:
        """At most once per cycle, send a node a sync request that only a live node can answer."""
        lately = self._challenged.get(origin, -math.inf) > now.mono - self._timing.cycle
        if not lately and len(self._challenged) < _MAX_CHALLENGES:
            self._challenged[origin] = now.mono
            self._anti_entropy.request(origin, now)

    # -- identity ----------------------------------------------------------------------------------------------

    def _newcomer(self, header: Header, now: Now) -> Peer:
        if header.type is PacketType.LEAVE:
            raise Rejected("unknown_leave")
        return self._membership.add(header.origin, now)

    def _require_node_address(self, origin: Address) -> None:
        """Reject an origin whose address is not that of a single host, before this node sends packets to the address.

        If members accepted a multicast address as an origin, all of them would send packets to the whole group. Raises
        ``Rejected``: bad_address.
        """
        if not origin.may_be_node(self._local.address):
            self._out.emit(
                Warned(
                    "bad_address",
                    f"a node tells {origin} as its address: expected one at which {self._local.address} can reach it; "
                    "set node.addr there",
                )
            )
            raise Rejected("bad_address")

    def _own_packet(self, data: bytes, header: Header, now: Now) -> None:
        """Handle a packet whose origin is this node's address.

        Either this node sent the packet, or another host uses the address.
        """
        if not later(header.incarnation, self._local.incarnation):
            return
        # The packet's incarnation is later than ours, so this node lost its state, or another host (a twin) uses this
        # node's address.
        self._codec.verify(data, header)
        self._out.count("own_address_conflicts")
        self._out.emit(
            Warned(
                "address_conflict",
                f"a packet with a later incarnation of {self._local.address} was received: "
                "either this node lost its state directory, or another node uses its address",
            )
        )
        self.on_accused(header.incarnation, now)

    def _tell_later_incarnation(self, data: bytes, header: Header, now: Now) -> None:
        """Send a node that lost its state a ping with the latest incarnation that this member has seen of that node.

        The node then raises its own incarnation above the incarnation in the ping.
        """
        peer = self._membership.get(header.origin)
        asks = header.type is PacketType.SWAP_REQUEST
        told = (header.origin, asks)
        if peer is None or self._told.get(told, -math.inf) > now.mono - 1.0:
            return
        self._codec.verify(data, header)
        self.on_stale_run(peer, header, now)
        self._told[told] = now.mono
        # The node's clock may differ so much from ours that the node accepts none of our packets until we answer its
        # challenge.
        message = self._codec.open(data, header) if asks else None
        if isinstance(message, SyncRequest) and self._local.status == "running":
            self._out.send(Ack(message.nonce), header.origin, now)
        # suspect=False: otherwise a twin (another host that uses this address) would answer each ping with a
        # refutation.
        ping = Ping(self._out.rng.getrandbits(63), header.origin, peer.incarnation, False)
        self._out.send(ping, header.origin, now)
