# SPDX-License-Identifier: MIT
"""Agents find each other, and every publish is everywhere before the fleet says that it is."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.fleet import Agent, Cluster, eventually
from xdp_gossip.core.types import Version

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

PUBLISHES = 20
ROUNDS = 20


def publish_in_a_row(cluster: Cluster, rng: random.Random) -> float:
    """Publish on random members, each confirmed through another one before the next; returns the slowest."""
    slowest = 0.0
    for turn in range(PUBLISHES):
        value = b"publish %d " % turn + rng.randbytes(rng.choice([0, 100, 5000]))
        writer, verifier = rng.sample(cluster.agents, 2)
        version = writer.publish("in a row", value)
        told = verifier.convergence(20, key="in a row", version=version)
        assert told["converged"] and told["confirmed"] == told["members"] == len(cluster), (turn, told)
        # No waiting here: what was confirmed has to be there.
        assert cluster.holders("in a row", value) == [], f"publish {turn}, confirmed by {verifier.name}"
        slowest = max(slowest, told["elapsed"])
    return slowest


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (3, {}),
        (10, {}),
        (30, {}),
        (10, {"protocol": "TCP"}),
        (3, {"ipv6": True}),
    ],
    ids=["3-UDP", "10-UDP", "30-UDP", "10-TCP", "3-IPv6"],
)
def test_agents_converge_on_nodes_and_publishes(
    tmp_path: Path, count: int, settings: dict[str, Any], figure: Callable[[str, str], None]
) -> None:
    rng = random.Random(count)
    with Cluster(tmp_path, count, **settings) as cluster:
        formed = cluster.form()
        slowest = publish_in_a_row(cluster, rng)
        assert cluster.disagreement() is None
        sent = [agent.counters() for agent in cluster]
        if settings.get("protocol") == "TCP":
            assert all(counters["frames_sent"] > 0 and "datagrams_sent" not in counters for counters in sent)
        else:
            assert all(counters["datagrams_sent"] > 0 for counters in sent)
    name = f"{count} agents {settings or 'UDP'}"
    figure(
        name,
        f"agree {formed:.1f} s after the last one serves, slowest of 20 publishes confirmed in {slowest:.2f} s",
    )


def test_publishes_at_one_instant_end_the_same_everywhere(tmp_path: Path) -> None:
    rng = random.Random(7)
    with Cluster(tmp_path, 5) as cluster:
        cluster.form()
        for turn in range(ROUNDS):
            writers = rng.sample(cluster.agents, 2)
            versions = publish_together(writers, f"round {turn}".encode())
            winner = max(versions)
            text = f"round {turn} by {writers[versions.index(winner)].name}".encode()

            def missing(winner: Version = winner) -> str | None:
                held = {agent.name: agent.versions().get("contested") for agent in cluster}
                wrong = {name: str(version) for name, version in held.items() if version != winner}
                return f"winner {winner}, but {wrong}" if wrong else cluster.disagreement()

            eventually(missing, 10)
            assert cluster.holders("contested", text) == []


def publish_together(writers: list[Agent], text: bytes) -> list[Version]:
    """Publish on all ``writers`` at one instant; returns the versions in their order."""
    barrier = threading.Barrier(len(writers))
    versions: dict[str, Version] = {}

    def publish(agent: Agent) -> None:
        barrier.wait(10)
        versions[agent.name] = Version.parse(agent.publish("contested", text + b" by " + agent.name.encode()))

    threads = [threading.Thread(target=publish, args=[agent]) for agent in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [versions[agent.name] for agent in writers]
