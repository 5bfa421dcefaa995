# SPDX-License-Identifier: MIT
"""The UDP transport with a kernel data plane below it, if there is one.

Rumors of others do not come through the socket: the kernel judges, records and relays them, and what brings news
comes through its ring buffer. Own rumors go out as one datagram, the carrier, which the kernel turns into as many
copies as its fan-out byte says. Direct packets and frames take the sockets' way.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from functools import partial

from ..core.events import Rumor, Transmit
from ..core.types import Address
from ..dataplane import headers, layout
from ..dataplane.maps import DataPlane
from . import Receive
from .source import packet_info
from .streams import deliver
from .udp import DATAGRAM, UdpTransport

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
)

#: Seconds until a carrier is tried again after one was lost.
ONE_BY_ONE = 60.0

#: All nodes of the link: needs no neighbour entry and no route. The data plane never lets it leave the host.
_EVERYBODY_4, _EVERYBODY_6 = "224.0.0.1", "ff02::1"
_FANOUT = 82  # offset of the fan-out byte (bpf/wire.h)
_RUMOR_BYTES = 88


class KernelTransport(UdpTransport):
    """See :class:`xdp_gossip.transport.Transport` and :class:`UdpTransport`, whose parameters it takes.

    ``own`` is the address that the data plane knows this node by. Without a plane it works as plain UDP.
    """

    def __init__(
        self, listen: Address | tuple[str, int], own: Address, *, size: int = 16384, buffer: int = 64
    ) -> None:
        super().__init__(listen, size=size, buffer=buffer, own=own)
        self._counters.update(dict.fromkeys(COUNTERS, 0))
        constants = headers.constants()
        self._copies = constants["XG_COPIES"]
        self._news, self._ask = constants["XG_EVENT_NEWS"], constants["XG_EVENT_ASK"]
        self._unresolved = constants["XG_EVENT_UNRESOLVED"]
        self._own = own
        self._carried = 0  # carriers that the kernel has multiplied, as it counts them itself
        self._one_by_one_until = 0.0
        self.plane: DataPlane | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """How packets travel: the data plane's mode, UDP without one."""
        return self.plane.mode if self.plane is not None else "UDP"

    async def open(self, receive: Receive) -> None:
        """See :class:`Transport`."""
        await super().open(receive)
        assert self._sock is not None
        # Else every carrier came back to whoever listens on all addresses.
        if self._mapped:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)

    def use(self, plane: DataPlane) -> None:
        """Work with ``plane`` from now on; after :meth:`open`. Raises ``MapError``."""
        self.leave_plane()
        self._carried = plane.counter("fanout")
        self._one_by_one_until = 0.0
        self.plane = plane
        self._loop.add_reader(plane.events_fd, self._read_events)

    def leave_plane(self) -> None:
        """Go on through the sockets alone."""
        plane, self.plane = self.plane, None
        if plane is not None:
            self._loop.remove_reader(plane.events_fd)
            plane.close()

    def note_no_room(self) -> None:
        """The kernel's table has no room for a peer: its rumors go on to be judged by the agent."""
        self._counters["plane_table_full"] += 1

    # -- in ----------------------------------------------------------------------------------------------------

    def _read_events(self) -> None:
        """Take a burst; what is left makes the descriptor readable in the next turn of the loop."""
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
        """One record: ``struct xg_event`` and a packet."""
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
            # The stack resolves the neighbour; the next copy for it stays in the kernel.
            self.send(Transmit(address, packet))
        elif kind == self._news:
            counters["plane_news"] += 1
            deliver(partial(self._receive, screened=True), packet, address, counters)
        else:
            counters["plane_questions"] += 1
            deliver(self._receive, packet, address, counters)

    # -- out ---------------------------------------------------------------------------------------------------

    def send_rumor(self, rumor: Rumor) -> None:
        """One carrier if the kernel has as many targets; else, and when it cannot be sent, one packet for each."""
        count = len(rumor.targets)
        if self._can_carry(len(rumor.data), count) and self._send_carrier(rumor.data, count):
            return
        super().send_rumor(rumor)

    def _can_carry(self, length: int, count: int) -> bool:
        plane = self.plane
        return (
            plane is not None
            and self._loop.time() >= self._one_by_one_until
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
            to = (_EVERYBODY_6, port, 0, index)
        else:
            to = (f"::ffff:{_EVERYBODY_4}" if self._mapped else _EVERYBODY_4, port)
        try:
            sock.sendmsg([carrier], [packet_info(self._own, index)], 0, to)
        except OSError as error:
            # A full buffer, a firewall: each target its own packet may still get through.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self._counters["carriers_refused"] += 1
            return False
        self._counters["carriers_sent"] += 1
        return self._multiplied(plane)

    def _multiplied(self, plane: DataPlane) -> bool:
        """Whether the kernel took the carrier sent last; it has counted it by the time that the call returns.

        The stack can lose a packet without a word: with no room in the neighbour table for its group, or with the
        program detached by somebody. Rumors are then sent one by one for a while.
        """
        try:
            counted = plane.counter("fanout")
        except OSError:  # steering will find out why
            return False
        if counted > self._carried:
            self._carried = counted
            return True
        self._counters["carriers_lost"] += 1
        self._one_by_one_until = self._loop.time() + ONE_BY_ONE
        _log.warning(
            "an own rumor was not multiplied on %s: is xg_tc_egress attached, the neighbour table full? "
            "Rumors are sent one by one for %g s",
            plane.loaded.interface,
            ONE_BY_ONE,
        )
        return False

    async def close(self) -> None:
        """See :class:`Transport`."""
        self.leave_plane()
        await super().close()
