# SPDX-License-Identifier: MIT
"""The outbox of an engine: numbers, signs and queues packets, starts rumors, and collects events and counters."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Container, Iterable

from .counters import NATIVE, Counters
from .events import Event, Rumor, Transmit
from .members.membership import Membership
from .members.peer import with_mark
from .members.timing import Timing
from .messages import BY_CLASS
from .packets import FLAG_CATCHING_UP, FLAG_PAUSED, FLAG_UNSTORED, Codec, Header, PacketType
from .registry import Message
from .types import Address, Node, Now, Record

#: Function that returns a collection of document keys. The collection supports ``in``, and its truth value is False if
#: it is empty.
UnstoredSource = Callable[[], Container[str]]


class Local:
    """The local node: its identity, and the state that it reports in the header of each packet."""

    def __init__(self, node: Node, record: Record, incarnation: int) -> None:
        self.node = node
        self.address = node.address
        self.record = record
        self.incarnation = incarnation
        self.status = "new"
        self.catching_up = True  # True until this node has caught up (``sync.catchup``).
        self.problems: tuple[str, ...] = ()  # This node's problems (``types.PROBLEMS``).
        #: Returns the keys of this node's documents that are not on the disk yet. The runtime sets it.
        self.unstored: UnstoredSource = frozenset

    def mark(self, problem: str, on: bool) -> bool:
        """Add a problem to this node if ``on`` is True, otherwise remove the problem.

        Returns whether the node's problems changed.
        """
        before = self.problems
        self.problems = with_mark(before, problem, on)
        return self.problems != before


class Outbox:
    """Numbers, signs and queues packets; queues events; counts events.

    ``digest`` returns the documents digest of this node. Every packet of this node carries this documents digest.

    Rumors and direct packets have separate sequences. If rumors and direct packets shared one sequence, the many
    answers of a busy node would advance the sequence so fast that the replay windows of other members would reject the
    node's rumors as too old.
    """

    def __init__(
        self,
        codec: Codec,
        local: Local,
        membership: Membership,
        timing: Timing,
        digest: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.codec = codec
        self.rng = rng
        self._membership = membership
        self._timing = timing
        self.counters = Counters(NATIVE)
        self.rumor_sequence = 0
        self._direct_sequence = 0
        #: Peer -> bytes of the longest datagram that the path to the peer supports, as :class:`.paths.Paths` found.
        #: Paths to peers without an entry have no limit.
        self.datagram_limits: dict[Address, int] = {}
        #: While the engine handles a request that came over TCP: the request's sender, so that the answer also goes
        #: over TCP.
        self.over_stream: Address | None = None
        #: Returns whether this host can send to the family of the given address. The runtime sets it.
        self.reaches: Callable[[Address], bool] = lambda address: True
        self.local = local
        self._digest = digest
        self._transmits: list[Transmit | Rumor] = []
        self._events: list[Event] = []

    def restart_sequences(self) -> None:
        """Restart both sequences at 1, after the incarnation was raised."""
        self.rumor_sequence = 0
        self._direct_sequence = 0

    def rumor(self, kind: PacketType, message: Message | None, now: Now) -> None:
        """Start a rumor: send one packet to random members, which relay the packet to further members."""
        ttl = math.ceil(math.log2(self._timing.members + 1)) + 4
        targets = self._membership.targets(self._timing.copies(kind))
        self.rumor_sequence += 1
        data = self.codec.encode(self._header(kind, self.rumor_sequence, ttl, now), message)
        near = [target for target in targets if len(data) <= self.datagram_limits.get(target, len(data))]
        self._transmits.append(Rumor(data, tuple(near)))
        if len(near) < len(targets):
            self._transmits.extend(Transmit(target, data, True) for target in targets if target not in near)
        self.count(f"tx_{kind.name.lower()}")

    def send(self, message: Message, to: Address, now: Now, reliable: bool = False) -> None:
        """Send a message to one node.

        The packet goes over TCP if ``reliable`` is set, if it answers a request that came over TCP, or if it is longer
        than the longest datagram that the path supports.
        """
        kind = BY_CLASS[type(message)].direct
        assert kind is not None, f"{type(message).__name__} travels as a rumor only"
        self._direct_sequence += 1
        data = self.codec.encode(self._header(kind, self._direct_sequence, 0, now), message)
        self._transmits.append(Transmit(to, data, reliable or to == self.over_stream or self._too_long(data, to)))
        self.count(f"tx_{kind.name.lower()}")

    def probe(self, round_number: int, targets: Iterable[Address], now: Now) -> None:
        """Send the probe of one round of this observer to its subjects: the same packet to each."""
        data = self.codec.encode(self._header(PacketType.EDGE_PROBE, round_number, 0, now), None)
        for target in targets:
            self._transmits.append(Transmit(target, data))
            self.count("tx_edge_probe")

    def acknowledge(self, round_number: int, to: Address, now: Now) -> None:
        """Answer the probe of the round ``round_number``."""
        data = self.codec.encode(self._header(PacketType.EDGE_ACK, round_number, 0, now), None)
        self._transmits.append(Transmit(to, data))
        self.count("tx_edge_ack")

    def forward(self, data: bytes, targets: Iterable[Address]) -> None:
        """Send an encoded packet of another node to each target."""
        self._transmits.extend(Transmit(target, data, self._too_long(data, target)) for target in targets)

    def _too_long(self, data: bytes, to: Address) -> bool:
        return bool(self.datagram_limits) and len(data) > self.datagram_limits.get(to, len(data))

    def emit(self, event: Event) -> None:
        """Queue an event."""
        self._events.append(event)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counters.add(name, amount)

    def take_transmits(self) -> list[Transmit | Rumor]:
        """Return all packets that were queued since the last call."""
        taken, self._transmits = self._transmits, []
        return taken

    def take_events(self) -> list[Event]:
        """Return all events that were queued since the last call."""
        taken, self._events = self._events, []
        return taken

    def _header(self, kind: PacketType, sequence: int, ttl: int, now: Now) -> Header:
        local = self.local
        flags = FLAG_PAUSED if local.status == "paused" else 0
        flags |= FLAG_UNSTORED if local.unstored() else 0
        flags |= FLAG_CATCHING_UP if local.catching_up else 0
        return Header(
            type=kind,
            origin=local.address,
            incarnation=local.incarnation,
            sequence=sequence,
            wall_ns=now.wall_ns,
            documents_digest=self._digest(),
            record_digest=local.record.digest,
            flags=flags,
            ttl=ttl,
        )
