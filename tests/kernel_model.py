# SPDX-License-Identifier: MIT
"""The kernel data plane in Python: what each packet comes to, and why.

The BPF programs are held against it packet by packet (``tests/bpf``), and it stands in for them in the simulator
(``tests/sim``). It takes UDP payloads; what comes before them is not its business.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.keys import KEY
from xdp_gossip.core.members.window import ReplayWindow
from xdp_gossip.core.packets import EDGES, FLAG_PAUSED, RUMORS, Codec, Header, PacketType, Rejected
from xdp_gossip.core.types import Address
from xdp_gossip.wire.keys import derive

#: As in bpf/maps.h.
PRESENT, SUSPECT, GONE = range(3)
NEWS, ASK = 1, 2
#: As in bpf/wire.h.
DATAGRAM_BYTES = 1232
#: Words of 64 bits in the window of direct packets, as in bpf/maps.h.
DIRECT_WORDS = 32
#: Rounds of the local agent that an acknowledgement may be of, as in bpf/maps.h.
ROUNDS = 64

_TTL, _FANOUT = 80, 82
_WIDE = frozenset({PacketType.METADATA, PacketType.LEAVE, PacketType.ALERT})
_MASK = (1 << 64) - 1


@dataclass
class Config:
    """``struct xg_config``: times in ns of the local monotonic clock.

    ``clock`` is the cluster's wall time minus it, ``wall`` is the local one's. ``asked`` is the newest round.
    """

    local: Address
    incarnation: int = 1
    running: bool = True
    amount: int = 4
    wide: int = 12
    documents_digest: int = 0
    lease: int = 1 << 62
    clock: int = 0
    timeout: int = 5_000_000_000
    max_clock_drift: int = 60_000_000_000
    asked: int = 0
    wall: int = 0
    record_digest: int = 0
    renewed: int = 0
    key_id: int = derive("default", KEY).id
    packet_flags: int = 0


@dataclass
class Entry:
    """``struct xg_node``."""

    incarnation: int = 0
    window: ReplayWindow = field(default_factory=lambda: ReplayWindow(64))
    last_seen: int = 0
    clock: int = 0
    documents_digest: int = 0
    record_digest: int = 0
    standing: int = PRESENT
    flags: int = 0


@dataclass
class Acknowledged:
    """``struct xg_ack``."""

    incarnation: int
    lease_age_ms: int
    newest: int
    window: int
    last_seen: int
    clock: int
    documents_digest: int
    record_digest: int
    flags: int


@dataclass(frozen=True)
class Outcome:
    """What a packet came to: the counter of its verdict, and what went on from it.

    ``action`` is pass (to the stack), drop, relay, or answer (``onward`` goes back to where the packet came from).
    ``event`` is what goes through the ring buffer: NEWS, ASK or None. ``copies`` is how many copies are made,
    ``onward`` the payload they carry. ``beyond`` is what it comes to when as many packets as may have come up in this
    slot of time.
    """

    verdict: str
    action: str = "drop"
    event: int | None = None
    copies: int = 0
    onward: bytes = b""
    also: tuple[str, ...] = ()
    beyond: str = ""


def _ask(verdict: str) -> Outcome:
    """What only the agent can decide on."""
    return Outcome(verdict, event=ASK, beyond="ask_limited")


class KernelModel:
    """The maps, and what is done to them. ``targets`` is the ring."""

    def __init__(self, codec: Codec, config: Config, max_nodes: int = 20_000) -> None:
        self.codec = codec
        self.config = config
        self.max_nodes = max_nodes
        self.nodes: dict[Address, Entry] = {}
        #: Node -> incarnation and sequences of its direct packets.
        self.directs: dict[Address, tuple[int, set[int]]] = {}
        #: Node -> incarnation and newest answered round of its edge probes.
        self.askers: dict[Address, tuple[int, int]] = {}
        self.acks: dict[Address, Acknowledged] = {}
        self.targets: Sequence[Address] = ()
        self.counters: Counter[str] = Counter()

    def process(self, payload: bytes, source: Address, time: int) -> Outcome:
        """Take one UDP payload from ``source`` at ``time`` (ns, monotonic). The steps are docs/protocol.md's."""
        outcome = self._process(payload, time)
        self.counters.update((outcome.verdict, *outcome.also))
        if outcome.event == NEWS:
            self.counters["news"] += 1
        return outcome

    def _process(self, payload: bytes, time: int) -> Outcome:
        config = self.config
        if not config.running or (time > config.lease and not self._is_probe(payload)):
            return Outcome("pass_no_agent", "pass")
        if len(payload) > DATAGRAM_BYTES:
            return Outcome("pass_odd", "pass")
        try:
            header = self.codec.parse(payload)
        except Rejected as rejected:
            return Outcome(f"drop_{rejected.reason}")
        except ValueError:
            return Outcome("drop_malformed")
        try:
            return self._judge(payload, header, time)
        except Rejected as rejected:
            return Outcome(f"drop_{rejected.reason}")

    def _is_probe(self, payload: bytes) -> bool:
        """Whether this is for the kernel alone: what is answered also when the agent's lease is over."""
        try:
            return self.codec.parse(payload).type is PacketType.EDGE_PROBE
        except (ValueError, Rejected):
            return False

    def _judge(self, payload: bytes, header: Header, time: int) -> Outcome:
        if header.type in EDGES:
            return self._edge(payload, header, time)
        if header.origin == self.config.local:
            if not _earlier(self.config.incarnation, header.incarnation):
                return Outcome("drop_own")
            self.codec.verify(payload, header)
            return _ask("ask_own")
        if header.type not in RUMORS:
            self.codec.verify(payload, header)
            return self._direct(header)
        entry = self.nodes.get(header.origin)
        if entry is not None and header.incarnation == entry.incarnation and not entry.window.fresh(header.sequence):
            return Outcome("drop_duplicate")
        self.codec.verify(payload, header)
        if entry is None:
            return self._newcomer(payload, header, time)
        if _earlier(header.incarnation, entry.incarnation):
            return _ask("ask_incarnation")
        if entry.standing == GONE:
            return _ask("ask_gone")
        if self._off(header, entry.clock, time) > self._limit(entry.standing):
            return _ask("ask_time")
        before = (entry.incarnation, entry.record_digest, entry.flags, entry.documents_digest)
        self._commit(entry, header, time)
        return self._take(payload, header, self._is_news(header, entry, before))

    def _direct(self, header: Header) -> Outcome:
        """What may come up to the agent. The rates are not stated here: the model has no clock of its own."""
        incarnation, seen = self.directs.get(header.origin, (0, set()))
        if incarnation and _earlier(header.incarnation, incarnation):
            return Outcome("pass_direct", "pass", beyond="drop_direct_flood")
        if incarnation != header.incarnation:
            seen = set()
        newest = max(seen, default=header.sequence)
        if header.sequence in seen or newest // 64 - header.sequence // 64 >= DIRECT_WORDS:
            return Outcome("drop_replayed")
        self.directs[header.origin] = (header.incarnation, seen | {header.sequence})
        return Outcome("pass_direct", "pass")

    def _edge(self, payload: bytes, header: Header, time: int) -> Outcome:
        if header.origin == self.config.local:
            return Outcome("drop_own")
        if header.type is PacketType.EDGE_ACK and not self._asked(header.sequence):
            return Outcome("drop_ack_stray")
        self.codec.verify(payload, header)
        return self._probe(header, time) if header.type is PacketType.EDGE_PROBE else self._ack(header, time)

    def _probe(self, header: Header, time: int) -> Outcome:
        """Answer each round of an asker once. The rate is not stated here, as with direct packets."""
        incarnation, newest = self.askers.get(header.origin, (0, 0))
        if incarnation and _earlier(header.incarnation, incarnation):
            return Outcome("drop_probe_replayed")
        if incarnation == header.incarnation and header.sequence <= newest:
            return Outcome("drop_probe_replayed")
        self.askers[header.origin] = (header.incarnation, header.sequence)
        return Outcome("answer", "answer", onward=self._answer(header, time))

    def _answer(self, probe: Header, time: int) -> bytes:
        config = self.config
        age = max(0, time - config.renewed) // 1_000_000
        header = Header(
            PacketType.EDGE_ACK,
            config.local,
            config.incarnation,
            probe.sequence,
            (time + config.wall) & _MASK,
            config.documents_digest,
            config.record_digest,
            config.packet_flags,
            lease_age_ms=min(age, (1 << 32) - 1),
        )
        return self.codec.encode(header, None)

    def _asked(self, number: int) -> bool:
        return 0 <= self.config.asked - number < ROUNDS

    def _ack(self, header: Header, time: int) -> Outcome:
        known = self.acks.get(header.origin)
        window = 1
        if known is not None and self._asked(known.newest):
            same, apart = header.incarnation == known.incarnation, header.sequence - known.newest
            if apart <= 0:
                if not same or known.window >> -apart & 1:
                    return Outcome("drop_ack_stray")
                window = known.window | 1 << -apart
                self.acks[header.origin] = dataclasses.replace(known, window=window, last_seen=time)
                return Outcome("take_ack")
            window |= (known.window << apart if same else 0) & _MASK
        self.acks[header.origin] = Acknowledged(
            header.incarnation,
            header.lease_age_ms,
            header.sequence,
            window,
            time,
            _signed(header.wall_ns - time),
            header.documents_digest,
            header.record_digest,
            header.flags,
        )
        return Outcome("take_ack")

    def _newcomer(self, payload: bytes, header: Header, time: int) -> Outcome:
        if header.type is PacketType.LEAVE:
            return Outcome("drop_unknown_leave")
        if self._off(header, self.config.clock, time) > self.config.timeout:
            return _ask("ask_time")
        if len(self.nodes) >= self.max_nodes:
            return _ask("ask_full")
        entry = self.nodes[header.origin] = Entry()
        self._commit(entry, header, time)
        return self._take(payload, header, True, "take_newcomer")

    def _limit(self, standing: int) -> int:
        """How far a packet's time may be off."""
        if standing == PRESENT:
            return max(self.config.timeout, self.config.max_clock_drift)
        return self.config.timeout

    @staticmethod
    def _off(header: Header, clock: int, time: int) -> int:
        """How far the packet's time is off a clock; 64-bit arithmetic that wraps, as in C."""
        off = (header.wall_ns - time - clock) & _MASK
        return min(off, _MASK + 1 - off)

    @staticmethod
    def _commit(entry: Entry, header: Header, time: int) -> None:
        if header.incarnation != entry.incarnation:
            entry.incarnation = header.incarnation
            entry.window = ReplayWindow(64)
        entry.window.commit(header.sequence)
        if header.sequence == entry.window.highest:
            entry.clock = _signed(header.wall_ns - time)
            entry.documents_digest, entry.record_digest = header.documents_digest, header.record_digest
            entry.flags = header.flags
        if header.type is PacketType.LEAVE:
            entry.standing = GONE
        elif not header.flags & FLAG_PAUSED:
            entry.last_seen = time

    def _is_news(self, header: Header, entry: Entry, before: tuple[int, int, int, int]) -> bool:
        """``before`` is the entry's incarnation, record digest, flags and documents digest before this packet."""
        if header.type is not PacketType.HEARTBEAT or entry.incarnation != before[0]:
            return True
        if (entry.record_digest, entry.flags) != before[1:3]:
            return True
        return entry.documents_digest not in (before[3], self.config.documents_digest)

    def _take(self, payload: bytes, header: Header, news: bool, *also: str) -> Outcome:
        verdict = f"take_{header.type.name.lower()}"
        event = NEWS if news else None
        if header.ttl == 0:
            return Outcome(verdict, event=event, also=(*also, "relay_ttl"))
        if not self.targets:
            return Outcome(verdict, event=event, also=(*also, "relay_alone"))
        onward = bytearray(payload)
        onward[_TTL : _TTL + 2] = struct.pack("BB", header.ttl - 1, min(header.hops + 1, 255))
        onward[_FANOUT] = 0
        copies = self.config.wide if header.type in _WIDE else self.config.amount
        return Outcome(verdict, "relay", event, copies, bytes(onward), (*also, "relay"))

    def eligible(self, origin: Address, source: Address) -> list[Address]:
        """Targets that may get a copy of a rumor, in the order of the ring."""
        return [t for t in self.targets if t not in (origin, source) and (":" in t.ip) == (":" in self.config.local.ip)]


def _earlier(one: int, other: int) -> bool:
    """Whether a run came before another one: serial numbers, so the sign of the difference in 32 bits tells."""
    return ((one - other) & 0xFFFFFFFF) >> 31 == 1


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value
