# SPDX-License-Identifier: MIT
"""A transport around another one, for tests that want to see packets, or to hold something up."""

from __future__ import annotations

from collections.abc import Mapping

from xdp_gossip.core.events import Rumor, Transmit
from xdp_gossip.core.types import Address
from xdp_gossip.transport import Receive, Transport


class Wrapped:
    """Passes every call on to ``inner``; subclasses add to what they want to know of."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    @property
    def local(self) -> Address:
        return self.inner.local

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def counters(self) -> Mapping[str, int]:
        return self.inner.counters

    def reaches(self, address: Address) -> bool:
        return self.inner.reaches(address)

    async def open(self, receive: Receive) -> None:
        await self.inner.open(receive)

    def send(self, transmit: Transmit) -> None:
        self.inner.send(transmit)

    def send_rumor(self, rumor: Rumor) -> None:
        """One by one: what a subclass does with a packet, it does with these too."""
        for target in rumor.targets:
            self.send(Transmit(target, rumor.data))

    async def close(self) -> None:
        await self.inner.close()
