# SPDX-License-Identifier: MIT
"""The kernel data plane of a simulated machine: the model, the ring buffer, and what the agent's steering does with it.

It outlives its agent: while that is frozen or dead, it goes on recording and relaying until its lease is over, and
answering observers for as long as the machine runs.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from tests.kernel_model import GONE, NEWS, PRESENT, ROUNDS, SUSPECT, Config, Entry, KernelModel
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import Rumor, Standing, Transmit
from xdp_gossip.core.kernel_view import Observation
from xdp_gossip.core.members.peer import key_of
from xdp_gossip.core.members.timing import MAX_COPIES, ROUND_INTERVAL, WIDE
from xdp_gossip.core.observers.edges import Acknowledgement
from xdp_gossip.core.packets import FLAG_CATCHING_UP, FLAG_PAUSED, FLAG_UNSTORED, Codec
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, Now

#: Packets that fit the ring buffer; a small one, so that it overflows in some worlds.
RING_BUFFER = 60
#: Members in the ring.
RING = 256
#: Seconds by which a node's clock, a sum of floats, may lag behind the instant that a timer was set for.
ROUNDING = 1e-9
_STANDINGS = {"present": PRESENT, "suspect": SUSPECT, "gone": GONE}


class SimPlane:
    """One machine's data plane."""

    def __init__(
        self, address: Address, settings: Settings, codec: Codec, send: Callable[[Transmit], None], rng: random.Random
    ) -> None:
        amount = settings.amount
        config = Config(address, amount=amount, wide=min(MAX_COPIES, WIDE * amount), running=False)
        self.model = KernelModel(codec, config)
        self.events: deque[tuple[int, bytes, Address]] = deque()
        self.lost = 0
        self._send = send
        self._rng = rng
        self._ring_at = 0.0
        self._members = 0
        self._unknown = 0

    # -- the kernel's side -------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: Now) -> bool:
        """Take a datagram; False when it is for the socket."""
        outcome = self.model.process(data, source, _ns(now.mono))
        if outcome.event is not None:
            if len(self.events) < RING_BUFFER:
                self.events.append((outcome.event, data, source))
            else:
                self.lost += 1
        if outcome.action == "answer":
            self._send(Transmit(source, outcome.onward))
        if outcome.copies:
            origin = self.model.codec.parse(data).origin
            eligible = self.model.eligible(origin, source)
            for target in self._rng.sample(eligible, min(outcome.copies, len(eligible))):
                self._send(Transmit(target, outcome.onward))
        return outcome.action != "pass"

    # -- the agent's side --------------------------------------------------------------------------------------

    def send_rumor(self, rumor: Rumor) -> None:
        """As the kernel multiplies it: to members of the ring, when they are enough."""
        targets = self.model.targets
        if len(targets) < len(rumor.targets):
            targets = rumor.targets
        for target in self._rng.sample(targets, len(rumor.targets)):
            self._send(Transmit(target, rumor.data))

    def drain(self, engine: Engine, clock: Callable[[], Now]) -> None:
        """Hand over what waits in the ring buffer."""
        while self.events:
            event, data, source = self.events.popleft()
            engine.receive(data, source, clock(), screened=event == NEWS)

    def inform(self, engine: Engine, now: Now) -> None:
        """What the engine's timers need: acknowledgements, before a round of probes ends."""
        if now.mono + ROUND_INTERVAL / 3 >= engine.edges_due:
            engine.acknowledged(self._acknowledgements(now), now)

    def steer(self, engine: Engine, now: Now) -> None:
        """What follows from an input of the engine: configuration, targets, and a look at the table when it is due."""
        config = self.model.config
        config.incarnation, config.running = engine.incarnation, engine.status in ("running", "paused")
        config.documents_digest = engine.documents.digest
        config.timeout = _ns(engine.timeout)
        config.max_clock_drift = _ns(engine.settings.max_clock_drift)
        config.wall = now.wall_ns - _ns(now.mono)
        config.clock = config.wall + _ns(engine.clock_offset)
        config.asked, config.renewed = engine.edge_round, _ns(now.mono)
        local = engine.local
        config.record_digest = local.record.digest if local.record is not None else 0
        config.packet_flags = (
            (FLAG_PAUSED if engine.status == "paused" else 0)
            | (0 if local.stored else FLAG_UNSTORED)
            | (FLAG_CATCHING_UP if engine.catching_up else 0)
        )
        config.lease = _ns(now.mono + max(60.0, 10 * engine.timeout))
        unknown = self.model.counters["drop_unknown_key"]
        if unknown > self._unknown:
            engine.dropped_unknown_keys(now)
        self._unknown = unknown
        if engine.observation_due <= now.mono + ROUNDING or self.lost:
            self.lost = 0
            engine.observe(self._observations(now), now)
        members = sum(engine.tally().values())
        if now.mono >= self._ring_at or members != self._members:
            self._ring_at, self._members = now.mono + engine.cycle, members
            self.model.targets = engine.relay_targets(RING)

    def apply(self, standing: Standing, now: Now) -> None:
        """What the engine wants held of a peer."""
        nodes = self.model.nodes
        if standing.standing == "forgotten":
            nodes.pop(standing.address, None)
            return
        entry = nodes.setdefault(standing.address, Entry())
        if standing.incarnation > entry.incarnation:
            kept = Entry()
            entry.incarnation, entry.window = standing.incarnation, kept.window
        if standing.incarnation == entry.incarnation:
            entry.window.merge(standing.highest, standing.window)
        entry.standing = _STANDINGS[standing.standing]
        entry.clock = now.wall_ns - _ns(now.mono) + _ns(standing.clock_ahead)

    def _acknowledgements(self, now: Now) -> list[Acknowledgement]:
        here = now.wall_ns - _ns(now.mono)
        return [
            (
                key_of(address),
                ack.incarnation,
                ack.newest,
                ack.window,
                ack.last_seen / 1e9,
                (ack.clock - here) / 1e9,
                ack.documents_digest,
                ack.record_digest,
                ack.flags,
                ack.lease_age_ms,
            )
            for address, ack in self.model.acks.items()
            if 0 <= self.model.config.asked - ack.newest < ROUNDS
        ]

    def _observations(self, now: Now) -> list[Observation]:
        here = now.wall_ns - _ns(now.mono)
        return [
            (
                key_of(address),
                entry.incarnation,
                entry.window.highest,
                entry.window.bits,
                entry.last_seen / 1e9,
                (entry.clock - here) / 1e9,
                entry.documents_digest,
                entry.record_digest,
                entry.flags,
            )
            for address, entry in self.model.nodes.items()
            if entry.standing != GONE
        ]


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
