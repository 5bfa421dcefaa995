# SPDX-License-Identifier: MIT
"""The transport for ``protocol: UDP``: short packets are datagrams, long packets frames over TCP on the same port."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..common.internal_errors import guarded
from ..core.events import Rumor, Transmit
from ..core.types import Address
from . import Receive, TransportError, normalised
from .sockets import closing_on_error, listening_socket
from .source import Source, absent
from .streams import Streams, deliver

#: Maximum bytes of a datagram that no path has to fragment, equal to the minimum MTU of IPv6 (RFC 8200, section 5) less
#: the headers of IPv6 and UDP.
DATAGRAM = 1280 - 40 - 8
#: Maximum number of datagrams read in one turn of the event loop, so that a flood leaves time for timers and the API.
BURST = 256
_RECEIVE_BUFFER = 4 * 1024 * 1024
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8

COUNTERS = (
    "datagrams_received",
    "datagrams_sent",
    "datagrams_oversized",
    "datagrams_malformed",
    "datagrams_unsendable",
    "datagrams_dropped_queue",
    "datagrams_dropped_kernel",
    "receive_errors",
)


class UdpTransport:
    """A :class:`xdp_gossip.transport.Transport` over UDP and TCP.

    ``listen``: the address on which the transport listens, or a pair ``(ip, port)`` whose port may be 0. ``::`` also
    receives IPv4.
    ``size``: maximum bytes of a packet. ``buffer``: maximum number of datagrams that are queued while the kernel's send
    buffer is full, and maximum number of frames that are queued for one peer. ``datagram``: maximum bytes of a packet
    that is sent as a datagram. ``frames=False`` sends all packets as datagrams and does not listen on TCP, for
    PekoNode's wire, which has no frames. ``own``: the address by which peers know this node. While the host has the
    address ``own``, all packets have this source address (:class:`Source`).
    """

    def __init__(
        self,
        listen: Address | tuple[str, int],
        *,
        size: int = 16384,
        buffer: int = 64,
        datagram: int = DATAGRAM,
        frames: bool = True,
        own: Address | None = None,
    ) -> None:
        self._listen = listen
        self._size, self._buffer, self._datagram, self._frames = size, buffer, datagram, frames
        self._counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._source = Source(own, listen[0] if isinstance(listen, tuple) else listen.ip, self._counters)
        self._queue: deque[Transmit] = deque()
        self._sock: socket.socket | None = None
        self._streams: Streams | None = None
        self.local = Address(listen[0], listen[1]) if isinstance(listen, tuple) else listen

    @property
    def name(self) -> str:
        """See :class:`Transport`."""
        return "UDP"

    @property
    def counters(self) -> Mapping[str, int]:
        """The counters.

        The count of datagrams that the kernel dropped is updated with each call. See :class:`Transport`.
        """
        if self._sock is not None:
            self._counters["datagrams_dropped_kernel"] = _kernel_drops(self._sock)
        return self._counters

    async def open(self, receive: Receive) -> None:
        """See :class:`Transport`."""
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        sock, listener = self._bind()
        with closing_on_error(sock):
            # The kernel does not make the buffer larger than net.core.rmem_max.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            if listener is not None:
                self._streams = Streams(self._size, self._buffer, self._counters, self._source)
                self._streams.start(listener, receive)
        self.local = normalised(*sock.getsockname()[:2])
        self._sock = sock
        self._mapped = sock.family == socket.AF_INET6
        self._loop.add_reader(sock, guarded("socket", self._read))

    def reaches(self, address: Address) -> bool:
        """Return whether the socket can send to the family of ``address``.

        An IPv4 socket sends to IPv4 only, an IPv6 socket to IPv6 and IPv4.
        """
        return self._sock is None or self._mapped or ":" not in address.ip

    def _bind(self) -> tuple[socket.socket, socket.socket | None]:
        """Create the UDP socket and the listening TCP socket on the same port. Raises ``TransportError``.

        If port 0 was requested, the port that the kernel chooses for UDP may already be in use for TCP. If the port is
        in use, the method tries another port for both UDP and TCP.
        """
        ip, port = self._listen if isinstance(self._listen, tuple) else (self._listen.ip, self._listen.port)
        for attempts_left in range(0 if port else 30, -1, -1):
            sock = listening_socket(self._listen, socket.SOCK_DGRAM)
            if not self._frames:
                return sock, None
            try:
                return sock, listening_socket((ip, sock.getsockname()[1]), socket.SOCK_STREAM)
            except TransportError:
                sock.close()
                if not attempts_left:
                    raise
        raise AssertionError("unreachable")

    def _read(self) -> None:
        """Receive and deliver datagrams, at most ``BURST`` in one turn of the event loop."""
        sock, counters = self._sock, self._counters
        for _ in range(BURST):
            if sock is None or sock is not self._sock:
                return
            try:
                data, name = self._next_datagram(sock)
            except BlockingIOError:
                return
            except OSError:
                # The error is not about a received datagram. The kernel reports an ICMP error that a datagram sent by
                # this node has caused.
                counters["datagrams_unsendable"] += 1
                continue
            if len(data) > self._size:
                counters["datagrams_oversized"] += 1
            elif not name[1]:
                # Drop a datagram from port 0, because this node could not send an answer to port 0.
                counters["datagrams_malformed"] += 1
            else:
                counters["datagrams_received"] += 1
                deliver(self._receive, data, normalised(name[0], name[1]), counters)

    def _next_datagram(self, sock: socket.socket) -> tuple[bytes, Any]:
        """Receive one datagram, and return it with its sender's address. Raises ``OSError``."""
        return sock.recvfrom(self._size + 1)

    def send(self, transmit: Transmit) -> None:
        """See :class:`Transport`."""
        if self._sock is None:
            self._counters["datagrams_unsendable"] += 1
        elif self._streams is not None and (transmit.reliable or len(transmit.data) > self._datagram):
            self._streams.send(transmit.to, transmit.data)
        elif self._queue:
            self._enqueue(transmit)
        elif not self._send_now(self._sock, transmit):
            self._loop.add_writer(self._sock, self._write)
            self._enqueue(transmit)

    def send_rumor(self, rumor: Rumor) -> None:
        """See :class:`Transport`."""
        for target in rumor.targets:
            self.send(Transmit(target, rumor.data))

    def _enqueue(self, transmit: Transmit) -> None:
        if len(self._queue) >= self._buffer:
            self._counters["datagrams_dropped_queue"] += 1
        else:
            self._queue.append(transmit)

    def _write(self) -> None:
        if self._sock is None:
            return
        while self._queue:
            if not self._send_now(self._sock, self._queue[0]):
                return
            self._queue.popleft()
        self._loop.remove_writer(self._sock)

    def _send_now(self, sock: socket.socket, transmit: Transmit) -> bool:
        """Pass one datagram to the kernel. Returns False if the kernel's buffer is full."""
        to = transmit.to
        try:
            self._send_from_own(sock, transmit.data, to)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE and self._streams is not None:
                self._streams.send(to, transmit.data)
            else:
                self._counters["datagrams_unsendable"] += 1
            return True
        self._counters["datagrams_sent"] += 1
        return True

    def _send_from_own(self, sock: socket.socket, data: bytes, to: Address) -> None:
        """Send one datagram from the address ``own``. While the host lacks ``own``, use another address of the host.

        Raises the same ``OSError`` as ``sendto``, but none if only the source address ``own`` was missing.
        """
        six = ":" in to.ip
        name = (f"::ffff:{to.ip}" if self._mapped and not six else to.ip, to.port)
        control = self._source.control(six)
        try:
            if control:
                sock.sendmsg((data,), control, 0, name)
            else:
                sock.sendto(data, name)
        except OSError as error:
            if not control or not absent(error):
                raise
            # if the kernel refused the destination instead of the source, this second call raises the error again
            sock.sendto(data, name)
            self._source.refused(error)
        else:
            self._source.sent(six, control)

    async def close(self) -> None:
        """See :class:`Transport`."""
        sock = self._sock
        if sock is None:
            return
        deadline = self._loop.time() + 1.0
        # Polling is good enough here, because a process closes its transport only once.
        while self._queue and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._counters["datagrams_dropped_kernel"] = _kernel_drops(sock)
        self._counters["datagrams_dropped_queue"] += len(self._queue)
        self._queue.clear()
        self._sock = None
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)
        sock.close()
        if self._streams is not None:
            await self._streams.close(grace=1.0)
            self._streams = None


def _kernel_drops(sock: socket.socket) -> int:
    """Number of datagrams that the kernel dropped because the receive buffer was full (SK_MEMINFO_DROPS)."""
    try:
        info = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    except OSError:
        return 0
    values = struct.unpack(f"={len(info) // 4}I", info)
    return values[_MEMINFO_DROPS] if len(values) > _MEMINFO_DROPS else 0
