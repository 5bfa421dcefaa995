# SPDX-License-Identifier: MIT
"""Both transports over real loopback sockets: order, limits, hostile peers, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Union

import pytest

from tests.support.patience import patient
from xdp_gossip.common.internal_errors import RECORD
from xdp_gossip.core.events import Transmit
from xdp_gossip.core.types import Address
from xdp_gossip.pekonode.transport import OneShotTransport
from xdp_gossip.transport import TransportError, streams, udp
from xdp_gossip.transport.frames import encode
from xdp_gossip.transport.tcp import TcpTransport
from xdp_gossip.transport.udp import UdpTransport

pytestmark = pytest.mark.slow

AnyTransport = Union[TcpTransport, UdpTransport]


class Sink:
    """Collects packets; ``until`` waits for a number of them."""

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, Address]] = []

    def __call__(self, data: bytes, source: Address) -> None:
        self.packets.append((data, source))

    @property
    def data(self) -> list[bytes]:
        return [data for data, _source in self.packets]

    async def until(self, count: int, seconds: float = 10.0) -> None:
        await eventually(lambda: len(self.packets) >= count, seconds, lambda: f"{len(self.packets)} of {count} packets")


async def eventually(
    condition: Callable[[], bool], seconds: float = 10.0, what: Callable[[], str] = lambda: "condition"
) -> None:
    deadline = asyncio.get_running_loop().time() + patient(seconds)
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what()
        await asyncio.sleep(0.005)


def run(scenario: Callable[[], Awaitable[None]], seconds: float = 60.0) -> None:
    """Run in a fresh loop; afterwards no task, no socket and no unhandled error may be left."""
    faults: list[str] = []

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: faults.append(str(context)))
        await asyncio.wait_for(scenario(), seconds)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"tasks left: {others}"

    gc.collect()  # what an earlier test left to be collected must not count as ours
    before = sockets()
    asyncio.run(guarded())
    gc.collect()
    assert sockets() == before, "sockets left open"
    assert faults == []


def sockets() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


async def opened(kind: type[AnyTransport], ip: str = "127.0.0.1", **options: int) -> tuple[AnyTransport, Sink]:
    transport, sink = kind((ip, 0), **options), Sink()
    await transport.open(sink)
    return transport, sink


async def dial(to: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(to.ip, to.port)


async def hung_up(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), seconds) == b""
    except ConnectionError:
        return True


both = pytest.mark.parametrize("kind", [TcpTransport, UdpTransport])
loopbacks = pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])


@pytest.mark.parametrize("kind", [TcpTransport, UdpTransport, OneShotTransport])
@pytest.mark.parametrize("steps", range(4))
def test_an_opening_that_is_given_up(kind: Any, steps: int) -> None:
    """Whenever that is, no socket of it goes on listening."""

    async def scenario() -> None:
        before = sockets()
        transport = kind(("127.0.0.1", 0))
        opening = asyncio.ensure_future(transport.open(Sink()))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            await transport.close()
        assert sockets() == before

    run(scenario)


@both
@loopbacks
def test_packets_of_all_sizes_arrive_in_order(kind: type[AnyTransport], ip: str) -> None:
    async def scenario() -> None:
        (a, _), (b, sink) = await opened(kind, ip), await opened(kind, ip, buffer=3000)
        sent = [bytes([n % 256]) * random.Random(n).randrange(1, 16385) for n in range(1000)]
        for n, packet in enumerate(sent):
            a.send(Transmit(b.local, packet, reliable=True))
            if n % 50 == 0:
                await sink.until(n - 10)
        await sink.until(1000)
        assert sink.data == sent
        assert b.counters["frames_received"] == a.counters["frames_sent"] == 1000
        assert a.counters["dials"] == 1, "one connection is used for all"
        assert {source.ip for _data, source in sink.packets} == {ip}
        await a.close()
        await b.close()

    run(scenario)


def test_short_packets_are_datagrams_and_long_or_reliable_ones_frames() -> None:
    async def scenario() -> None:
        (a, _), (b, sink) = await opened(UdpTransport), await opened(UdpTransport)
        a.send(Transmit(b.local, b"d" * udp.DATAGRAM))
        a.send(Transmit(b.local, b"f" * (udp.DATAGRAM + 1)))
        a.send(Transmit(b.local, b"r", reliable=True))
        await sink.until(3)
        assert sorted(sink.data) == [b"d" * udp.DATAGRAM, b"f" * (udp.DATAGRAM + 1), b"r"]
        assert a.counters["datagrams_sent"] == b.counters["datagrams_received"] == 1
        assert a.counters["frames_sent"] == b.counters["frames_received"] == 2
        (source,) = {source for data, source in sink.packets if data[:1] == b"d"}
        assert source == a.local, "a datagram comes from the listening port"
        await a.close()
        await b.close()

    run(scenario)


def test_datagrams_only_for_the_pekonode_wire() -> None:
    async def scenario() -> None:
        a = UdpTransport(("127.0.0.1", 0), datagram=16384, frames=False)
        b, sink = UdpTransport(("127.0.0.1", 0), datagram=16384, frames=False), Sink()
        await a.open(Sink())
        await b.open(sink)
        a.send(Transmit(b.local, b"x" * 16384, reliable=True))
        await sink.until(1)
        with pytest.raises(ConnectionRefusedError):
            await dial(b.local)
        a.send(Transmit(b.local, b"x" * 70000))
        assert a.counters["datagrams_unsendable"] == 1
        await a.close()
        await b.close()

    run(scenario)


@both
def test_dual_stack_hears_both_families_under_their_own_names(kind: type[AnyTransport]) -> None:
    async def scenario() -> None:
        wide, sink = await opened(kind, "::")
        four, heard = await opened(kind, "127.0.0.1")
        six, _ = await opened(kind, "::1")
        port = wide.local.port
        four.send(Transmit(Address("127.0.0.1", port), b"4"))
        six.send(Transmit(Address("::1", port), b"6"))
        await sink.until(2)
        assert {(data, source.ip) for data, source in sink.packets} == {(b"4", "127.0.0.1"), (b"6", "::1")}
        wide.send(Transmit(four.local, b"back"))
        await heard.until(1)
        for transport in (wide, four, six):
            await transport.close()

    run(scenario)


def test_udp_counts_what_is_oversized_or_cannot_be_sent() -> None:
    async def scenario() -> None:
        a, sink = await opened(UdpTransport, size=2000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"x" * 2001, (a.local.ip, a.local.port))
            stranger.sendto(b"y" * 2000, (a.local.ip, a.local.port))
            stranger.sendto(b"", (a.local.ip, a.local.port))
            await sink.until(2)
        assert sink.data == [b"y" * 2000, b""]
        assert a.counters["datagrams_oversized"] == 1
        a.send(Transmit(Address("::1", 9), b"wrong family"))
        a.send(Transmit(Address("255.255.255.255", 9), b"not permitted"))
        assert a.counters["datagrams_unsendable"] == 2
        await a.close()
        a.send(Transmit(Address("127.0.0.1", 9), b"closed"))
        assert a.counters["datagrams_unsendable"] == 3

    run(scenario)


def test_udp_counts_what_the_kernel_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "_RECEIVE_BUFFER", 4096)

    async def scenario() -> None:
        a, sink = await opened(UdpTransport)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(500):
                stranger.sendto(b"x" * 1000, (a.local.ip, a.local.port))
        dropped = a.counters["datagrams_dropped_kernel"]
        assert dropped > 0
        await sink.until(500 - dropped)
        await asyncio.sleep(0.05)
        assert len(sink.packets) + dropped == 500
        await a.close()
        assert a.counters["datagrams_dropped_kernel"] == dropped

    run(scenario)


def test_udp_queues_up_to_its_buffer_when_the_kernel_is_full() -> None:
    async def scenario() -> None:
        (a, _), (b, sink) = await opened(UdpTransport, buffer=5), await opened(UdpTransport)
        assert isinstance(a, UdpTransport)
        real = a._sock
        assert real is not None

        class Full:
            def getsockopt(self, *args: int) -> object:
                return real.getsockopt(*args)

            def fileno(self) -> int:
                return real.fileno()

            def sendto(self, *_args: object) -> None:
                raise BlockingIOError

        a._sock = Full()  # type: ignore[assignment]
        for n in range(8):
            a.send(Transmit(b.local, b"%d" % n))
        assert a.counters["datagrams_dropped_queue"] == 3
        a._sock = real
        await sink.until(5)
        assert sink.data == [b"0", b"1", b"2", b"3", b"4"]
        a.send(Transmit(b.local, b"5"))
        await sink.until(6)
        await a.close()
        await b.close()

    run(scenario)


@both
def test_a_port_in_use_is_named(kind: type[AnyTransport]) -> None:
    async def scenario() -> None:
        a, _ = await opened(kind)
        with pytest.raises(TransportError, match=rf"cannot listen on \w+ {a.local}: Address already in use"):
            await kind(a.local).open(Sink())
        await a.close()
        again = kind(a.local)
        await again.open(Sink())
        await again.close()

    run(scenario)


@both
def test_a_connection_whose_frames_are_all_refused_is_closed(kind: type[AnyTransport]) -> None:
    async def scenario() -> None:
        refused: list[bytes] = []

        def refuse(data: bytes, source: Address, screened: bool = False) -> bool | None:
            refused.append(data)
            return None if data == b"good" else False

        a = kind(("127.0.0.1", 0))
        await a.open(refuse)
        reader, writer = await dial(a.local)
        writer.write(encode(b"bad") * 63 + encode(b"good") + encode(b"bad") * 200)
        assert await hung_up(reader, 30)
        writer.close()
        assert len(refused) == 63 + 1 + 64
        assert a.counters["connections_refused"] == 1
        await a.close()

    run(scenario)


@both
def test_garbage_and_oversized_frames_close_the_connection_and_count(kind: type[AnyTransport]) -> None:
    async def scenario() -> None:
        a, sink = await opened(kind, size=1000)
        for bad in (b"GET / HTTP/1.1\r\n\r\n", bytes(4), struct.pack(">I", 1000 + streams.SLACK + 1)):
            reader, writer = await dial(a.local)
            writer.write(encode(b"good") + bad)
            assert await hung_up(reader, 2)
            writer.close()
        assert a.counters["frames_malformed"] == 3
        assert sink.data == [b"good"] * 3
        reader, writer = await dial(a.local)
        for byte in encode(b"slow but honest"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        await sink.until(4)
        writer.close()
        await a.close()

    run(scenario)


def test_random_clients_never_stop_the_listener() -> None:
    async def scenario() -> None:
        a, sink = await opened(TcpTransport)
        seeds = random.Random(5)
        for _ in range(200):
            _reader, writer = await dial(a.local)
            writer.write(seeds.randbytes(seeds.randrange(200)))
            if seeds.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()
        before = len(sink.packets)
        _reader, writer = await dial(a.local)
        writer.write(encode(b"still here"))
        await sink.until(before + 1)
        assert sink.data[-1] == b"still here"
        writer.close()
        await a.close()

    run(scenario)


@pytest.mark.slow
def test_a_stalled_frame_and_an_idle_client_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FRAME_DEADLINE_S", 0.3)
    monkeypatch.setattr(streams, "INCOMING_IDLE_S", 0.8)
    monkeypatch.setattr(streams, "_SWEEP_S", 0.05)

    async def scenario() -> None:
        a, _ = await opened(TcpTransport)
        stalled, stalled_writer = await dial(a.local)
        stalled_writer.write(struct.pack(">I", 500) + b"begun")
        silent, silent_writer = await dial(a.local)

        async def drip() -> None:
            # A byte now and then does not buy more time.
            while True:
                stalled_writer.write(b".")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await hung_up(stalled, 1)
        assert a.counters["connections_stalled"] == 1
        assert a.counters["connections_idle"] == 0
        assert await hung_up(silent, 2)
        assert a.counters["connections_idle"] == 1
        dripping.cancel()
        stalled_writer.close()
        silent_writer.close()
        await a.close()

    run(scenario)


def test_a_peer_that_reads_nothing_is_dropped_with_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_DEADLINE_S", 0.5)
    monkeypatch.setattr(streams, "_SWEEP_S", 0.05)

    async def scenario() -> None:
        a, _ = await opened(TcpTransport, buffer=20)
        b, sink = await opened(TcpTransport)
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            to = Address("127.0.0.1", deaf.getsockname()[1])
            for _ in range(1000):
                a.send(Transmit(to, b"x" * 16384))
                await asyncio.sleep(0)
            assert a.counters["frames_dropped_queue"] > 0
            await eventually(lambda: a.counters["frames_dropped_stalled"] > 0)
            assert a.counters["frames_dropped_stalled"] == streams.QUEUE_BYTES // 16384
            assert a.counters["connections_stalled"] == 1
            total = sum(a.counters[name] for name in ("frames_sent", "frames_dropped_queue", "frames_dropped_stalled"))
            assert total == 1000
            a.send(Transmit(b.local, b"others go on"))
            await sink.until(1)
        await a.close()
        await b.close()

    run(scenario)


@pytest.mark.slow
def test_a_peer_that_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody waits for so long: that the frames behind it arrive proves that they did not wait for it.
    monkeypatch.setattr(streams, "DIAL_DEADLINE_S", 300.0)

    async def scenario() -> None:
        a, _ = await opened(TcpTransport)
        b, sink = await opened(TcpTransport)
        # A full accept queue lets further SYNs go unanswered, as a host that is gone does.
        hole = socket.socket()
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
            fillers.append(filler)
        await asyncio.sleep(0.05)
        black = Address("127.0.0.1", hole.getsockname()[1])
        for n in range(3):
            a.send(Transmit(black, b"lost"))
            a.send(Transmit(b.local, b"%d" % n))
        await sink.until(3)
        assert a.counters["dials_failed"] == 0
        await a.close()
        monkeypatch.setattr(streams, "DIAL_DEADLINE_S", 0.1)
        a, _ = await opened(TcpTransport)
        for _ in range(3):
            a.send(Transmit(black, b"lost"))
        await eventually(lambda: a.counters["frames_dropped_dial"] == 3)
        assert a.counters["dials_failed"] == 1
        for sock in (*fillers, hole):
            sock.close()
        await a.close()
        await b.close()

    run(scenario)


def test_a_refused_dial_and_a_restarted_peer() -> None:
    async def scenario() -> None:
        a, _ = await opened(TcpTransport)
        b, sink = await opened(TcpTransport)
        a.send(Transmit(b.local, b"1"))
        await sink.until(1)
        await b.close()
        await eventually(lambda: not a._streams.outgoing)  # type: ignore[union-attr]
        a.send(Transmit(b.local, b"2"))
        await eventually(lambda: a.counters["frames_dropped_dial"] == 1)
        again, sink = TcpTransport(b.local), Sink()
        await again.open(sink)
        a.send(Transmit(b.local, b"3"))
        await sink.until(1)
        assert sink.data == [b"3"]
        await a.close()
        await again.close()

    run(scenario)


def test_a_thousand_connections_are_survived_and_the_useful_one_kept() -> None:
    async def scenario() -> None:
        a, _ = await opened(TcpTransport)
        b, sink = await opened(TcpTransport)
        strangers = []
        for n in range(1000):
            strangers.append((await dial(b.local))[1])
            if n % 100 == 0:
                a.send(Transmit(b.local, b"%d" % n))
                await sink.until(n // 100 + 1)
        assert len(b._streams.incoming) == streams.MAX_INCOMING  # type: ignore[union-attr]
        assert b.counters["connections_accepted"] == 1001
        assert b.counters["connections_evicted"] == 1001 - streams.MAX_INCOMING
        assert a.counters["dials"] == 1
        for writer in strangers:
            writer.close()
        await a.close()
        await b.close()

    run(scenario)


def test_strangers_take_no_members_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member's connection rests, while strangers come who are silent, or send what is refused."""
    monkeypatch.setattr(streams, "MAX_INCOMING", 4)

    async def scenario() -> None:
        a, _ = await opened(TcpTransport)
        b, sink = await opened(TcpTransport)

        def receive(data: bytes, source: Address, screened: bool = False) -> bool | None:
            return False if data == b"forged" else sink(data, source)

        b._streams.receive = receive  # type: ignore[union-attr]
        a.send(Transmit(b.local, b"1"))
        await sink.until(1)
        strangers = []
        for number in range(20):
            strangers.append((await dial(b.local))[1])
            strangers[-1].write(encode(b"forged") * (number % 3))
            await eventually(lambda number=number: b.counters["connections_accepted"] == number + 2)
        assert b.counters["connections_evicted"] == 21 - 4
        a.send(Transmit(b.local, b"2"))
        await sink.until(2)
        assert a.counters["dials"] == 1
        for writer in strangers:
            writer.close()
        await a.close()
        await b.close()

    run(scenario)


