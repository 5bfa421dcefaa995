# SPDX-License-Identifier: MIT
"""One TCP connection for each packet, on real loopback sockets: good peers, rude ones, silent ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.patience import patient
from xdp_gossip.core.events import Transmit
from xdp_gossip.core.types import Address
from xdp_gossip.pekonode import transport
from xdp_gossip.pekonode.codec import Packet, PekoNodeId, encode
from xdp_gossip.pekonode.transport import ObjectEnd, OneShotTransport

PACKET = encode(Packet(PekoNodeId("127.0.0.1", 8000, 'brace } quote " back \\', "}{")))


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 30))


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[OneShotTransport, list[bytes]]]:
    transport = OneShotTransport(("127.0.0.1", 0), **options)
    got: list[bytes] = []
    await transport.open(lambda data, source: got.append(data))
    try:
        yield transport, got
    finally:
        await transport.close()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    for _ in range(int(patient(seconds) / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen in time")


async def dial(transport: OneShotTransport) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", transport.local.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_packets_arrive_in_order(host: str) -> None:
    async def body() -> None:
        receiver = OneShotTransport((host, 0))
        got: list[tuple[bytes, Address]] = []
        await receiver.open(lambda data, source: got.append((data, source)))
        async with opened(buffer=200) as (sender, _):
            packets = [encode(Packet(PekoNodeId("127.0.0.1", 8000, str(index)))) for index in range(200)]
            for packet in packets:
                sender.send(Transmit(receiver.local, packet))
            await until(lambda: len(got) == 200)
            assert [data for data, _ in got] == packets
            assert {source.ip for _, source in got} == {host}
            await until(lambda: sender.counters["packets_sent"] == 200)
        await receiver.close()
        assert receiver.counters["packets_received"] == receiver.counters["connections_accepted"] == 200

    run(body)


def test_sender_closes_after_each_packet() -> None:
    async def body() -> None:
        seen: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.read(-1))  # until the end: hangs unless the sender closes
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        to = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        async with opened() as (sender, _):
            sender.send(Transmit(to, PACKET))
            sender.send(Transmit(to, PACKET))
            await until(lambda: len(seen) == 2)
        server.close()
        assert seen == [PACKET, PACKET]

    run(body)


def test_packet_in_pieces_from_a_sender_that_does_not_close() -> None:
    async def body() -> None:
        async with opened() as (transport, got):
            reader, writer = await dial(transport)
            for index in range(len(PACKET)):
                writer.write(PACKET[index : index + 1])
                await writer.drain()
                if index % 40 == 0:
                    await asyncio.sleep(0.001)
            assert await reader.read() == b""  # our side closes when it has the packet
            assert got == [PACKET]
            writer.close()

    run(body)


def test_packet_ended_by_close() -> None:
    async def body() -> None:
        async with opened() as (transport, got):
            _, writer = await dial(transport)
            writer.write(b'{"cut":')
            writer.close()
            await until(lambda: len(got) == 1)
            assert got == [b'{"cut":']  # for the codec to refuse and count
            _, writer = await dial(transport)
            writer.close()
            await until(lambda: transport.counters["packets_empty"] == 1)

    run(body)


def test_oversized_is_cut_off() -> None:
    async def body() -> None:
        async with opened(size=1000) as (transport, got):
            reader, writer = await dial(transport)
            with contextlib.suppress(ConnectionError):
                writer.write(b"{" + b" " * 999)
                await writer.drain()
                await reader.read()
            await until(lambda: not transport.incoming)
            assert got == [] and transport.counters["packets_oversized"] == 1
            assert transport.counters["connections_broken"] == 0

    run(body)


@pytest.mark.slow
def test_stalled_and_broken_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_DEADLINE_S", 1.0)

    async def body() -> None:
        async with opened() as (transport, got):
            writers = [(await dial(transport))[1] for _ in range(50)]
            for writer in writers[:25]:
                writer.write(b'{"Node":')
            sock = socket.create_connection(("127.0.0.1", transport.local.port))
            sock.sendall(b"{")
            await until(lambda: len(transport.incoming) == 51)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()  # a reset
            await until(lambda: transport.counters["connections_broken"] == 1)
            await until(lambda: transport.counters["connections_stalled"] == 50)
            await until(lambda: not transport.incoming)
            assert got == [] and not transport.per_address
            for writer in writers:
                writer.close()

    run(body)


def test_too_many_connections_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_INCOMING", 5)

    async def body() -> None:
        async with opened() as (transport, got):
            writers = [(await dial(transport))[1] for _ in range(8)]
            await until(lambda: transport.counters["connections_refused"] == 3)
            writers[0].write(PACKET)
            await until(lambda: got == [PACKET])
            for writer in writers:
                writer.close()

    run(body)


@pytest.mark.slow
def test_peer_that_does_not_answer_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody waits for so long: that the packet behind them arrives proves that it did not wait for them.
    monkeypatch.setattr(transport, "DIAL_DEADLINE_S", 300.0)

    async def body() -> None:
        # A full backlog: the kernel drops further SYNs, as a host that is gone would.
        blackhole = socket.socket()
        blackhole.bind(("127.0.0.1", 0))
        blackhole.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(blackhole.getsockname())
            fillers.append(filler)
        gone = Address("127.0.0.1", blackhole.getsockname()[1])
        async with opened() as (receiver, got), opened(buffer=3) as (sender, _):
            for _ in range(5):
                sender.send(Transmit(gone, PACKET))
            assert sender.counters["packets_dropped_queue"] == 2
            sender.send(Transmit(receiver.local, PACKET))
            await until(lambda: got == [PACKET])
            assert sender.counters["packets_dropped_dial"] == 0
        monkeypatch.setattr(transport, "DIAL_DEADLINE_S", 0.1)
        async with opened(buffer=3) as (sender, _):
            for _ in range(3):
                sender.send(Transmit(gone, PACKET))
            await until(lambda: sender.counters["packets_dropped_dial"] == 3)
        for sock in [blackhole, *fillers]:
            sock.close()

    run(body)


def test_refused_and_unreachable_peers_are_counted() -> None:
    async def body() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            closed = Address("127.0.0.1", probe.getsockname()[1])
        async with opened() as (sender, _):
            sender.send(Transmit(closed, PACKET))
            sender.send(Transmit(Address("255.255.255.255", 9), PACKET))
            await until(lambda: sender.counters["packets_dropped_dial"] == 2)
        sender.send(Transmit(closed, PACKET))
        assert sender.counters["packets_dropped_closed"] == 1

    run(body)


def test_close_leaves_no_task_and_no_descriptor() -> None:
    async def body() -> None:
        before, tasks = set(os.listdir("/proc/self/fd")), asyncio.all_tasks()
        async with opened() as (receiver, _), opened() as (sender, _):
            for _ in range(20):
                sender.send(Transmit(receiver.local, PACKET))
            stalled = (await dial(receiver))[1]
        stalled.close()
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == tasks
        assert set(os.listdir("/proc/self/fd")) <= before
        assert sender.counters["packets_sent"] + sender.counters["packets_dropped_closed"] == 20

    run(body)


def test_thousand_connections_of_garbage() -> None:
    async def body() -> None:
        async with opened() as (transport, got):
            for index in range(1000):
                with socket.create_connection(("127.0.0.1", transport.local.port)) as sock:
                    sock.sendall(os.urandom(index % 50))
                await asyncio.sleep(0)
            await until(lambda: not transport.incoming)
            _, writer = await dial(transport)
            writer.write(PACKET)
            await until(lambda: got[-1:] == [PACKET])
            writer.close()

    run(body)


@given(st.lists(st.integers(1, len(PACKET) - 1)).map(sorted))
def test_end_is_found_however_the_bytes_are_cut(cuts: list[int]) -> None:
    end = ObjectEnd()
    bounds = [0, *cuts, len(PACKET)]
    found = [end.feed(PACKET[start:stop]) for start, stop in zip(bounds, bounds[1:])]
    assert found[-1] and not any(found[:-1])
