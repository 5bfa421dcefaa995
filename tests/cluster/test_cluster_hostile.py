# SPDX-License-Identifier: MIT
"""Bad input against live agents: each kind is counted, nothing they hold changes, and they go on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.cluster.packets import Forger, Recorder, address, grown, rejected, send_at_rate
from tests.support.fleet import Agent, Cluster, address_of, eventually
from xdp_gossip import Node
from xdp_gossip.core.types import Address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

DATAGRAMS = 50_000
SMALL = 64 * 1024


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    """Three agents that agree, with documents of at most 64 KiB."""
    with Cluster(tmp_path, 3, cycle=0.5, timeout=2.5, limits={"document": SMALL}) as cluster:
        cluster.form()
        cluster[0].publish("treasure", b"must not change")
        cluster[1].publish("large", random.Random(1).randbytes(40_000))
        eventually(cluster.disagreement, 15)
        yield cluster


def state(agent: Agent) -> dict[str, Any]:
    """What bad input must not change."""
    nodes = agent.nodes("all")
    told = ("name", "private_data", "incarnation", "state")
    return {
        "nodes": {address_of(node): tuple(node[key] for key in told) for node in nodes},
        "documents": agent.versions(),
        "digest": agent.status()["digest"],
    }


def still_works(cluster: Cluster) -> None:
    """Every agent answers and a publish reaches all."""
    version = cluster[0].publish("afterwards", b"it goes on %d" % time.monotonic_ns())
    told = cluster[1].convergence(15, key="afterwards", version=version)
    assert told["converged"] and told["members"] == len(cluster), told
    eventually(cluster.disagreement, 10)


async def record(cluster: Cluster) -> list[bytes]:
    """Two true members come, listen, and go: one leaves, the other is just gone. What they saw and sent."""
    seed = address(cluster[0])
    subnet = seed.ip.rpartition(".")[0]
    recorders = [Recorder(Node(f"{subnet}.{100 + number}", seed.port, f"recorder{number}"), seed) for number in (0, 1)]
    for recorder in recorders:
        await recorder.join()
    try:
        turn = 0
        while turn < 4 or any(len(recorder.recording) < 60 for recorder in recorders):
            await asyncio.sleep(1)
            await recorders[turn % 2].publish(b"recorded %d" % turn, "recorded")
            turn += 1
        await recorders[0].leave()
        await asyncio.sleep(0.2)
    finally:
        for recorder in recorders:
            await recorder.close()
    return [packet for recorder in recorders for packet in recorder.recording]


def recorders_gone(cluster: Cluster) -> str | None:
    """None when each agent holds one recorder for left and one for dead, and all is equal."""
    for agent in cluster:
        states = {node["name"]: node["state"] for node in agent.nodes("all")}
        if (states.get("recorder0"), states.get("recorder1")) != ("left", "dead"):
            return f"{agent.name}: {states}"
    return cluster.disagreement()


def test_bad_datagrams_are_counted_and_change_nothing(three: Cluster, figure: Callable[[str, str], None]) -> None:
    recording = asyncio.run(record(three))
    eventually(lambda: recorders_gone(three), 20)
    target = three[0]
    before = {agent.name: state(agent) for agent in three}
    forger = Forger(address(target), address(three[1]), recording, random.Random(50))
    classes = forger.classes()

    # Each class by itself first, so that its own counters have to tell.
    for bad in classes:
        was = target.counters()
        send_at_rate([bad.make() for _ in range(200)], address(target))

        def untold(
            was: dict[str, int] = was, name: str = bad.name, names: tuple[str, ...] = bad.counters
        ) -> str | None:
            growth = grown(was, target.counters())
            total = sum(growth[name] for name in names) + growth["datagrams_dropped_kernel"]
            return (
                None
                if total >= 100 and any(growth[name] for name in names)
                else f"{name}: {names} tell of {total} in 200"
            )

        eventually(untold, 10)

    # Then all together.
    was = target.counters()
    began = time.monotonic()
    rest = DATAGRAMS - 200 * len(classes)
    send_at_rate([classes[number % len(classes)].make() for number in range(rest)], address(target))
    seconds = time.monotonic() - began
    told = target.counters()  # it answers while it digests

    def uncounted() -> str | None:
        counted = rejected(grown(was, target.counters()))
        return None if sum(counted.values()) >= 0.9 * rest else f"{rest} sent, counted: {counted}"

    eventually(uncounted, 10)
    growth = rejected(grown(was, target.counters()))
    assert told["receive_errors"] == target.counters()["receive_errors"] == 0

    time.sleep(1)
    after = {agent.name: state(agent) for agent in three}
    assert after == before
    still_works(three)
    figure(
        f"{DATAGRAMS} bad datagrams",
        f"{rest / seconds:.0f} a second, {growth['datagrams_dropped_kernel']} dropped by the kernel, state unchanged; "
        + ", ".join(f"{name} {count}" for name, count in sorted(growth.items()) if count),
    )


def test_bad_connections_are_counted_and_change_nothing(three: Cluster, figure: Callable[[str, str], None]) -> None:
    target = three[0]
    before = {agent.name: state(agent) for agent in three}
    was = target.counters()
    rng = random.Random(60)
    openings = {
        "half a length": b"\0\0",
        "half a frame": struct.pack("!I", 1000) + rng.randbytes(10),
        "huge length": struct.pack("!I", 2**32 - 1) + rng.randbytes(100),
        "no length": struct.pack("!I", 0),
        "random frame": struct.pack("!I", 200) + rng.randbytes(200),
        "silence": b"",
    }
    with contextlib.ExitStack() as stack:
        for opening in openings.values():
            for _ in range(30):
                stack.enter_context(connected(address(target), opening))
        # They stall; work that needs TCP goes on meanwhile.
        large = rng.randbytes(50_000)
        version = three[1].publish("while they stall", large)
        assert three[2].convergence(10, key="while they stall", version=version)["converged"]
        assert target.read("while they stall") == large
        eventually(too_few(target, was, connections_stalled=60, frames_malformed=60, rx_malformed=30), 30, pause=0.5)
        # Many more than may be open at once.
        for _ in range(600):
            stack.enter_context(connected(address(target), b""))
        eventually(too_few(target, was, connections_evicted=100, connections_accepted=780), 10, pause=0.5)
        still_works(three)
    growth = grown(was, target.counters())
    for agent in three:
        now, then = state(agent), before[agent.name]
        assert now["nodes"] == then["nodes"]
        assert {key: now["documents"].get(key) for key in then["documents"]} == then["documents"]
    names = ("connections_accepted", "connections_stalled", "connections_evicted", "frames_malformed")
    figure("780 bad connections", ", ".join(f"{name} {growth[name]}" for name in names))


def too_few(agent: Agent, was: dict[str, int], **wanted: int) -> Callable[[], str | None]:
    """A condition: these counters have grown by so much."""

    def missing() -> str | None:
        growth = grown(was, agent.counters())
        short = {name: growth[name] for name, least in wanted.items() if growth[name] < least}
        return f"expected at least {wanted}, got {short}" if short else None

    return missing


def connected(target: Address, opening: bytes) -> socket.socket:
    """A connection that has sent its opening."""
    sock = socket.create_connection((target.ip, target.port), timeout=10)
    with contextlib.suppress(ConnectionError):
        sock.sendall(opening)
    return sock


def test_documents_over_the_limit(three: Cluster) -> None:
    small = three.agents[:2]
    generous = three[2]
    generous.stop()
    del generous.settings["limits"]
    three.start([generous])
    eventually(three.disagreement, 10)

    was = small[0].versions()
    answer = small[0].ask("PUT", "/v1/documents/too-much", bytes(SMALL + 1))
    assert (answer.status, answer.json["error"]["code"]) == (413, "document_too_large")
    assert small[0].versions() == was

    version = generous.publish("too-much", bytes(3 * SMALL))
    eventually(
        lambda: (
            None
            if all(agent.counters().get("documents_refused_too_large") for agent in small)
            else "nobody counted the refusal"
        ),
        10,
    )
    assert [agent.read("too-much") for agent in small] == [None, None]
    told = generous.convergence(1, key="too-much", version=version)
    assert not told["converged"] and told["confirmed"] == 1, told
    laggards = {result["name"] for result in told["results"] if not result["holds"]}
    assert laggards == {agent.name for agent in small}
    # A refusal is no storm: a few syncs for each heartbeat at most.
    sent = small[0].counters()
    eventually(lambda: None if grown(sent, small[0].counters())["tx_heartbeat"] >= 20 else "too few heartbeats", 30)
    told_now = grown(sent, small[0].counters())
    assert told_now["tx_swap_request"] <= 3 * told_now["tx_heartbeat"], "exchanges over a document that is refused"

    generous.publish("too-much", b"now it fits")
    eventually(three.disagreement, 10)
    assert three.holders("too-much", b"now it fits") == []
    still_works(three)