def test_one_address_gets_a_share_of_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        a, _ = await opened(TcpTransport)
        monkeypatch.setattr(streams, "_is_loopback", lambda _ip: False)
        writers = [(await dial(a.local))[1] for _ in range(50)]
        await eventually(lambda: a.counters["connections_accepted"] == 50)
        assert len(a._streams.incoming) == streams.MAX_INCOMING_PER_ADDRESS  # type: ignore[union-attr]
        assert a.counters["connections_evicted"] == 50 - streams.MAX_INCOMING_PER_ADDRESS
        monkeypatch.undo()
        for writer in writers:
            writer.close()
        await a.close()

    run(scenario)


def test_outgoing_connections_are_bounded_and_idle_ones_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_OUTGOING", 3)
    monkeypatch.setattr(streams, "OUTGOING_IDLE_S", 0.3)
    monkeypatch.setattr(streams, "_SWEEP_S", 0.05)

    async def scenario() -> None:
        a, _ = await opened(TcpTransport)
        peers = [await opened(TcpTransport) for _ in range(5)]
        for round_ in range(2):
            for peer, sink in peers:
                a.send(Transmit(peer.local, b"x"))
                await sink.until(round_ + 1)
                assert len(a._streams.outgoing) <= 3  # type: ignore[union-attr]
        assert a.counters["connections_evicted"] >= 2
        await eventually(lambda: not a._streams.outgoing)  # type: ignore[union-attr]
        assert a.counters["connections_idle"] >= 1
        for peer, _sink in peers:
            await peer.close()
        await a.close()

    run(scenario)


