# SPDX-License-Identifier: MIT
"""A UDP transport that uses a kernel data plane if one is loaded.

Rumors of other nodes do not arrive through the socket: the kernel validates, records and relays them, and reports new
information through its ring buffer. The agent sends its own rumor as one datagram, the carrier, and the kernel sends as
many copies of the carrier as the carrier's fan-out byte requests. Direct packets and frames use the sockets.
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

#: Maximum records of the ring buffer that are read per wake-up, so that a flood leaves time for timers and the API.
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

#: Multicast address of all nodes on the link. A packet to this address needs no neighbour entry and no route. The data
#: plane never lets a packet to this address leave the host.
EVERYBODY_4, EVERYBODY_6 = "224.0.0.1", "ff02::1"
_FANOUT = 82  # Offset of the fan-out byte (bpf/wire.h).
_RUMOR_BYTES = 88
_PKTINFO, _PKTINFO6 = struct.Struct("=i4s4s"), struct.Struct("=16si")
#: Buffer size for both kinds of ancillary data (IPv4 and IPv6).
_ANCILLARY = socket.CMSG_SPACE(_PKTINFO6.size) + socket.CMSG_SPACE(_PKTINFO.size)
_LOOPBACK = 1
_MAPPED = bytes(10) + b"\xff\xff"


class KernelTransport(UdpTransport):
    """A :class:`UdpTransport`, with the same parameters, that sends rumors through a data plane.

    ``own`` is this node's address in the data plane's configuration. Without a data plane, the transport is plain UDP.
    """

    def __init__(self, listen: Address | tuple[str, int], own: Address, *, size: int = 16384, buffer: int = 64) -> None:
        super().__init__(listen, size=size, buffer=buffer, own=own)
        self._counters.update(dict.fromkeys(COUNTERS, 0))
        constants = headers.constants()
        self._copies = constants["XG_COPIES"]
        self._news, self._ask = constants["XG_EVENT_NEWS"], constants["XG_EVENT_ASK"]
        self._unresolved = constants["XG_EVENT_UNRESOLVED"]
        self._own = own
        self._carried = 0  # Number of carriers that the kernel has multiplied, as last read from the kernel's counter.
        # Interface and destination address of the datagram that is being read.
        self._arrival: tuple[int, bytes] | None = None
        self.plane: DataPlane | None = None
        #: Error message for the last carrier that the host refused to send.
        self.refusal = ""

    @property
    def name(self) -> str:
        """The mode of the data plane; UDP without a data plane."""
        return self.plane.mode if self.plane is not None else "UDP"

    async def open(self, receive: Receive) -> None:
        """See :class:`Transport`."""
        await super().open(partial(self._noting, receive))
        self._receive_from_plane = receive
        assert self._sock is not None
        # Multicast loopback is switched off: otherwise every program on this host that listens on all addresses would
        # receive each carrier.
        if self._mapped:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)

    def use(self, plane: DataPlane) -> None:
        """Start to use ``plane``. Must be called after :meth:`open`. Raises ``MapError``."""
        self.leave_plane()
        self._carried = plane.counter("fanout")
        self.plane = plane
        self._loop.add_reader(plane.events_fd, guarded("data plane", self._read_events))

    def leave_plane(self) -> None:
        """Stop using the data plane; all packets go through the sockets."""
        plane, self.plane = self.plane, None
        if plane is not None:
            self._loop.remove_reader(plane.events_fd)
            plane.close()

    def note_no_room(self) -> None:
        """Count a peer for which the kernel's table of nodes has no room.

        The agent itself continues to process that peer's rumors.
        """
        self._counters["plane_table_full"] += 1

    def count(self, name: str) -> None:
        """Increment a counter that was registered with :meth:`add_counters`."""
        self._counters[name] += 1

    def add_counters(self, names: Iterable[str]) -> None:
        """Add counters with the value 0 to the transport's counters."""
        self._counters.update(dict.fromkeys(names, 0))

    # -- in ----------------------------------------------------------------------------------------------------

    def _next_datagram(self, sock: socket.socket) -> tuple[bytes, Any]:
        """Receive a datagram as :class:`UdpTransport` does.

        With a data plane, also store the interface on which the datagram arrived.
        """
        if self.plane is None:
            return super()._next_datagram(sock)
        data, ancillary, _, name = sock.recvmsg(self._size + 1, _ANCILLARY)
        self._arrival = _arrival(ancillary)
        return data, name

    def _noting(self, receive: Receive, data: bytes, source: Address, screened: bool = False) -> bool | None:
        """Pass on a packet from a socket, and count a rumor that the data plane should have processed.

        A rumor that arrived on another interface (including loopback), or for another address of this host, is not
        counted. A process on this host can forge packets that seem to arrive on the interface, so the count proves no
        fault of the data plane.
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
        """Read one burst of records. If records remain, the descriptor stays readable for the next turn of the event
        loop.
        """
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
        """Process one record of the ring buffer: ``struct xg_event`` followed by a packet."""
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
            # When the agent sends this packet, the stack resolves the neighbour, so the data plane can send the next
            # copy itself.
            self.send(Transmit(address, packet))
        elif kind == self._news:
            counters["plane_news"] += 1
            deliver(partial(self._receive_from_plane, screened=True), packet, address, counters)
        else:
            counters["plane_questions"] += 1
            deliver(self._receive_from_plane, packet, address, counters)

    # -- out ---------------------------------------------------------------------------------------------------

    def send_rumor(self, rumor: Rumor) -> None:
        """Send one carrier, or one packet per target if the kernel has fewer relay targets than the rumor needs.

        The kernel copies a carrier to its relay targets.
        If the carrier cannot be sent, the rumor is also sent as one packet per target.
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
            and not self._queue  # a carrier must not overtake queued packets
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
            # The cause of the error is a full buffer or a firewall; it may still be possible to send separate packets.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self._counters["carriers_refused"] += 1
                self.refusal = error.strerror or str(error)
            return False
        self._counters["carriers_sent"] += 1
        return self._multiplied(plane)

    def _multiplied(self, plane: DataPlane) -> bool:
        """Whether the kernel multiplied the last carrier. The kernel counts a carrier before the send call returns.

        The stack drops a carrier without an error if the neighbour table has no room for the multicast address. The
        kernel does not multiply a carrier if someone has detached our program from the interface. If the kernel did not
        multiply the carrier, the caller sends one packet per target. Steering judges the data plane by the counter
        ``carriers_lost``.
        """
        try:
            counted = plane.counter("fanout")
        except OSError:  # steering detects the cause
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
    """Index of the interface on which a datagram arrived, and its destination address (16 bytes); None if unknown."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= _PKTINFO6.size:
            destination, index = _PKTINFO6.unpack_from(data)
            return index, destination
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) >= _PKTINFO.size:
            index, _, destination = _PKTINFO.unpack_from(data)
            return index, _MAPPED + destination
    return None
