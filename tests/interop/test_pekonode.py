# SPDX-License-Identifier: MIT
"""Agents with ``wire: pekonode`` in one cluster with real PekoNode nodes, over UDP and over TCP.

Needs the program that README.md in this directory builds; each test prints what it measured (``pytest -s``).
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Union

import pytest

from tests.interop.peers import Agent, GoNode, until
from xdp_gossip.core.events import QueryAnswered, Transmit
from xdp_gossip.core.types import Node
from xdp_gossip.pekonode import codec as codec
from xdp_gossip.pekonode.document import document_of

PEKOD = os.environ.get("XDP_GOSSIP_PEKOD", "")
pytestmark = [
    pytest.mark.skipif(not PEKOD, reason="XDP_GOSSIP_PEKOD does not name a PekoNode program (tests/interop/README.md)"),
    pytest.mark.parametrize("protocol", ["UDP", "TCP"]),
    pytest.mark.slow,
]
#: Seconds of PekoNode's timeout at cycle 1, the second it rounds by, and one more for the machine.
TIMEOUT = 3 * 1 + 2 + 1 + 1

Peer = Union[GoNode, Agent]


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 110))


@asynccontextmanager
async def cluster(protocol: str, goes: int, agents: int) -> AsyncIterator[tuple[list[GoNode], list[Agent]]]:
    """A cluster in which everybody sees everybody and nobody remembers a bare seed any more."""
    go_nodes = [GoNode(PEKOD, protocol, f"go{index}", f"role=<g{index}>&é") for index in range(goes)]
    agent_nodes = [Agent(protocol, f"agent{index}", f"role={index}") for index in range(agents)]
    everybody: list[Peer] = [*go_nodes, *agent_nodes]
    try:
        for go_node in go_nodes:
            await go_node.start(*[go_nodes[0].node][: go_node is not go_nodes[0]])
        for agent in agent_nodes:
            await agent.start(go_nodes[0].node)
        names = sorted(peer.node.name for peer in everybody)
        try:
            took = await until("everybody sees everybody", lambda: all_list(everybody, names), 12)
        except AssertionError:
            for peer in everybody:
                print(peer.node, await peer.listing())
            raise
        print(f"\n{protocol}: {goes} Go nodes and {agents} agents see each other after {took:.1f} s", end=" ")
        yield go_nodes, agent_nodes
    finally:
        for peer in everybody:
            await peer.close()


async def all_list(peers: list[Peer], names: list[str]) -> bool:
    return all([[name for name, _ in await peer.listing()] == names for peer in peers])


async def all_read(peers: list[Peer], value: bytes) -> bool:
    return all([await peer.read() == value for peer in peers])


def test_everybody_sees_everybody_with_private_data(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 4, 3) as (goes, agents):
            expected = sorted((peer.node.name, peer.node.private_data) for peer in [*goes, *agents])
            for peer in [*goes, *agents]:
                assert await peer.listing() == expected
            await asyncio.sleep(TIMEOUT)  # nobody is lost again
            for peer in [*goes, *agents]:
                assert await peer.listing() == expected
            for agent in agents:
                bad = {k: v for k, v in agent.engine.counters.items() if k.startswith("rx_mal") or "wrong" in k}
                assert bad == {}

    run(body)


def test_metadata_flows_both_ways(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 4, 3) as (goes, agents):
            everybody: list[Peer] = [*goes, *agents]
            times: dict[str, list[float]] = {"go": [], "agent": []}
            for round_ in range(20):
                for kind, publisher in [("go", goes[round_ % 4]), ("agent", agents[round_ % 3])]:
                    value = f"{kind} {round_} ".encode() + bytes(range(256))
                    await publisher.publish(value)
                    took = await until(f"{value[:10]!r} everywhere", lambda v=value: all_read(everybody, v), 5)
                    times[kind].append(took * 1000)
            for kind, values in times.items():
                print(f"| 20 publishes by {kind}: median {statistics.median(values):.0f} ms, "
                      f"slowest {max(values):.0f} ms", end=" ")  # fmt: skip
            digests = {agent.engine.documents.digest for agent in agents}
            assert len(digests) == 1

    run(body)


def test_latecomers_catch_up_through_the_other_kind(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 2, 2) as (goes, agents):
            await agents[0].publish(b"set before you came")
            late_go = GoNode(PEKOD, protocol, "late-go")
            late_agent = Agent(protocol, "late-agent")
            try:
                await late_go.start(agents[1].node)  # knows an agent only
                await late_agent.start(goes[1].node)  # knows a Go node only
                late: list[Peer] = [late_go, late_agent]
                took = await until("metadata", lambda: all_read(late, b"set before you came"), 5)
                print(f"| latecomers hold the metadata after {took:.2f} s", end=" ")
                names = ["agent0", "agent1", "go0", "go1", "late-agent", "late-go"]
                everybody: list[Peer] = [*goes, *agents, *late]
                await until("all see the latecomers", lambda: all_list(everybody, names), 12)
            finally:
                await late_go.close()
                await late_agent.close()

    run(body)


def test_who_stops_is_dropped_and_comes_back(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 3, 2) as (goes, agents):
            await agents[1].stop()
            await goes[2].stop()
            rest: list[Peer] = [goes[0], goes[1], agents[0]]
            took = await until("dropped", lambda: all_list(rest, ["agent0", "go0", "go1"]), TIMEOUT + 3)
            print(f"| stopped nodes are dropped after {took:.1f} s", end=" ")
            await agents[1].resume()
            await goes[2].resume()
            everybody: list[Peer] = [*goes, *agents]
            names = ["agent0", "agent1", "go0", "go1", "go2"]
            took = await until("back", lambda: all_list(everybody, names), 5)
            print(f"| and are back after {took:.1f} s", end=" ")

    run(body)


def test_changed_private_data(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 2, 2) as (goes, agents):
            changed = agents[0]
            changed.engine.update_node(changed.now, private_data="role=new")
            changed.pump()
            ours = ("agent0", "role=new")

            async def agent_sees() -> bool:
                return ours in await agents[1].listing() and len(await agents[1].listing()) == 4

            await until("the other agent has it", agent_sees, 3)
            # A Go node holds the former record for a second node, until its timeout.
            everybody: list[Peer] = [*goes, *agents]
            names = ["agent0", "agent1", "go0", "go1"]
            took = await until("no ghost anywhere", lambda: all_list(everybody, names), TIMEOUT + 3)
            assert ours in await goes[0].listing()
            print(f"| Go nodes forget the former record after {took:.1f} s", end=" ")

    run(body)


def test_other_key_stays_out(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 2, 1) as (goes, agents):
            stranger_go = GoNode(PEKOD, protocol, "stranger-go", key="other")
            stranger_agent = Agent(protocol, "stranger-agent", key="other")
            try:
                await stranger_go.start(agents[0].node)
                await stranger_agent.start(goes[0].node)
                await stranger_go.publish(b"evil")
                await stranger_agent.publish(b"evil")
                await asyncio.sleep(3)
                everybody: list[Peer] = [*goes, *agents]
                assert await all_list(everybody, ["agent0", "go0", "go1"])
                assert await all_read(everybody, b"")
                assert agents[0].engine.counters["rx_wrong_key"] >= 3
            finally:
                await stranger_go.close()
                await stranger_agent.close()

    run(body)


def test_largest_document_both_ways(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 3, 2) as (goes, agents):
            everybody: list[Peer] = [*goes, *agents]
            limit = agents[0].engine.documents.limit
            for publisher in (agents[0], goes[0]):
                value = os.urandom(limit)
                await publisher.publish(value)
                took = await until("everywhere", lambda v=value: all_read(everybody, v), 10)
                print(f"| {limit} B by {publisher.node.name} everywhere after {took * 1000:.0f} ms", end=" ")

    run(body)


def test_query_asks_go_nodes(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 3, 1) as (goes, agents):
            await goes[0].publish(b"held by all")
            everybody: list[Peer] = [*goes, *agents]
            await until("everywhere", lambda: all_read(everybody, b"held by all"), 5)
            agent = agents[0]
            query = agent.engine.query("default", [node.node.address for node in goes], agent.now)
            agent.pump()

            async def answered() -> bool:
                return sum(isinstance(event, QueryAnswered) for event in agent.events) == 3

            await until("three answers", answered, 3)
            document = agent.engine.documents.get("default")
            assert document is not None
            for event in agent.events:
                if isinstance(event, QueryAnswered):
                    held = (str(document.version), document_of(1, b"held by all").digest)
                    assert (event.query, event.version, event.digest) == (query, *held)

    run(body)


def test_agents_stay_out_of_the_storm(protocol: str) -> None:
    """Seven Go nodes at fan-out 3 multiply each heartbeat; an agent sends at most three copies of it."""

    async def body() -> None:
        async with cluster(protocol, 7, 2) as (_, agents):
            seconds = 6
            for agent in agents:
                agent.sent.clear()
            before = [agent.engine.counters["rx_heartbeats"] for agent in agents]
            await asyncio.sleep(seconds)
            for agent, received in zip(agents, before):
                received = agent.engine.counters["rx_heartbeats"] - received
                copies: Counter[Node] = Counter()
                for transmit in agent.sent:
                    packet = codec.decode(transmit.data)
                    copies[packet.node] += packet.swap is codec.Swap.NONE
                # Heartbeats come each second, plus one at either end of the interval.
                assert max(copies.values()) <= 3 * (seconds + 2)
                print(f"| {agent.node.name}: {received / seconds:.0f} copies/s in, "
                      f"{sum(copies.values()) / seconds:.0f}/s out", end=" ")  # fmt: skip

    run(body)


def test_agent_survives_what_go_would_not_send(protocol: str) -> None:
    async def body() -> None:
        async with cluster(protocol, 2, 1) as (goes, agents):
            await goes[0].publish(b"v")
            everybody: list[Peer] = [*goes, *agents]
            await until("everywhere", lambda: all_read(everybody, b"v"), 5)
            other = Agent(protocol, "attacker")
            await other.transport.open(lambda data, source: None)
            to = agents[0].node.address
            garbage = [os.urandom(index) for index in range(1, 300)]
            garbage += [b"{" * 2000, b'{"Node":', b'{"Node":{"Addr":"x","Port":1}}', b"null", b"{}" * 500]
            for data in garbage:
                other.transport.send(Transmit(to, data))
                await asyncio.sleep(0.001)
            await asyncio.sleep(1)
            await other.transport.close()
            assert await all_list(everybody, ["agent0", "go0", "go1"])
            assert await all_read(everybody, b"v")
            assert agents[0].engine.counters["rx_malformed"] > 200

    run(body)
