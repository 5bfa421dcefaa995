# SPDX-License-Identifier: MIT
"""A network that falls in two and heals."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.cluster.network import Network, move
from tests.support.fleet import Cluster, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

TIMEOUT = 2.5


@pytest.fixture
def network() -> Iterator[Network]:
    """Four hosts on one network."""
    with Network(4) as made:
        yield made


def test_halves_go_on_and_become_one_again(
    network: Network, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    with Cluster(tmp_path, 4, cycle=0.5, timeout=TIMEOUT) as cluster:
        for agent, host in zip(cluster, network.hosts):
            move(agent, host)
        for agent in cluster:
            agent.settings["seeds"] = [cluster[0].address]
        cluster.form()
        cluster[0].publish("before", b"everybody's")
        eventually(cluster.disagreement, 10)

        halves = [cluster.agents[:2], cluster.agents[2:]]
        network.split([3, 4])
        apart = time.monotonic()
        for half in halves:
            eventually(lambda half=half: cluster.disagreement(half), TIMEOUT + 10)  # type: ignore[misc]
        for turn in range(5):
            cluster[turn % 2].publish("left", b"left %d" % turn)
            cluster[2 + turn % 2].publish("right", b"right %d" % turn)
            cluster[1].publish("both", b"left's")
            cluster[3].publish("both", b"right's, later, turn %d" % turn)
            time.sleep(0.2)
        # The half that a client talks to says so: it holds a majority of nobody it does not see.
        assert cluster[0].convergence(0, key="left")["members"] == 2
        assert cluster[0].read("right") is None
        time.sleep(max(0.0, 3 * TIMEOUT - (time.monotonic() - apart)))
        winner = max(cluster[0].versions()["both"], cluster[2].versions()["both"])

        network.heal()
        merged = eventually(cluster.disagreement, 30)
        assert cluster.holders("before", b"everybody's") == []
        assert cluster.holders("left", b"left 4") == []
        assert cluster.holders("right", b"right 4") == []
        assert {agent.versions()["both"] for agent in cluster} == {winner}
    figure("2 + 2 apart for 3 timeouts", f"one NodeList and the same documents {merged:.1f} s after healing")
