# SPDX-License-Identifier: MIT
"""The UDP transport with a kernel data plane below it, if there is one.

Rumors of other nodes do not come through the socket: the kernel judges, records and relays them, and passes news
through its ring buffer. The agent's own rumor goes out as one datagram, the carrier, which the kernel turns into as
many copies as its fan-out byte says. Direct packets and frames use the sockets.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from ..common.internal_errors import guarded
from ..core.events import Rumor, Transmit
from ..core.types import Address
from ..transport import Receive
from ..transport.source import IP_PKTINFO, packet_info
from ..transport.streams import deliver
from ..transport.udp import DATAGRAM, UdpTransport
from . import headers, layout
from .maps import DataPlane

_log = logging.getLogger(__name__)

#: Records of the ring buffer read per wake-up, so that a flood leaves time for timers and the API.
BURST = 128

COUNTERS = (
    "plane_news",
    "plane_questions",
    "plane_unresolved",
    "plane_malformed",
    "plane_errors",
    "plane_table_full",
    "carriers_sent",
    "carriers_refused",
    "carriers_lost",
    "plane_passed_by",
    "plane_elsewhere",
)

#: All nodes of the link: needs no neighbour entry and no route. The data plane never lets it leave the host.
EVERYBODY_4, EVERYBODY_6 = "224.0.0.1", "ff02::1"
_FANOUT = 82  # offset of the fan-out byte (bpf/wire.h)
_RUMOR_BYTES = 88
_PKTINFO, _PKTINFO6 = struct.Struct("=i4s4s"), struct.Struct("=16si")
#: Room for either of them.
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO6.size) + socket.CMSG_SPACE(_PKTINFO.size)
_LOOPBACK = 1
_MAPPED = bytes(10) + b"\xff\xff"


class KernelTransport(UdpTransport):
    """See :class:`xdp_gossip.transport.Transport` and :class:`UdpTransport`, whose parameters it takes.

    ``own`` is the address that the data plane knows this node by. Without a plane it works as plain UDP.
    """

    def __init__(self, listen: Address | tuple[str, int], own: Address, *, size: int = 16384, buffer: int = 64) -> None:
        super().__init__(listen, size=size, buffer=buffer, own=own)
        self._counters.update(dict.fromkeys(COUNTERS, 0))
        constants = headers.constants()
        self._copies = constants["XG_COPIES"]
        self._news, self._ask = constants["XG_EVENT_NEWS"], constants["XG_EVENT_ASK"]
        self._unresolved = constants["XG_EVENT_UNRESOLVED"]
        self._own = own
        self._carried = 0  # carriers that the kernel has multiplied, as it counts them itself
        self._arrival: tuple[int, bytes] | None = None  # interface and destination of the datagram being read
        self.plane: DataPlane | None = None
        #: What the host said of the carrier that it refused last.
        self.refusal = ""

    @property
    def name(self) -> str:
        """The mode: that of the data plane, or UDP without one."""
        return self.plane.mode if self.plane is not None else "UDP"

    async def open(self, receive: Receive) -> None:
        """See :class:`Transport`."""
        await super().open(partial(self._noting, receive))
        self._receive_from_plane = receive
        assert self._sock is not None
        # Else every carrier came back to whoever listens on all addresses.
        if self._mapped:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)

    def use(self, plane: DataPlane) -> None:
        """Use ``plane`` from now on. Call it after :meth:`open`. Raises ``MapError``."""
        self.leave_plane()
        self._carried = plane.counter("fanout")
        self.plane = plane
        self._loop.add_reader(plane.events_fd, guarded("data plane", self._read_events))

    def leave_plane(self) -> None:
        """Continue over the sockets alone."""
        plane, self.plane = self.plane, None
        if plane is not None:
            self._loop.remove_reader(plane.events_fd)
            plane.close()

    def note_no_room(self) -> None:
        """Note that the kernel's table has no room for a peer, whose rumors the agent keeps judging itself."""
        self._counters["plane_table_full"] += 1

    def count(self, name: str) -> None:
        """Add to a counter of the steering, made with :meth:`add_counters`."""
        self._counters[name] += 1

    def add_counters(self, names: Iterable[str]) -> None:
        """Show further counters among the transport's, from the start."""
        self._counters.update(dict.fromkeys(names, 0))

    # -- in ----------------------------------------------------------------------------------------------------

    def _next_datagram(self, sock: socket.socket) -> tuple[bytes, Any]:
        """See :class:`UdpTransport`; with a plane, where the datagram came in is noted too."""
        if self.plane is None:
            return super()._next_datagram(sock)
        data, ancillary, _, name = sock.recvmsg(self._size + 1, _ANCILLARY)
        self._arrival = _arrival(ancillary)
        return data, name

    def _noting(self, receive: Receive, data: bytes, source: Address, screened: bool = False) -> bool | None:
        """Pass on a packet from a socket, and count a rumor that the programs should have taken.

        Rumors that arrived by another interface (including loopback), or for another address of this host, do not
        count. A process on this host can make its packets look as if they arrived by the interface.
        """
        arrival, self._arrival = self._arrival, None
        taken = receive(data, source)
        plane = self.plane
        if not taken or arrival is None or plane is None or source.ip == self._own.ip:
            return taken
        index, destination = arrival
        if index == plane.loaded.ifindex and destination == self._own.packed:
            self._counters["plane_passed_by"] += 1
        elif index != plane.loaded.ifindex and index != _LOOPBACK:
            self._counters["plane_elsewhere"] += 1
        return taken

    def _read_events(self) -> None:
        """Read one burst. Records that are left make the descriptor readable in the next turn of the loop."""
        plane = self.plane
        if plane is None:
            return
        records: list[bytes] = []
        try:
            plane.consume(records.append, BURST)
        except OSError as error:
            self._counters["plane_errors"] += 1
            _log.error("ring buffer of the data plane not read: %s", error)
        for record in records:
            self._take(record)

    def _take(self, record: bytes) -> None:
        """Take one record: ``struct xg_event`` and a packet."""
        counters = self._counters
        head = layout.EVENT.size
        try:
            _, addr, port, length, kind = layout.EVENT.unpack_from(record)
            address = Address.unpack(addr, int.from_bytes(port, "big"))
        except (struct.error, ValueError):
            counters["plane_malformed"] += 1
            return
        packet = record[head : head + length]
        if len(packet) != length or kind not in (self._news, self._ask, self._unresolved):
            counters["plane_malformed"] += 1
        elif kind == self._unresolved:
            counters["plane_unresolved"] += 1
            # The stack resolves the neighbour, so the kernel can send the next copy itself.
            self.send(Transmit(address, packet))
        elif kind == self._news:
            counters["plane_news"] += 1
            deliver(partial(self._receive_from_plane, screened=True), packet, address, counters)
        else:
            counters["plane_questions"] += 1
            deliver(self._receive_from_plane, packet, address, counters)

    # -- out ---------------------------------------------------------------------------------------------------

    def send_rumor(self, rumor: Rumor) -> None:
        """Send one carrier if the kernel has as many targets, otherwise one packet for each target.

        A carrier that cannot be sent is replaced by one packet for each target, too.
        """
        count = len(rumor.targets)
        if self._can_carry(len(rumor.data), count) and self._send_carrier(rumor.data, count):
            return
        super().send_rumor(rumor)

    def _can_carry(self, length: int, count: int) -> bool:
        plane = self.plane
        return (
            plane is not None
            and 1 < count <= min(self._copies, plane.ring_size)
            and _RUMOR_BYTES <= length <= DATAGRAM
            and not self._queue  # it must not overtake what waits
        )

    def _send_carrier(self, data: bytes, count: int) -> bool:
        sock, plane = self._sock, self.plane
        if sock is None or plane is None:
            return False
        carrier = bytearray(data)
        carrier[_FANOUT] = count
        index, port = plane.loaded.ifindex, self._own.port
        to: tuple[str, int] | tuple[str, int, int, int]
        if ":" in self._own.ip:
            to = (EVERYBODY_6, port, 0, index)
        else:
            to = (f"::ffff:{EVERYBODY_4}" if self._mapped else EVERYBODY_4, port)
        try:
            sock.sendmsg([carrier], [packet_info(self._own, index)], 0, to)
        except OSError as error:
            # A full buffer or a firewall: separate packets may still get through.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self._counters["carriers_refused"] += 1
                self.refusal = error.strerror or str(error)
            return False
        self._counters["carriers_sent"] += 1
        return self._multiplied(plane)

    def _multiplied(self, plane: DataPlane) -> bool:
        """Whether the kernel took the carrier sent last; it has counted it by the time that the call returns.

        The stack can lose a packet without a word: with no room in the neighbour table for its group, or with the
        program detached by somebody. This rumor is then sent one by one; steering judges the plane by the counter.
        """
        try:
            counted = plane.counter("fanout")
        except OSError:  # steering will find out why
            return False
        if counted > self._carried:
            self._carried = counted
            return True
        if not self._counters["carriers_lost"]:
            _log.warning(
                "an own rumor was not multiplied on %s: is xg_tc_egress attached, the neighbour table full? "
                "It is sent one by one; said once, carriers_lost counts on",
                plane.loaded.interface,
            )
        self._counters["carriers_lost"] += 1
        return False

    async def close(self) -> None:
        """See :class:`Transport`."""
        self.leave_plane()
        await super().close()


def _arrival(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, bytes] | None:
    """Interface that a datagram came in by, and the address (16 bytes) that it was sent to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= _PKTINFO6.size:
            destination, index = _PKTINFO6.unpack_from(data)
            return index, destination
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) >= _PKTINFO.size:
            index, _, destination = _PKTINFO.unpack_from(data)
            return index, _MAPPED + destination
    return None
