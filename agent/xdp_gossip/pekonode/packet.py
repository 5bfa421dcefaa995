# SPDX-License-Identifier: MIT
"""The one packet of PekoNode's protocol."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..core.types import Address

#: Greatest document stamp: nanoseconds since the epoch in a signed 64-bit integer (Go's int64), the year 2262.
MAX_STAMP = (1 << 63) - 1


class Swap(enum.IntEnum):
    """Role of a packet in the exchange of metadata between two nodes (field ``IsSwap``)."""

    NONE = 0
    REQUEST = 1
    RESPONSE = 2


@dataclass(frozen=True)
class PekoNodeId:
    """A node as PekoNode states it. ``addr`` stays as its owner wrote it: Go nodes compare all four as text."""

    addr: str
    port: int
    name: str = ""
    private_data: str = ""

    @property
    def label(self) -> str:
        """Its key in an infected list: address, colon, port; an IPv6 address gets no brackets there."""
        return f"{self.addr}:{self.port}"

    @property
    def address(self) -> Address:
        """Where it listens. Raises ``ValueError`` when ``addr`` is no IP address (PekoNode's default is 0.0.0.0)."""
        return Address.of(self.addr or "0.0.0.0", self.port)


@dataclass(frozen=True)
class Packet:
    """Heartbeat (neither flag set), metadata rumor (``is_update``) or exchange (``swap``).

    ``infected`` holds the labels of nodes that got this rumor already. ``data`` None and b"" differ on the wire
    (null and "") and mean the same. ``stamp`` is the metadata's version: nanoseconds since the epoch, 0 for none.
    ``secret`` is the digest of the cluster's key, empty for none.
    """

    node: PekoNodeId
    infected: frozenset[str] = frozenset()
    data: bytes | None = None
    stamp: int = 0
    is_update: bool = False
    swap: Swap = Swap.NONE
    secret: str = ""


class WireError(Exception):
    """Bytes that are no packet. ``reason`` is stable (``oversized``, ``malformed``) and names a counter."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
