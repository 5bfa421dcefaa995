# SPDX-License-Identifier: MIT
"""The outputs of a PekoNode engine: packets, events and counters."""

from __future__ import annotations

from dataclasses import replace

from ..core.counters import PEKONODE, Counters
from ..core.events import Event, Transmit
from ..core.interface import ProtocolError
from ..core.types import Address, Document, Node
from . import codec
from .packet import MAX_STAMP, Packet, PekoNodeId, Swap
from .peers import Peer

#: IP version -> maximum characters of an infected entry, such as 255.255.255.255:65535 for IPv4.
_LONGEST_LABEL = {4: 21, 6: 45}


class PekoNodeOutbox:
    """Builds and queues the local node's packets, queues events, and increments counters."""

    def __init__(self, node: Node, size: int, secret_key: str) -> None:
        """``size``: receivers drop a packet of ``size`` bytes or more. Raises ``ProtocolError`` (node_too_large)."""
        self.counters = Counters(PEKONODE)
        self.secret = codec.secret_digest(secret_key)
        self._size = size
        self._transmits: list[Transmit] = []
        self._events: list[Event] = []
        self.rename(node)

    def rename(self, node: Node) -> None:
        """Use name and private data of ``node`` in all packets from now on.

        Raises ``ProtocolError`` (node_too_large) if name and private data do not fit into a packet; the packets then
        keep the former values.
        """
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
        """Build a heartbeat of this node, with an empty infected list."""
        return Packet(self.id, secret=self.secret)

    def update(self, document: Document, stamp: int) -> Packet:
        """Build a metadata rumor with ``document``, with an empty infected list."""
        return Packet(self.id, data=document.value, stamp=stamp, is_update=True, secret=self.secret)

    def swap(self, role: Swap, document: Document | None, stamp: int, to: Address) -> None:
        """Send a swap request or response with ``document``.

        If ``document`` is None, the packet has version 0, like a packet of a new Go node.
        """
        value = document.value if document else b""
        self._transmit(codec.encode(Packet(self.id, data=value, stamp=stamp, swap=role, secret=self.secret)), to)

    def spread(self, packet: Packet, peers: list[Peer]) -> None:
        """Send a rumor to ``peers``. Like a Go node, mark the rumor's origin, this node and ``peers`` as infected."""
        if not peers:
            return
        reached = frozenset({self.id.label, packet.node.label, *(peer.id.label for peer in peers)})
        data = codec.encode(replace(packet, infected=packet.infected | reached))
        if len(data) >= self._size and packet.infected:
            # Omit the infected list of the received packet, because receivers would drop a packet that is too long.
            self.count("infected_trimmed")
            data = codec.encode(replace(packet, infected=reached))
        for peer in peers:
            self._transmit(data, peer.address)

    def room(self, amount: int) -> int:
        """Maximum bytes of a document in a rumor whose infected list contains this node and ``amount`` targets."""
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
        """Return all packets queued since the last call."""
        taken, self._transmits = self._transmits, []
        return taken

    def take_events(self) -> list[Event]:
        """Return all events queued since the last call."""
        taken, self._events = self._events, []
        return taken

    def _transmit(self, data: bytes, to: Address) -> None:
        if len(data) >= self._size:
            return self.count("tx_too_large")
        self.count("tx_packets")
        self._transmits.append(Transmit(to, data))
