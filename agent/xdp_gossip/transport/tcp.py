# SPDX-License-Identifier: MIT
"""Everything as frames over TCP (the seed's ``Protocol: TCP``)."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ..core.events import Rumor, Transmit
from ..core.types import Address
from . import Receive, normalised
from .sockets import listening_socket
from .source import Source
from .streams import Streams


class TcpTransport:
    """See :class:`xdp_gossip.transport.Transport`.

    ``listen`` is where to accept, as an address or as ``(ip, port)``, which allows port 0; ``::`` takes IPv4 too.
    ``size`` is the longest packet in bytes, ``buffer`` the packets queued for one peer at most. ``own`` is
    the address that peers know: connections leave from it while the host has it (:class:`Source`).
    """

    name = "TCP"

    def __init__(
        self,
        listen: Address | tuple[str, int],
        *,
        size: int = 16384,
        buffer: int = 64,
        own: Address | None = None,
    ) -> None:
        self._listen = listen
        self._counters: dict[str, int] = {}
        self._source = Source(own, listen[0] if isinstance(listen, tuple) else listen.ip, self._counters)
        self._size, self._buffer = size, buffer
        self._streams: Streams | None = None
        self.local = Address(listen[0], listen[1]) if isinstance(listen, tuple) else listen

    @property
    def counters(self) -> Mapping[str, int]:
        """See :class:`Transport`."""
        return self._counters

    async def open(self, receive: Receive) -> None:
        """See :class:`Transport`."""
        sock = listening_socket(self._listen, socket.SOCK_STREAM)
        self.local = normalised(*sock.getsockname()[:2])
        self._streams = Streams(self._size, self._buffer, self._counters, self._source)
        await self._streams.start(sock, receive)

    def send(self, transmit: Transmit) -> None:
        """See :class:`Transport`."""
        if self._streams is not None:
            self._streams.send(transmit.to, transmit.data)

    def send_rumor(self, rumor: Rumor) -> None:
        """See :class:`Transport`."""
        for target in rumor.targets:
            self.send(Transmit(target, rumor.data))

    async def close(self) -> None:
        """See :class:`Transport`."""
        streams, self._streams = self._streams, None
        if streams is not None:
            await streams.close(grace=1.0)
