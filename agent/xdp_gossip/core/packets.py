# SPDX-License-Identifier: MIT
"""Packets of the native wire: types, flags, header, and the interface of the codec (``docs/wire.md``)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .types import Address

if TYPE_CHECKING:
    from .registry import Message


class PacketType(enum.IntEnum):
    """Types of packets. Types 1 to 3 have the same numbers as in eGossip."""

    HEARTBEAT = 1
    SWAP_REQUEST = 2
    SWAP_RESPONSE = 3
    METADATA = 4
    LEAVE = 5
    RECORD = 6
    PROBE = 7
    EDGE_PROBE = 8
    EDGE_ACK = 9
    ALERT = 10


#: Packet types that nodes relay, and that use the origin's rumor sequence. Packets of other types go to one node only.
RUMORS = frozenset({PacketType.HEARTBEAT, PacketType.METADATA, PacketType.LEAVE, PacketType.RECORD, PacketType.ALERT})
#: The question of an observer, and its answer. A data plane answers and records these packets without the agent. They
#: have no replay window of the direct packets: the sequence field contains the number of the observer's round.
EDGES = frozenset({PacketType.EDGE_PROBE, PacketType.EDGE_ACK})

#: Maximum bytes of a packet that is sent as a datagram, equal to the minimum MTU of IPv6 (1,280 bytes) less the headers
#: of IPv6 and UDP.
LONG = 1232

#: Flag: the origin has paused its heartbeats (``Stop``), so its packets do not count as signs of life.
FLAG_PAUSED = 0x01
#: Flag: some documents in the header's documents digest are not on the origin's disk yet.
FLAG_UNSTORED = 0x02
#: Flag: the origin has not caught up since its start, so its documents may be old or missing.
FLAG_CATCHING_UP = 0x04


@dataclass(frozen=True)
class Header:
    """The fields of a packet's signed block and of its relay area. ``bpf/wire.h`` defines the layout.

    ``lease_age_ms``, only in an edge acknowledgement: milliseconds since the origin's agent last renewed its lease on
    the data plane that answered; 0 if the agent answered itself.
    """

    type: PacketType
    origin: Address
    incarnation: int
    sequence: int
    wall_ns: int
    documents_digest: int
    record_digest: int
    flags: int = 0
    key_id: int = 0
    ttl: int = 0
    hops: int = 0
    lease_age_ms: int = 0


class Rejected(Exception):
    """Raised for a packet that this node rejects.

    ``reason``: name of the counter of packets that are rejected for the same reason, without the prefix ``rx_``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PacketKey(Protocol):
    """One key, with which packets are signed and encrypted (docs/wire.md, "Keys")."""

    @property
    def id(self) -> int:
        """The key id, 0 to 255, which each packet contains."""

    @property
    def mac(self) -> bytes:
        """The key of the MAC, 16 bytes."""

    @property
    def body(self) -> bytes:
        """The key from which the keys of bodies are derived, 32 bytes."""


class PacketKeys(Protocol):
    """All keys of a node (``wire.keys.Keyring``)."""

    @property
    def active(self) -> PacketKey:
        """The key that signs."""

    @property
    def states(self) -> tuple[tuple[int, str], ...]:
        """Fingerprint (64 bits) and state of each key."""

    def get(self, key_id: int) -> PacketKey | None:
        """The key with the id ``key_id``; None if there is no such key."""


class Codec(Protocol):
    """Encodes and decodes packets. :meth:`parse` needs no cryptography, so the engine can drop duplicates early."""

    @property
    def keys(self) -> tuple[tuple[int, str], ...]:
        """Fingerprint (64 bits) and state of each key."""

    def use(self, keyring: PacketKeys) -> None:
        """Replace the keys by those of ``keyring``."""

    def parse(self, data: bytes) -> Header:
        """The unverified header. Raises ``Rejected``: truncated, malformed, foreign_version, foreign_cluster."""

    def verify(self, data: bytes, header: Header) -> None:
        """Check the MAC of a packet. Raises ``Rejected``: unknown_key, bad_mac."""

    def open(self, data: bytes, header: Header) -> Message | None:
        """Decrypt the body and return its message; None for a type without a body. Raises ``Rejected``: bad_body."""

    def encode(self, header: Header, message: Message | None) -> bytes:
        """A packet with ``header`` and ``message``, signed and encrypted with the active key."""

    def relayed(self, data: bytes) -> bytes | None:
        """A copy of a packet for the next hop; None if the packet has reached its hop limit."""

    def size_of(self, message: Message) -> int:
        """Length in bytes of a packet with ``message``."""
