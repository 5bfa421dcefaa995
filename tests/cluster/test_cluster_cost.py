# SPDX-License-Identifier: MIT
"""What a heartbeat costs: every datagram on real sockets is counted, in one process with many members."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Callable

import pytest

from tests.support.fleet import SECRET
from tests.transports import Wrapped
from xdp_gossip import AsyncNodeList, Node, State
from xdp_gossip.core.events import Transmit
from xdp_gossip.core.members.timing import ROUND_INTERVAL
from xdp_gossip.core.observers.rings import K
from xdp_gossip.core.packets import PacketType
from xdp_gossip.transport import Transport
from xdp_gossip.wire.native import BLOCK_BYTES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_TYPE_AT = 3


@dataclass
class Meter:
    """Counts what leaves any member: packets by type, and for each single heartbeat its datagrams and receivers."""

    packets: Counter[int] = field(default_factory=Counter)
    began: dict[bytes, float] = field(default_factory=dict)
    datagrams: Counter[bytes] = field(default_factory=Counter)
    reached: defaultdict[bytes, set[object]] = field(default_factory=lambda: defaultdict(set))

    def note(self, transmit: Transmit) -> None:
        """One packet that is about to be sent. A heartbeat keeps its signed block from relay to relay."""
        self.packets[transmit.data[_TYPE_AT]] += 1
        if transmit.data[_TYPE_AT] == PacketType.HEARTBEAT:
            block = transmit.data[:BLOCK_BYTES]
            self.began.setdefault(block, time.monotonic())
            self.datagrams[block] += 1
            self.reached[block].add(transmit.to)

    def between(self, begin: float, end: float) -> list[bytes]:
        """The heartbeats that began in this time."""
        return [block for block, when in self.began.items() if begin <= when < end]


class MeteredTransport(Wrapped):
    """Tells a meter of all that it sends."""

    def __init__(self, inner: Transport, meter: Meter) -> None:
        super().__init__(inner)
        self._meter = meter

    def send(self, transmit: Transmit) -> None:
        self._meter.note(transmit)
        super().send(transmit)


class MeteredNodeList(AsyncNodeList):
    """A member whose packets a meter is told of."""

    meter: Meter

    def _make_transport(self, node: Node) -> Transport:
        return MeteredTransport(super()._make_transport(node), self.meter)


@contextlib.asynccontextmanager
async def members(count: int, cycle: float, meter: Meter) -> AsyncIterator[list[AsyncNodeList]]:
    """``count`` members on loopback that agree on the NodeList, each with a phase of its own."""
    subnet = random.SystemRandom().randrange(1, 250)
    port = random.SystemRandom().randrange(20_000, 30_000)
    nodes = [Node(f"127.78.{subnet}.{number}", port, f"node{number}") for number in range(1, count + 1)]
    lists: list[AsyncNodeList] = []
    try:
        for node in nodes:
            node_list = MeteredNodeList(
                amount=4,
                cycle=cycle,
                timeout=5 * cycle + 2,
                buffer=64,
                secret_key=SECRET,
                listen_addr=node.addr,
            )
            node_list.meter = meter
            node_list.new(node)
            node_list.set(nodes[0] if node is not nodes[0] else nodes[1])
            await node_list.join()
            lists.append(node_list)
            await asyncio.sleep(cycle / count / 2)
        deadline = time.monotonic() + 40
        while any(len(node_list.members(frozenset({State.ALIVE}))) < count for node_list in lists):
            assert time.monotonic() < deadline, "the members did not find each other"
            await asyncio.sleep(0.1)
        yield lists
    finally:
        await asyncio.gather(*(node_list.close() for node_list in lists))


@dataclass(frozen=True)
class Measured:
    """A quiet cluster between two instants."""

    sent: int  # by the transports' counters
    noted: int  # by the meter
    heartbeats: int  # originated
    dropped: int
    rounds: int  # of probes, that each member may have begun
    edges: int  # edge probes and their answers, which are of a number of their own
    datagrams: list[int]  # of each single heartbeat
    reached: list[int]  # members that each single heartbeat was addressed to, at least once


async def measure(count: int, cycle: float, seconds: float) -> Measured:
    """Let a quiet cluster run for ``seconds`` and count."""
    meter = Meter()
    async with members(count, cycle, meter) as lists:
        # What the joining caused (records, node lists) has to be over.
        await asyncio.sleep(max(cycle, 3.0))
        begin, before = time.monotonic(), counted(lists)
        meter.packets.clear()
        await asyncio.sleep(seconds)
        # All in one turn of the loop: nothing is sent between these lines.
        end, after, noted = time.monotonic(), counted(lists), sum(meter.packets.values())
        # The last ones are given the time to go round.
        await asyncio.sleep(2.0)
        complete = meter.between(begin, end)
    after.subtract(before)
    return Measured(
        sent=after["datagrams_sent"] + after["frames_sent"],
        noted=noted,
        heartbeats=after["tx_heartbeat"],
        rounds=int((end - begin) / ROUND_INTERVAL) + 1,
        edges=after["tx_edge_probe"] + after["tx_edge_ack"],
        dropped=after["datagrams_dropped_kernel"] + after["datagrams_dropped_queue"],
        datagrams=[meter.datagrams[block] for block in complete],
        reached=[len(meter.reached[block]) for block in complete],
    )


def counted(lists: list[AsyncNodeList]) -> Counter[str]:
    """All counters of all members, added up."""
    total: Counter[str] = Counter()
    for node_list in lists:
        total.update(node_list.status()["counters"])
    return total


@pytest.mark.parametrize(
    ("count", "cycle", "seconds"), [(4, 0.5, 4.0), (10, 0.5, 4.0), (31, 3.0, 6.0), (64, 10.0, 12.0)]
)
def test_a_heartbeat_costs_at_most_amount_times_members(
    count: int, cycle: float, seconds: float, figure: Callable[[str, str], None]
) -> None:
    found = asyncio.run(measure(count, cycle, seconds))
    assert found.heartbeats > 0, "the cluster was not beating"
    assert found.sent == found.noted, "the meter and the transports count differently"
    mean, worst = statistics.mean(found.datagrams), max(found.datagrams)
    everything = (found.sent - found.edges) / found.heartbeats
    reach = statistics.mean(found.reached) / (count - 1)
    figure(
        f"one heartbeat, {count} members",
        f"{mean:.1f} datagrams = {mean / count:.2f} x N (worst {worst / count:.2f} x N), with all other traffic "
        f"{everything:.1f} = {everything / count:.2f} x N; to {reach:.1%} of the others, {found.dropped} dropped",
    )
    assert worst <= 4.1 * count
    # With each heartbeat comes one sync, a request and an answer, and nothing else while all is quiet.
    assert everything <= 4.1 * count + 2
    # Cheap must not mean unheard.
    assert reach > 0.95
    # A round of probes of each member takes as many datagrams at any size: one to each subject, and its answer.
    assert 0 < found.edges <= (2 * K + 2) * count * found.rounds