def test_one_busy_client_leaves_room_for_others() -> None:
    async def scenario() -> None:
        b, sink = await opened(TcpTransport)
        order: list[bytes] = []
        b._streams.receive = lambda data, _source: order.append(data)  # type: ignore[union-attr]
        _reader, busy = await dial(b.local)
        _reader, quiet = await dial(b.local)
        await asyncio.sleep(0.05)
        busy.write(encode(b"b") * 20000)
        quiet.write(encode(b"q"))
        await eventually(lambda: len(order) == 20001)
        assert order.index(b"q") < 15000
        busy.close()
        quiet.close()
        await b.close()
        assert not sink.packets

    run(scenario)


@both
def test_close_sends_what_is_queued(kind: type[AnyTransport]) -> None:
    async def scenario() -> None:
        (a, _), (b, sink) = await opened(kind), await opened(kind)
        for n in range(20):
            a.send(Transmit(b.local, b"%d" % n, reliable=True))
        await a.close()
        await a.close()
        await sink.until(20)
        await b.close()

    run(scenario)


@both
def test_a_failing_receiver_is_counted_and_costs_one_packet(kind: type[AnyTransport], caplog: object) -> None:
    async def scenario() -> None:
        a, _ = await opened(kind)
        b = kind(("127.0.0.1", 0))
        got: list[bytes] = []

        def receive(data: bytes, _source: Address) -> None:
            got.append(data)
            if data == b"1":
                raise RuntimeError("a bug")

        await b.open(receive)
        for n in range(3):
            a.send(Transmit(b.local, b"%d" % n))
        await eventually(lambda: len(got) == 3)
        assert b.counters["receive_errors"] == 1
        assert [(found.task, found.count) for found in RECORD.clear()] == [("packet", 1)]
        await a.close()
        await b.close()

    run(scenario)
