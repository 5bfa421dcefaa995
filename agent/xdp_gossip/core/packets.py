# SPDX-License-Identifier: MIT
"""A packet around its message: types, flags, header, and what turns both into bytes (``docs/wire.md``)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .types import Address

if TYPE_CHECKING:
    from .registry import Message


class PacketType(enum.IntEnum):
    """Types of packets. The first three have eGossip's numbers."""

    HEARTBEAT = 1
    SWAP_REQUEST = 2
    SWAP_RESPONSE = 3
    METADATA = 4
    LEAVE = 5
    RECORD = 6
    PROBE = 7


#: Types that are relayed from node to node and share the origin's rumor sequence. All others go to one node.
RUMORS = frozenset({PacketType.HEARTBEAT, PacketType.METADATA, PacketType.LEAVE, PacketType.RECORD})

#: The origin publishes no heartbeats at present (``Stop``), so its packets are no sign of life.
FLAG_PAUSED = 0x01
#: Some documents in the digest are not on the origin's disk yet.
FLAG_UNSTORED = 0x02
#: The origin has just started and has not caught up yet: the documents that it holds may be old or missing.
FLAG_CATCHING_UP = 0x04


@dataclass(frozen=True)
class Header:
    """The signed block and the relay area of a packet (``bpf/wire.h`` states the layout)."""

    type: PacketType
    origin: Address
    incarnation: int
    sequence: int
    wall_ns: int
    state_digest: int
    record_digest: int
    flags: int = 0
    key_id: int = 0
    ttl: int = 0
    hops: int = 0


class Rejected(Exception):
    """A packet is not used. ``reason`` is the name of its counter without the ``rx_`` prefix."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Codec(Protocol):
    """Encodes and decodes packets. Cheap checks come first, so the engine can drop duplicates before any crypto."""

    def parse(self, data: bytes) -> Header:
        """The header, unverified. Raises ``Rejected``: truncated, malformed, foreign_version, foreign_cluster."""

    def verify(self, data: bytes, header: Header) -> None:
        """Check the MAC. Raises ``Rejected``: unknown_key, bad_mac."""

    def open(self, data: bytes, header: Header) -> Message | None:
        """Decrypt and check the body; None for types without. Raises ``Rejected``: bad_body."""

    def encode(self, header: Header, message: Message | None) -> bytes:
        """A signed and sealed packet, with the active key."""

    def relayed(self, data: bytes) -> bytes | None:
        """The packet as it goes to the next hop; None if this was its last hop."""

    def size_of(self, message: Message) -> int:
        """Bytes of the whole packet that would carry ``message``."""
