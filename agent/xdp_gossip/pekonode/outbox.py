# SPDX-License-Identifier: MIT
"""Everything that leaves a PekoNode engine: packets, events, counters."""

from __future__ import annotations

from dataclasses import replace

from ..core.counters import PEKONODE, Counters
from ..core.events import Event, Transmit
from ..core.interface import ProtocolError
from ..core.types import Address, Document, Node
from . import codec
from .packet import MAX_STAMP, Packet, PekoNodeId, Swap
from .peers import Peer

#: Characters of the longest infected entry: 255.255.255.255:65535, and its IPv6 counterpart.
_LONGEST_LABEL = {4: 21, 6: 45}


class PekoNodeOutbox:
    """Builds and queues packets of the local node, queues events, counts."""

    def __init__(self, node: Node, size: int, secret_key: str) -> None:
        """``size``: bytes from which on a receiver drops a packet. Raises ``ProtocolError`` (node_too_large)."""
        self.counters = Counters(PEKONODE)
        self.secret = codec.secret_digest(secret_key)
        self._size = size
        self._transmits: list[Transmit] = []
        self._events: list[Event] = []
        self.rename(node)

    def rename(self, node: Node) -> None:
        """Speak as ``node`` from now on. Raises ``ProtocolError`` (node_too_large) and changes nothing."""
        identity = PekoNodeId(node.addr, node.port, node.name, node.private_data)
        heartbeat = Packet(identity, frozenset({identity.label}), secret=self.secret)
        size = len(codec.encode(heartbeat))
        if size >= self._size // 2:
            raise ProtocolError(
                "node_too_large",
                f"node {identity.label}: name and private data make a heartbeat of {size} bytes, expected less "
                f"than half of size ({self._size})",
            )
        self.id = identity

    def heartbeat(self) -> Packet:
        """A heartbeat before anybody got it."""
        return Packet(self.id, secret=self.secret)

    def update(self, document: Document, stamp: int) -> Packet:
        """News of the document before anybody got it."""
        return Packet(self.id, data=document.value, stamp=stamp, is_update=True, secret=self.secret)

    def swap(self, role: Swap, document: Document | None, stamp: int, to: Address) -> None:
        """Send our side of an exchange; no document is version 0, as on a new Go node."""
        value = document.value if document else b""
        self._transmit(codec.encode(Packet(self.id, data=value, stamp=stamp, swap=role, secret=self.secret)), to)

    def spread(self, packet: Packet, peers: list[Peer]) -> None:
        """Send a rumor, with its origin, us and its targets marked as infected, as a Go node does."""
        if not peers:
            return
        reached = frozenset({self.id.label, packet.node.label, *(peer.id.label for peer in peers)})
        data = codec.encode(replace(packet, infected=packet.infected | reached))
        if len(data) >= self._size and packet.infected:
            # Better a short infected list than a packet that every receiver drops.
            self.count("infected_trimmed")
            data = codec.encode(replace(packet, infected=reached))
        for peer in peers:
            self._transmit(data, peer.address)

    def room(self, amount: int) -> int:
        """Bytes of the largest document that fits a rumor in which we and ``amount`` targets are infected."""
        longest = _LONGEST_LABEL[6 if ":" in self.id.addr else 4]
        labels = frozenset(str(index).rjust(longest, "x") for index in range(amount + 1))
        empty = Packet(self.id, labels, b"", MAX_STAMP, is_update=True, secret=self.secret)
        return max(0, (self._size - 1 - len(codec.encode(empty))) // 4 * 3)

    def emit(self, event: Event) -> None:
        """Queue an event."""
        self._events.append(event)

    def count(self, name: str) -> None:
        """Add one to a counter."""
        self.counters.add(name)

    def take_transmits(self) -> list[Transmit]:
        """All packets queued since the last call."""
        taken, self._transmits = self._transmits, []
        return taken

    def take_events(self) -> list[Event]:
        """All events queued since the last call."""
        taken, self._events = self._events, []
        return taken

    def _transmit(self, data: bytes, to: Address) -> None:
        if len(data) >= self._size:
            return self.count("tx_too_large")
        self.count("tx_packets")
        self._transmits.append(Transmit(to, data))
