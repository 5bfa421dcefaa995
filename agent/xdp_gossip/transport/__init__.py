# SPDX-License-Identifier: MIT
"""How packets leave and arrive: thin shells around sockets, which know nothing of the protocol.

A transport lives in one asyncio event loop. Losses are not reported back, the protocol repairs them; but nothing is
dropped without adding to a counter.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Protocol

from ..core.events import Rumor, Transmit
from ..core.types import Address


class Receive(Protocol):
    """Takes one packet and where it came from (for a frame: the peer's address with the connection's own port).

    The kernel data plane adds ``screened=True`` to what it has judged and relayed. Returns True for another node's
    rumor that was taken, False for a packet that was refused, None for any other.
    """

    def __call__(self, data: bytes, source: Address, screened: bool = False) -> bool | None: ...


class TransportError(Exception):
    """The transport could not be opened; the message names the address and the reason."""


class NoPlane(TransportError):
    """The protocol insists on a kernel data plane, and there is none that can be used now; the message says why."""


class Transport(Protocol):
    """What the facade needs of a transport."""

    #: Where it really listens: the port is the one the kernel chose when port 0 was asked for.
    local: Address

    @property
    def name(self) -> str:
        """How packets travel: "UDP" or "TCP", or the mode of the kernel data plane."""

    @property
    def counters(self) -> Mapping[str, int]:
        """What happened so far, every name present from the start."""

    def reaches(self, address: Address) -> bool:
        """Whether packets can go to addresses of that family at all."""

    async def open(self, receive: Receive) -> None:
        """Bind and begin to pass packets to ``receive``. Raises ``TransportError``."""

    def send(self, transmit: Transmit) -> None:
        """Send or queue one packet. Never blocks, never raises for what a peer or the network does."""

    def send_rumor(self, rumor: Rumor) -> None:
        """Send one rumor of this node to each of its targets, as :meth:`send` does."""

    async def close(self) -> None:
        """Send what is queued, for a second at most, then close every socket. Idempotent."""


@functools.lru_cache(maxsize=4096)
def normalised(host: str, port: int) -> Address:
    """The address of a packet's source as the sockets name it (an IPv4 peer of a dual-stack socket is IPv4).

    A link-local one comes with the zone, which no address of a node has.
    """
    return Address.of(host.partition("%")[0], port)
