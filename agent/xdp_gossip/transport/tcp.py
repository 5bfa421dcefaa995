# SPDX-License-Identifier: MIT
"""A transport that sends all packets as frames over TCP (PekoNode's ``Protocol: TCP``)."""

from __future__ import annotations

from ..core.events import Transmit
from ..core.types import Address
from . import Receive
from .listening import TcpListening
from .streams import Streams


class TcpTransport(TcpListening):
    """A :class:`xdp_gossip.transport.Transport` over TCP. The parameters are those of :class:`TcpListening`."""

    _streams: Streams | None = None

    def reaches(self, address: Address) -> bool:
        """Return True, because each connection uses a socket of its peer's address family. See :class:`Transport`."""
        return True

    async def open(self, receive: Receive) -> None:
        """See :class:`Transport`."""
        sock = self._listener()
        self._streams = Streams(self.size, self._buffer, self.counters_, self._source)
        self._streams.start(sock, receive)

    def send(self, transmit: Transmit) -> None:
        """See :class:`Transport`."""
        if self._streams is not None:
            self._streams.send(transmit.to, transmit.data)

    async def close(self) -> None:
        """See :class:`Transport`."""
        streams, self._streams = self._streams, None
        if streams is not None:
            await streams.close(grace=1.0)
