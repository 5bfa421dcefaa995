# SPDX-License-Identifier: MIT
"""Transports: thin layers around sockets that send and receive packets, independent of the gossip protocol.

A transport runs in one asyncio event loop. A transport counts every packet that it drops. A transport does not report
drops to the engine, because the protocol itself repairs losses.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Protocol

from ..core.events import Rumor, Transmit
from ..core.types import Address


class Receive(Protocol):
    """The callback to which a transport passes each received packet and the address of its sender.

    For a frame over TCP, ``source`` is the IP address and the port of the peer's end of the connection. The kernel data
    plane passes ``screened=True`` for packets that it has already checked and relayed. Returns True for an accepted
    rumor of another node, False for a rejected packet, None for any other packet.
    """

    def __call__(self, data: bytes, source: Address, screened: bool = False) -> bool | None: ...


class TransportError(Exception):
    """Raised if a transport cannot be opened. The error message contains the address and the reason."""


class NoPlane(TransportError):
    """Raised if the setting ``protocol`` requires a kernel data plane, but this host cannot use one.

    The message says why.
    """


class Transport(Protocol):
    """The interface of a transport for the runtime of a node."""

    #: The address on which the transport listens. If port 0 was requested, ``local`` has the port that the kernel
    #: chose.
    local: Address

    @property
    def name(self) -> str:
        """The mode of the transport, which is "UDP", "TCP", or the mode in which the kernel data plane runs."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Counters of the transport by name. Every counter is present from the start."""

    def reaches(self, address: Address) -> bool:
        """Whether the transport can send packets to addresses of the same family as ``address``."""

    async def open(self, receive: Receive) -> None:
        """Bind the sockets, and start to pass received packets to ``receive``. Raises ``TransportError``."""

    def send(self, transmit: Transmit) -> None:
        """Send or queue one packet.

        The method never blocks. If a peer or the network fails, the method raises no error.
        """

    def send_rumor(self, rumor: Rumor) -> None:
        """Send or queue one rumor of this node for each of its targets."""

    async def close(self) -> None:
        """Send the queued packets for at most one second, then drop the remaining packets and close every socket.

        Idempotent.
        """


@functools.lru_cache(maxsize=4096)
def normalised(host: str, port: int) -> Address:
    """Return the source of a packet as an ``Address``. An IPv4-mapped address from a dual-stack socket becomes IPv4.

    The function removes the zone from a link-local address, because addresses of nodes have no zone.
    """
    return Address.of(host.partition("%")[0], port)
