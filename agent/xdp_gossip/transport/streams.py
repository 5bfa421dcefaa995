# SPDX-License-Identifier: MIT
"""Sends and receives frames over TCP for every transport that uses frames.

A connection carries frames in one direction only: each node opens its own connections to its peers. One timer checks
the deadlines of all connections once a second. The classes limit the connections, bytes and time that a peer can use,
because peers are not trusted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import cast

from ..common.internal_errors import RECORD, guarded, watch
from ..core.types import Address
from . import Receive, normalised
from .accepting import Listener
from .frames import SLACK, FrameDecoder, FrameError, encode
from .sockets import closing_on_error
from .source import Source

DIAL_DEADLINE_S = 3.0
#: If a connection has not been able to send any data for this number of seconds, it is closed and its queued frames are
#: dropped.
WRITE_DEADLINE_S = 10.0
#: Maximum seconds from the first to the last byte of a received frame.
FRAME_DEADLINE_S = 10.0
OUTGOING_IDLE_S = 30.0
#: Seconds without a frame after which an incoming connection is closed. The value is greater than ``OUTGOING_IDLE_S``,
#: so that not the receiver but the sender of frames closes an idle connection. Only the sender can know that no frame
#: is in flight.
INCOMING_IDLE_S = 60.0
MAX_OUTGOING = 256
MAX_INCOMING = 512
#: Maximum number of connections from one address. The limit does not apply to loopback addresses, because many agents
#: on this host may use the same loopback address.
MAX_INCOMING_PER_ADDRESS = 32
#: Number of rejected frames in a row after which a connection is closed. A peer that sends so many rejected frames has
#: a different secret or is an attacker.
MAX_REFUSED = 64
#: Maximum number of frames that one connection delivers in one turn of the event loop.
BURST = 64
_HIGH_WATER = 256 * 1024
#: While a queue contains at most this number of bytes, the limit on the number of its frames does not apply. The
#: answers to two requests for chunks (core/sync/fetch.py) are queued at once, and a limit of a few frames would drop
#: some of them.
QUEUE_BYTES = 512 * 1024
_SWEEP_S = 1.0

COUNTERS = (
    "frames_received",
    "frames_sent",
    "frames_malformed",
    "frames_dropped_queue",
    "frames_dropped_dial",
    "frames_dropped_broken",
    "frames_dropped_stalled",
    "frames_dropped_peers",
    "frames_dropped_oversized",
    "connections_accepted",
    "connections_evicted",
    "connections_refused",
    "connections_stalled",
    "connections_idle",
    "dials",
    "dials_failed",
    "receive_errors",
    "accept_errors",
)


class Streams:
    """A listener for incoming connections, and a pool of outgoing connections.

    ``size``: maximum bytes of a packet. ``buffer``: maximum number of frames queued for one peer. The maximum does not
    apply while the queue has at most :data:`QUEUE_BYTES` bytes. ``counters`` and ``source``: the counters and the
    :class:`Source` of the transport.
    """

    def __init__(self, size: int, buffer: int, counters: dict[str, int], source: Source) -> None:
        self.limit = size + SLACK
        self.buffer = buffer
        self.counters = counters
        for name in COUNTERS:
            counters.setdefault(name, 0)
        self.receive: Receive = _nowhere
        self.incoming: OrderedDict[Incoming, None] = OrderedDict()
        self.outgoing: OrderedDict[Address, Outgoing] = OrderedDict()
        #: All connections whose sockets may still be open, incoming and outgoing.
        self.alive: set[_Connection] = set()
        self.source = source
        self._listener: Listener | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self.open = False

    def start(self, sock: socket.socket, receive: Receive) -> None:
        """Accept connections on a listening ``sock``, and pass their packets to ``receive``."""
        self.loop = asyncio.get_running_loop()
        self.receive = receive
        self._listener = Listener(lambda: Incoming(self), sock, self.counters, "accept_errors", "gossip port")
        self.open = True
        self._sweeper = self.loop.call_later(_SWEEP_S, guarded("connections", self._sweep))

    def send(self, to: Address, packet: bytes) -> None:
        """Queue one packet for ``to``, and open a connection if there is none."""
        if not 1 <= len(packet) <= self.limit:
            self.counters["frames_dropped_oversized"] += 1
            return
        peer = self.outgoing.get(to)
        if peer is None:
            if not self.open or not self._make_room():
                self.counters["frames_dropped_peers"] += 1
                return
            peer = self.outgoing[to] = Outgoing(self, to)
            peer.dial()
        self.outgoing.move_to_end(to)
        peer.send(packet)

    def _make_room(self) -> bool:
        if len(self.outgoing) < MAX_OUTGOING:
            return True
        for peer in self.outgoing.values():
            if peer.drained:
                peer.drop("connections_evicted")
                return True
        return False

    def admit(self, connection: Incoming) -> None:
        """Add a new incoming connection, and close an older connection if there are now too many connections.

        The method first closes connections that have never delivered an accepted packet, so that strangers cannot
        displace members' connections. If several connections may be closed, the method closes the least recently used
        one.
        """
        self.counters["connections_accepted"] += 1
        same = [other for other in self.incoming if other.source.ip == connection.source.ip]
        if len(same) >= MAX_INCOMING_PER_ADDRESS and not _is_loopback(connection.source.ip):
            _evict(same)
        elif len(self.incoming) >= MAX_INCOMING:
            _evict(self.incoming)
        self.incoming[connection] = None

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(_SWEEP_S, guarded("connections", self._sweep))
        now = self.loop.time()
        for connection in [*self.incoming, *self.outgoing.values()]:
            connection.check_deadlines(now)

    async def close(self, grace: float) -> None:
        """Send the queued packets, for at most ``grace`` seconds, then close all connections."""
        self.open = False
        if self._listener is not None:
            self._listener.close()
        deadline = self.loop.time() + grace
        # Polling is good enough here, because a process closes its transport only once.
        while any(not peer.drained for peer in self.outgoing.values()) and self.loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if self._sweeper is not None:
            self._sweeper.cancel()
        tasks = [peer.dialling for peer in self.outgoing.values() if peer.dialling is not None]
        for peer in list(self.outgoing.values()):
            peer.lose("frames_dropped_broken")
        for connection in list(self.incoming):
            connection.drop("connections_idle", count=0)
        await asyncio.gather(*tasks, return_exceptions=True)
        # asyncio calls connection_made() for the last accepted connections within a few turns of the event loop, and
        # connection_made() closes these connections.
        for _ in range(5):
            await asyncio.sleep(0)
        # Polling is good enough here, because a process closes its transport only once.
        while self.alive:  # noqa: ASYNC110
            await asyncio.sleep(0)


def _evict(connections: Collection[Incoming]) -> None:
    """Close the least recently used connection among those that have delivered no accepted packet.

    If every connection has delivered an accepted packet, close the least recently used of all connections.
    ``connections``: sorted by last use.
    """
    strangers = (connection for connection in connections if not connection.proven)
    next(strangers, next(iter(connections))).drop("connections_evicted")


def _is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip).is_loopback


def _nowhere(data: bytes, source: Address, screened: bool = False) -> bool:
    """Reject a packet. A :class:`Streams` object uses this receiver until the transport is open."""
    return False


class _Connection(asyncio.Protocol):
    """Base class of incoming and outgoing connections.

    The class closes a connection only once, and increments the counter for the reason of the close.
    """

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.streams.alive.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.streams.alive.discard(self)
        self.forget()

    def drop(self, counter: str, count: int = 1) -> None:
        """Close the connection without waiting for the peer, and add ``count`` to the counter named ``counter``."""
        self.streams.counters[counter] += count
        self.forget()
        if self.transport is not None:
            self.transport.abort()

    def forget(self) -> None:
        """Remove the connection from its pool."""

    def check_deadlines(self, now: float) -> None:
        """Close the connection if it is idle or stalled. ``now``: time of the event loop in seconds."""


class Incoming(_Connection):
    """A connection that a peer opened to this node.

    The class decodes the frames and delivers their packets to the receiver.
    """

    def __init__(self, streams: Streams) -> None:
        super().__init__(streams)
        self.source = Address("0.0.0.0", 1)
        self._decoder = FrameDecoder(streams.limit)
        self._useful = self._begun = streams.loop.time()
        self._scheduled = False
        self._refused = 0  # Number of rejected frames in a row.
        #: Whether the connection has delivered an accepted packet, which shows that the peer is a member.
        self.proven = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        if not self.streams.open or name is None:
            self.drop("connections_evicted")
            return
        self.source = normalised(name[0], name[1])
        self.streams.admit(self)

    def data_received(self, data: bytes) -> None:
        if not self._decoder.partial:
            self._begun = self.streams.loop.time()
        self._decoder.feed(data)
        if not self._scheduled:
            self._hand_on()

    def _hand_on(self) -> None:
        """Deliver complete packets, at most ``BURST`` in one turn, so that a busy peer does not delay other peers."""
        self._scheduled = False
        if self not in self.streams.incoming:
            return
        assert self.transport is not None
        for _ in range(BURST):
            try:
                packet = self._decoder.take()
            except FrameError:
                self.drop("frames_malformed")
                return
            if packet is None:
                self.transport.resume_reading()
                return
            self._useful = self._begun = self.streams.loop.time()
            self.streams.incoming.move_to_end(self)
            self.streams.counters["frames_received"] += 1
            if deliver(self.streams.receive, packet, self.source, self.streams.counters):
                self._refused = 0
                self.proven = True
            else:
                self._refused += 1
            if self._refused >= MAX_REFUSED:
                self.drop("connections_refused")
                return
            if self not in self.streams.incoming:
                return
        self._scheduled = True
        self.transport.pause_reading()
        self.streams.loop.call_soon(guarded("connections", self._hand_on))

    def check_deadlines(self, now: float) -> None:
        if self._decoder.partial and now - self._begun > FRAME_DEADLINE_S:
            self.drop("connections_stalled")
        elif now - self._useful > INCOMING_IDLE_S:
            self.drop("connections_idle")

    def forget(self) -> None:
        self.streams.incoming.pop(self, None)


class Outgoing(_Connection):
    """A connection to one peer.

    The first queued frame opens the connection. When the connection is idle, stalled or broken, it is closed.
    """

    def __init__(self, streams: Streams, to: Address) -> None:
        super().__init__(streams)
        self.to = to
        self.dialling: asyncio.Task[None] | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._paused = True
        self._written = self._flushed = 0
        self._progress = streams.loop.time()

    @property
    def drained(self) -> bool:
        """Whether all queued frames have been passed to the kernel."""
        return not self._queue and (self.transport is None or self.transport.get_write_buffer_size() == 0)

    def dial(self) -> None:
        """Start to connect in a background task."""
        self.streams.counters["dials"] += 1
        self.dialling = self.streams.loop.create_task(self._dial())
        watch(self.dialling, "connections")

    async def _dial(self) -> None:
        try:
            await asyncio.wait_for(self._connect(), DIAL_DEADLINE_S)
        except (OSError, asyncio.TimeoutError):
            self.streams.counters["dials_failed"] += 1
            self.lose("frames_dropped_dial")
        finally:
            self.dialling = None

    async def _connect(self) -> None:
        loop = self.streams.loop
        sock = await self.streams.source.connect(loop, self.to)
        with closing_on_error(sock):
            await loop.create_connection(lambda: self, sock=sock)

    def send(self, packet: bytes) -> None:
        """Write or queue one packet."""
        if len(self._queue) >= self.streams.buffer and self._queued + len(packet) > QUEUE_BYTES:
            self.streams.counters["frames_dropped_queue"] += 1
            return
        if self.drained:
            self._progress = self.streams.loop.time()
        self._queue.append(packet)
        self._queued += len(packet)
        self._flush()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.streams.outgoing.get(self.to) is not self:
            self.drop("frames_dropped_broken", count=0)
            return
        assert self.transport is not None
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._progress = self.streams.loop.time()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def _flush(self) -> None:
        while self._queue and not self._paused and self.transport is not None and not self.transport.is_closing():
            packet = self._queue.popleft()
            self._queued -= len(packet)
            frame = encode(packet)
            self._written += len(frame)
            self.transport.write(frame)
            self.streams.counters["frames_sent"] += 1

    def data_received(self, data: bytes) -> None:
        """Close the connection.

        A member sends no data on a connection that it has accepted, so the peer is not a member.
        """
        self.streams.counters["frames_malformed"] += 1
        self.lose("frames_dropped_broken")

    def connection_lost(self, exc: Exception | None) -> None:
        self.streams.alive.discard(self)
        self.lose("frames_dropped_broken")

    def lose(self, counter: str) -> None:
        """Close the connection, drop its queued frames, and add their number to the counter named ``counter``."""
        lost, self._queued = len(self._queue), 0
        self._queue.clear()
        self.drop(counter, count=lost)

    def check_deadlines(self, now: float) -> None:
        if self.transport is None:
            return
        flushed = self._written - self.transport.get_write_buffer_size()
        if flushed != self._flushed:
            self._flushed, self._progress = flushed, now
        if not self.drained and now - self._progress > WRITE_DEADLINE_S:
            self.streams.counters["connections_stalled"] += 1
            self.lose("frames_dropped_stalled")
        elif self.drained and now - self._progress > OUTGOING_IDLE_S:
            self.drop("connections_idle")

    def forget(self) -> None:
        if self.streams.outgoing.get(self.to) is self:
            del self.streams.outgoing[self.to]
        if self.dialling is not None:
            self.dialling.cancel()


def deliver(receive: Receive, packet: bytes, source: Address, counters: dict[str, int]) -> bool:
    """Pass a packet to the receiver, and return False if the receiver rejected it.

    If the receiver raises an exception, the function records it and returns True, so that the socket stays open.
    """
    try:
        return receive(packet, source) is not False
    except Exception as error:
        counters["receive_errors"] += 1
        RECORD.add("packet", error)
        return True
