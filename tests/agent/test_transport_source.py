# SPDX-License-Identifier: MIT
"""Packets leave from the address that peers know, whatever the sockets listen on and the routes prefer."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Callable, Union

import pytest

from tests.agent.test_transport import Sink, eventually, run
from xdp_gossip.core.events import Transmit
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane.transport import KernelTransport
from xdp_gossip.pekonode.transport import OneShotTransport
from xdp_gossip.transport import normalised, source
from xdp_gossip.transport.tcp import TcpTransport
from xdp_gossip.transport.udp import UdpTransport

pytestmark = pytest.mark.slow

AnyTransport = Union[UdpTransport, TcpTransport, OneShotTransport]
#: An address of this host that no route would choose, and one that it does not have (RFC 2544).
SECOND, NOT_HERE = Address("127.64.0.2", 8000), Address("198.18.64.2", 8000)

MAKE: dict[str, Callable[[str, Address], AnyTransport]] = {
    "UDP": lambda listen, own: UdpTransport((listen, 0), own=own),
    "UDP, frames": lambda listen, own: UdpTransport((listen, 0), own=own),
    "UDP of PekoNode": lambda listen, own: UdpTransport((listen, 0), own=own, frames=False),
    "kernel": lambda listen, own: KernelTransport((listen, 0), own),
    "TCP": lambda listen, own: TcpTransport((listen, 0), own=own),
    "TCP of PekoNode": lambda listen, own: OneShotTransport((listen, 0), own=own),
}
kinds = pytest.mark.parametrize("kind", MAKE)
listens = pytest.mark.parametrize("listen", ["0.0.0.0", "::", "127.0.0.1"])


def receiver(kind: str, ip: str = "127.0.0.1") -> AnyTransport:
    """What understands the packets of a sender of this kind."""
    if kind == "TCP of PekoNode":
        return OneShotTransport((ip, 0))
    return TcpTransport((ip, 0)) if kind == "TCP" else UdpTransport((ip, 0))


async def sources(kind: str, listen: str, own: Address, packets: int = 2) -> tuple[set[str], AnyTransport]:
    """The addresses that so many packets are seen to come from, and the sender, closed."""
    sender, taker, sink = MAKE[kind](listen, own), receiver(kind), Sink()
    await taker.open(sink)
    await sender.open(Sink())
    for _ in range(packets):
        sender.send(Transmit(taker.local, b"{}", reliable=kind == "UDP, frames"))
    await sink.until(packets)
    await sender.close()
    await taker.close()
    return {address.ip for _data, address in sink.packets}, sender


@kinds
@listens
def test_packets_leave_from_the_address_that_peers_know(kind: str, listen: str) -> None:
    async def scenario() -> None:
        seen, sender = await sources(kind, listen, SECOND)
        assert seen == {SECOND.ip}
        assert sender.counters[source.COUNTER] == 0

    run(scenario)


@kinds
@listens
def test_without_the_address_the_kernel_chooses_and_every_packet_is_counted(
    kind: str, listen: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with caplog.at_level(logging.WARNING):
            seen, sender = await sources(kind, listen, NOT_HERE, packets=5)
        assert seen == {"127.0.0.1"}
        # A connection is used for all frames, but PekoNode makes one for each packet.
        assert sender.counters[source.COUNTER] == (1 if kind in ("TCP", "UDP, frames") else 5)
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 1 and f"node.addr {NOT_HERE.ip}: expected an address of this host" in told[0]

    run(scenario)


@kinds
def test_a_peer_of_the_other_family_is_reached_from_what_the_kernel_chooses(kind: str) -> None:
    async def scenario() -> None:
        sender, taker, sink = MAKE[kind]("::", SECOND), receiver(kind, "::1"), Sink()
        await taker.open(sink)
        await sender.open(Sink())
        sender.send(Transmit(taker.local, b"{}", reliable=kind == "UDP, frames"))
        await sink.until(1)
        await sender.close()
        await taker.close()
        assert {address.ip for _data, address in sink.packets} == {"::1"}
        assert sender.counters[source.COUNTER] == 0

    run(scenario)


def test_a_destination_that_the_kernel_refuses_says_nothing_of_the_source(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        sender = UdpTransport(("0.0.0.0", 0), own=SECOND)
        await sender.open(Sink())
        sender.send(Transmit(Address("255.255.255.255", 9), b"x"))  # broadcast needs SO_BROADCAST
        await eventually(lambda: sender.counters["datagrams_unsendable"] == 1)
        assert sender.counters[source.COUNTER] == 0
        await sender.close()

    run(scenario)
    assert not caplog.records


def test_a_refused_address_is_tried_again(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address comes later: as with DHCP, and with keepalived on a host that takes over."""
    real = source.packet_info

    async def scenario() -> None:
        monkeypatch.setattr(source, "packet_info", lambda own, index: real(NOT_HERE, index))
        sender, taker, sink = UdpTransport(("0.0.0.0", 0), own=SECOND), UdpTransport(("127.0.0.1", 0)), Sink()
        await taker.open(sink)
        await sender.open(Sink())
        sender.send(Transmit(taker.local, b"1"))
        sender._source._ancillary = [real(SECOND, 0)]  # the host has it now
        sender.send(Transmit(taker.local, b"2"))  # too early for another try
        monkeypatch.setattr(sender._source, "_again_at", 0.0)
        sender.send(Transmit(taker.local, b"3"))
        sender.send(Transmit(taker.local, b"4"))
        await sink.until(4)
        assert [address.ip for _data, address in sink.packets] == ["127.0.0.1", "127.0.0.1", SECOND.ip, SECOND.ip]
        assert sender.counters[source.COUNTER] == 2
        await sender.close()
        await taker.close()

    with caplog.at_level(logging.INFO, source.__name__):
        run(scenario)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_many_connections_from_one_address_do_not_use_up_the_ports() -> None:
    """bind() with port 0 would take a port for this connection alone; there are 28,000 for all peers."""

    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        one = source.Source(SECOND, "0.0.0.0", {})
        sock = await one.connect(asyncio.get_running_loop(), Address(*listener.getsockname()))
        assert sock.getsockopt(socket.IPPROTO_IP, 24) == 1, "IP_BIND_ADDRESS_NO_PORT"
        assert sock.getsockname()[0] == SECOND.ip
        sock.close()
        listener.close()

    run(scenario)


def test_a_link_local_source_has_no_zone() -> None:
    """As no address of a node has one."""
    assert normalised("fe80::1%lo", 8000) == Address("fe80::1", 8000)
