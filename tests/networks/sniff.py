# SPDX-License-Identifier: MIT
"""What really travels: gossip datagrams, seen in the hub as they come in from each host."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from tests.networks.world import NAMES
from tests.planes.fleet import PORT, inside
from xdp_gossip.core.types import Address

_ALL = 0x0003  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING
_MAGIC = b"XG"


@dataclass(frozen=True)
class Seen:
    """One datagram: the hub's port it came in by, its source, its destination, and who wrote the packet in it."""

    port: str
    source: Address
    to: Address
    origin: Address
    type: int

    @property
    def relayed(self) -> bool:
        """Whether somebody other than its origin sent it."""
        return self.origin != self.source


@contextlib.contextmanager
def tap(namespace: str = f"{NAMES}-hub") -> Iterator[socket.socket]:
    """A socket that sees every frame that arrives in ``namespace``."""
    with inside(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.settimeout(0.2)
        yield sock


def take(sock: socket.socket) -> Seen | None:
    """The next frame if it is gossip on its way in; None for another, or for none within a moment."""
    try:
        frame, where = sock.recvfrom(65536)
    except socket.timeout:
        return None
    return None if where[2] == _OUTGOING else parse(frame, where[0])


def parse(frame: bytes, port: str) -> Seen | None:
    """The gossip datagram in a frame, None when there is none. One VLAN tag is skipped."""
    at = 18 if frame[12:14] == b"\x81\x00" else 14
    kind, rest = frame[at - 2 : at], frame[at:]
    if kind == b"\x08\x00" and rest[9:10] == b"\x11":
        start, addresses = (rest[0] & 15) * 4, (rest[12:16], rest[16:20])
    elif kind == b"\x86\xdd" and rest[6:7] == b"\x11":
        start, addresses = 40, (rest[8:24], rest[24:40])
    else:
        return None
    packet = rest[start + 8 :]
    if not packet.startswith(_MAGIC) or len(packet) < 88:
        return None
    ports = int.from_bytes(rest[start : start + 2], "big"), int.from_bytes(rest[start + 2 : start + 4], "big")
    if PORT not in ports:
        return None
    source, to = (Address.unpack(_wide(raw), number) for raw, number in zip(addresses, ports))
    return Seen(port, source, to, Address.unpack(packet[24:40], int.from_bytes(packet[10:12], "big")), packet[3])


def _wide(raw: bytes) -> bytes:
    """An IPv4 address as the mapped one that ``Address`` packs."""
    return raw if len(raw) == 16 else b"\0" * 10 + b"\xff\xff" + raw
