# SPDX-License-Identifier: MIT
"""A network that falls in two and heals: network namespaces of the test's own, nothing in the host's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.cluster.harness import Agent, Cluster, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

TIMEOUT = 2.5
PORT = 8000


def ip(*words: str, check: bool = True) -> str:
    """Run ip(8), for ten seconds at most."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0 or not check, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


class Network:
    """Hosts 1 to ``count`` as namespaces, joined by one of two bridges in a namespace of its own."""

    def __init__(self, count: int) -> None:
        tag = f"xgt{os.getpid()}"
        self.hub = f"{tag}h"
        self.hosts = [f"{tag}n{number}" for number in range(1, count + 1)]

    def __enter__(self) -> Network:
        try:
            ip("netns", "add", self.hub)
            for bridge in ("br0", "br1"):
                ip("-n", self.hub, "link", "add", bridge, "type", "bridge")
                ip("-n", self.hub, "link", "set", bridge, "up")
            for number, host in enumerate(self.hosts, 1):
                ip("netns", "add", host)
                end = ("peer", "name", "eth0", "netns", host)
                ip("-n", self.hub, "link", "add", f"port{number}", "type", "veth", *end)
                ip("-n", self.hub, "link", "set", f"port{number}", "master", "br0", "up")
                ip("-n", host, "address", "add", f"198.18.128.{number}/24", "dev", "eth0")
                ip("-n", host, "link", "set", "lo", "up")
                ip("-n", host, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Links end with their namespaces.
        for name in (self.hub, *self.hosts):
            with contextlib.suppress(subprocess.TimeoutExpired):
                ip("netns", "delete", name, check=False)

    def split(self, numbers: list[int]) -> None:
        """These hosts on the second bridge, cut off from all others."""
        for number in numbers:
            ip("-n", self.hub, "link", "set", f"port{number}", "master", "br1")

    def heal(self) -> None:
        """All on one bridge again."""
        for number in range(1, len(self.hosts) + 1):
            ip("-n", self.hub, "link", "set", f"port{number}", "master", "br0")


@pytest.fixture
def network() -> Iterator[Network]:
    """Four hosts on one network."""
    with Network(4) as made:
        yield made


def move(agent: Agent, host: str) -> None:
    """Let the agent run on ``host`` of the network; its API stays in the file system."""
    agent.ip, agent.port = f"198.18.128.{agent.number}", PORT
    agent.address = f"{agent.ip}:{PORT}"
    agent.prefix = ("ip", "netns", "exec", host)
    agent.settings["node"].update(addr=agent.ip, port=PORT)
    agent.settings["listen_addr"] = "0.0.0.0"


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
