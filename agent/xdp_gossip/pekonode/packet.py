# SPDX-License-Identifier: MIT
"""The only packet type of PekoNode's protocol."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..core.types import Address

#: Maximum stamp of a document: nanoseconds since the epoch in a signed 64-bit integer (Go's int64), the year 2262.
MAX_STAMP = (1 << 63) - 1


class Swap(enum.IntEnum):
    """Role of a packet in a swap, PekoNode's sync of metadata between two nodes (field ``IsSwap``)."""

    NONE = 0
    REQUEST = 1
    RESPONSE = 2


@dataclass(frozen=True)
class PekoNodeId:
    """A node in PekoNode's packets. ``addr`` is not normalised, because Go nodes compare all four fields as text."""

    addr: str
    port: int
    name: str = ""
    private_data: str = ""

    @property
    def label(self) -> str:
        """The node's key in an infected list: address, colon, port, and no brackets around an IPv6 address."""
        return f"{self.addr}:{self.port}"

    @property
    def address(self) -> Address:
        """The address of the node. Raises ``ValueError`` if ``addr`` is no IP address.

        An empty ``addr`` means 0.0.0.0.
        """
        return Address.of(self.addr or "0.0.0.0", self.port)


@dataclass(frozen=True)
class Packet:
    """A packet: a metadata rumor (``is_update``), a swap (``swap`` is not NONE), or otherwise a heartbeat.

    ``infected``: labels of the nodes to which the rumor was sent. ``data``: None and b"" differ on the wire (null and
    "") and mean the same. ``stamp``: version of the metadata, in nanoseconds since the epoch; 0 if the packet contains
    no metadata. ``secret``: digest of the cluster's key; empty if the cluster has no key.
    """

    node: PekoNodeId
    infected: frozenset[str] = frozenset()
    data: bytes | None = None
    stamp: int = 0
    is_update: bool = False
    swap: Swap = Swap.NONE
    secret: str = ""


class WireError(Exception):
    """Raised for bytes that are not a valid packet. ``reason`` (``oversized``, ``malformed``) is stable and names a
    counter.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
