# SPDX-License-Identifier: MIT
"""A TCP transport like PekoNode's: for each packet, it opens a connection, writes one JSON object, and closes the
connection.

For PekoNode's protocol ``UDP``, ``UdpTransport(..., frames=False)`` sends each packet as a datagram.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter, deque

from ..common.internal_errors import watch
from ..core.events import Transmit
from ..core.types import Address
from ..transport import Receive, normalised
from ..transport.accepting import Listener
from ..transport.listening import TcpListening
from ..transport.streams import MAX_INCOMING, MAX_INCOMING_PER_ADDRESS, MAX_OUTGOING, deliver

DIAL_DEADLINE_S = 3.0
WRITE_DEADLINE_S = 5.0
#: Seconds after which an incoming connection without a complete packet is closed.
READ_DEADLINE_S = 5.0
#: Maximum bytes of incomplete packets on all connections together. Regardless of this limit, two packets of ``size``
#: bytes are always allowed.
MAX_BUFFERED = 64 * 1024 * 1024

COUNTERS = (
    "packets_received",
    "packets_sent",
    "packets_oversized",
    "packets_dropped_memory",
    "packets_empty",
    "packets_dropped_dial",
    "packets_dropped_broken",
    "packets_dropped_queue",
    "packets_dropped_peers",
    "packets_dropped_closed",
    "connections_accepted",
    "connections_refused",
    "connections_stalled",
    "connections_broken",
    "accept_errors",
    "receive_errors",
)


class OneShotTransport(TcpListening):
    """A :class:`xdp_gossip.transport.Transport` over TCP. The parameters are those of :class:`TcpListening`.

    Like PekoNode, the transport closes a connection on which ``size`` bytes or more arrive. Each peer has its own
    queue, so a peer that does not answer does not delay other peers.
    """

    def __init__(
        self,
        listen: Address | tuple[str, int],
        *,
        size: int = 16384,
        buffer: int = 64,
        own: Address | None = None,
    ) -> None:
        super().__init__(listen, size=size, buffer=buffer, own=own)
        self.counters_.update(dict.fromkeys(COUNTERS, 0))
        self.incoming: set[_Incoming] = set()
        #: Bytes of incomplete packets on all connections together.
        self.buffered = 0
        self.per_address: Counter[str] = Counter()
        self.receive: Receive | None = None
        self._queues: dict[Address, deque[bytes]] = {}
        self._senders: dict[Address, asyncio.Task[None]] = {}
        self._server: Listener | None = None

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counters_[name] += amount

    def reaches(self, address: Address) -> bool:
        """Return True: each connection has a socket of its peer's address family. See :class:`Transport`."""
        return True

    async def open(self, receive: Receive) -> None:
        """See :class:`Transport`."""
        sock = self._listener()
        self.receive = receive
        self._loop = asyncio.get_running_loop()
        self._server = Listener(lambda: _Incoming(self), sock, self.counters_, "accept_errors", "gossip port")

    def send(self, transmit: Transmit) -> None:
        """See :class:`Transport`."""
        if self._server is None:
            return self.count("packets_dropped_closed")
        queue = self._queues.get(transmit.to)
        if queue is None:
            if len(self._queues) >= MAX_OUTGOING:
                return self.count("packets_dropped_peers")
            queue = self._queues[transmit.to] = deque()
            sender = self._senders[transmit.to] = self._loop.create_task(self._drain(transmit.to, queue))
            watch(sender, "connections")
        if len(queue) >= self._buffer:
            return self.count("packets_dropped_queue")
        queue.append(transmit.data)

    async def close(self) -> None:
        """See :class:`Transport`."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self.receive = None
        if self._senders:
            await asyncio.wait(list(self._senders.values()), timeout=1.0)
        senders = list(self._senders.values())
        for task in senders:
            task.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        for queue in self._queues.values():  # queues whose sender task was cancelled before it started
            self.count("packets_dropped_closed", len(queue))
        self._queues.clear()
        await server.settled()
        for connection in list(self.incoming):
            connection.abort()
        # asyncio closes the sockets of aborted connections in the next turn of the loop.
        await asyncio.sleep(0)

    async def _drain(self, to: Address, queue: deque[bytes]) -> None:
        """Send all packets queued for one peer, each in its own connection, then end."""
        try:
            while queue:
                outcome = await self._deliver(to, queue[0])
                if outcome == "packets_dropped_dial":
                    # Drop the whole queue, because each further packet to this peer would also fail, each after a
                    # timeout of three seconds.
                    self.count(outcome, len(queue))
                    return
                self.count(outcome)
                queue.popleft()
        except asyncio.CancelledError:
            self.count("packets_dropped_closed", len(queue))
            raise
        finally:
            self._queues.pop(to, None)
            del self._senders[to]

    async def _deliver(self, to: Address, data: bytes) -> str:
        """Send one packet to one peer. Returns the name of the counter for the outcome."""
        try:
            sock = await asyncio.wait_for(self._source.connect(self._loop, to), DIAL_DEADLINE_S)
        except (OSError, asyncio.TimeoutError):
            return "packets_dropped_dial"
        with contextlib.closing(sock):
            try:
                await asyncio.wait_for(self._loop.sock_sendall(sock, data), WRITE_DEADLINE_S)
            except (OSError, asyncio.TimeoutError):
                return "packets_dropped_broken"
        return "packets_sent"


class _Incoming(asyncio.Protocol):
    """An accepted connection, which receives one packet, delivers the packet, and closes."""

    def __init__(self, owner: OneShotTransport) -> None:
        self._owner = owner
        self._data = bytearray()
        self._end = ObjectEnd()
        self._transport: asyncio.Transport | None = None
        self._source: Address | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        owner, name = self._owner, transport.get_extra_info("peername")
        if name is None:  # gone already
            self.abort()
            return
        self._source = source = normalised(*name[:2])
        # The limit for each address does not apply to loopback, because a local cluster may share one loopback address.
        shared = source.ip == "::1" or source.ip.startswith("127.")
        crowded = owner.per_address[source.ip] >= MAX_INCOMING_PER_ADDRESS and not shared
        owner.incoming.add(self)
        owner.per_address[source.ip] += 1
        if crowded or len(owner.incoming) > MAX_INCOMING:
            self._give_up("connections_refused")
            return
        owner.count("connections_accepted")
        self._deadline = asyncio.get_running_loop().call_later(READ_DEADLINE_S, self._stalled)

    def data_received(self, data: bytes) -> None:
        if self._done:
            return
        owner = self._owner
        self._data += data
        owner.buffered += len(data)
        if len(self._data) >= owner.size:
            self._give_up("packets_oversized")
        elif owner.buffered > max(MAX_BUFFERED, 2 * owner.size):
            self._give_up("packets_dropped_memory")
        elif self._end.feed(data):
            self._hand_on()

    def eof_received(self) -> None:
        if not self._done:
            self._hand_on()

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._done:
            self._give_up("connections_broken")
        if self in self._owner.incoming and self._source is not None:
            self._owner.incoming.discard(self)
            self._owner.per_address[self._source.ip] -= 1
            if not self._owner.per_address[self._source.ip]:
                del self._owner.per_address[self._source.ip]

    def abort(self) -> None:
        """Cut the connection off."""
        self._done = True
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def _give_up(self, counter: str) -> None:
        self._owner.count(counter)
        self.abort()

    def _hand_on(self) -> None:
        self._done = True
        owner = self._owner
        if not self._data:
            owner.count("packets_empty")
        elif owner.receive is not None and self._source is not None:
            owner.count("packets_received")
            deliver(owner.receive, bytes(self._data), self._source, owner.counters_)
        self._forget()
        if self._transport is not None:
            self._transport.close()

    def _forget(self) -> None:
        self._owner.buffered -= len(self._data)
        self._data = bytearray()

    def _stalled(self) -> None:
        self._give_up("connections_stalled")


class ObjectEnd:
    """Finds the end of a JSON object in a stream, so that a packet is complete before its sender closes the connection.

    The class only tracks braces and strings. The codec checks whether the object is valid.
    """

    _MARKS = re.compile(rb'[{}"\\]')

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> bool:
        """Process the next bytes of the stream. Returns True if the JSON object ends in these bytes."""
        start = 0
        while start < len(data):
            if self._escaped:
                self._escaped = False
                start += 1
                continue
            match = self._MARKS.search(data, start)
            if match is None:
                return False
            start = match.end()
            if self._mark(match[0]):
                return True
        return False

    def _mark(self, mark: bytes) -> bool:
        if mark == b"\\":
            self._escaped = self._in_string
        elif mark == b'"':
            self._in_string = not self._in_string
        elif not self._in_string:
            self._depth += 1 if mark == b"{" else -1
            return self._depth == 0
        return False
