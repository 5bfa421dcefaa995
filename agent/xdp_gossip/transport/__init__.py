# SPDX-License-Identifier: MIT
"""Transports: thin shells around sockets that send and receive packets and know nothing of the protocol.

A transport lives in one asyncio event loop. It does not report losses, because the protocol repairs them, but it drops
nothing without adding to a counter.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Protocol

from ..core.events import Rumor, Transmit
from ..core.types import Address


class Receive(Protocol):
    """Takes one packet and the address of its sender.

    For a frame the sender is the peer's address with the connection's own port. The kernel data plane passes
    ``screened=True`` for packets that it has judged and relayed already. Returns True for a rumor of another node that
    was accepted, False for a packet that was refused, None for any other packet.
    """

    def __call__(self, data: bytes, source: Address, screened: bool = False) -> bool | None: ...


class TransportError(Exception):
    """The transport could not be opened. The message names the address and the reason."""


class NoPlane(TransportError):
    """The protocol requires a kernel data plane and none can be used now; the message says why."""


class Transport(Protocol):
    """What a node needs of a transport."""

    #: The address that it listens on. If port 0 was requested, this has the port that the kernel chose.
    local: Address

    @property
    def name(self) -> str:
        """The mode: "UDP" or "TCP", or that of the kernel data plane."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Events so far by counter name; every name is present from the start."""

    def reaches(self, address: Address) -> bool:
        """Whether packets can be sent to addresses of this family at all."""

    async def open(self, receive: Receive) -> None:
        """Bind and begin to pass packets to ``receive``. Raises ``TransportError``."""

    def send(self, transmit: Transmit) -> None:
        """Send or queue one packet. Never blocks, and raises nothing that a peer or the network causes."""

    def send_rumor(self, rumor: Rumor) -> None:
        """Send one rumor of this node to each of its targets, as :meth:`send` does."""

    async def close(self) -> None:
        """Send what is queued, for at most one second, then close every socket. Idempotent."""


@functools.lru_cache(maxsize=4096)
def normalised(host: str, port: int) -> Address:
    """The address of a packet's source as nodes write it: an IPv4 peer of a dual-stack socket becomes IPv4.

    The zone of a link-local address is removed, because no address of a node has one.
    """
    return Address.of(host.partition("%")[0], port)
