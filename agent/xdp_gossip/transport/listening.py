# SPDX-License-Identifier: MIT
"""Base class of the transports that use only TCP.

The class contains the listening address, the counters, and the sending of rumors.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ..core.events import Rumor, Transmit
from ..core.types import Address
from . import normalised
from .sockets import listening_socket
from .source import Source


class TcpListening:
    """Base of a :class:`xdp_gossip.transport.Transport` that listens on TCP.

    ``listen``: the address on which the transport accepts connections, or a pair ``(ip, port)`` whose port may be 0.
    ``::`` also accepts IPv4. ``size``: maximum bytes of a packet. ``buffer``: maximum number of packets queued for one
    peer. ``own``: the address by which peers know this node. While the host has the address ``own``, outgoing
    connections have this source address (:class:`Source`).
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
        self.size = size
        self.counters_: dict[str, int] = {}
        self.local = Address(listen[0], listen[1]) if isinstance(listen, tuple) else listen
        self._listen = listen
        self._buffer = buffer
        self._source = Source(own, listen[0] if isinstance(listen, tuple) else listen.ip, self.counters_)

    @property
    def counters(self) -> Mapping[str, int]:
        """See :class:`Transport`."""
        return self.counters_

    def _listener(self) -> socket.socket:
        """Create the listening socket, and set :attr:`local` to its address. Raises ``TransportError``."""
        sock = listening_socket(self._listen, socket.SOCK_STREAM)
        self.local = normalised(*sock.getsockname()[:2])
        return sock

    def send(self, transmit: Transmit) -> None:
        """See :class:`Transport`."""
        raise NotImplementedError

    def send_rumor(self, rumor: Rumor) -> None:
        """See :class:`Transport`."""
        for target in rumor.targets:
            self.send(Transmit(target, rumor.data))
