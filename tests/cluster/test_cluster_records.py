# SPDX-License-Identifier: MIT
"""A node that changes what it says of itself stays one node, at every moment and for everybody."""

from __future__ import annotations

import json
import random
import threading
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support.fleet import Agent, Cluster, address_of, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CHANGES = 15


class Watchers:
    """Polls every agent's NodeList all the time, in /v1 and in eGossip's form, and keeps what looked wrong."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self.polls = 0
        self.faults: list[str] = []
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> Watchers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _poll(self) -> None:
        while not self._stop.is_set():
            for agent in self._cluster:
                try:
                    self._look(agent)
                except (OSError, HTTPException):
                    pass  # it restarts
                self._stop.wait(0.01)

    def _look(self, agent: Agent) -> None:
        for path in ("/v1/nodes?state=all", "/list"):
            answer = agent.ask("GET", path)
            if answer.status != 200:
                continue
            self.polls += 1
            found = json.loads(answer.body)
            if path == "/list":
                addresses = [f"{node['Addr']}:{node['Port']}" for node in found]
            else:
                addresses = [address_of(node) for node in found["nodes"]]
            known = {other.address for other in self._cluster}
            if len(addresses) != len(set(addresses)) or not set(addresses) <= known:
                self.faults.append(f"{agent.name}: {path}: {sorted(addresses)}")


def all_see(cluster: Cluster, wanted: dict[str, tuple[str, str]]) -> str | None:
    """None when every agent lists every node with the name and private data it has now."""
    for agent in cluster:
        seen = {address_of(node): (node["name"], node["private_data"]) for node in agent.nodes()}
        if seen != wanted:
            wrong = {address: said for address, said in seen.items() if said != wanted.get(address)}
            return f"{agent.name} lists {len(seen)} nodes, of them wrong: {wrong}"
    return None


def test_changed_data_updates_the_one_entry(tmp_path: Path) -> None:
    rng = random.Random(3)
    with Cluster(tmp_path, 6, cycle=0.5, timeout=5) as cluster:
        cluster.form()
        wanted = {agent.address: (agent.name, "") for agent in cluster}
        with Watchers(cluster) as watchers:
            for turn in range(CHANGES):
                agent = rng.choice(cluster.agents)
                data = f"turn {turn} " + "x" * rng.choice([0, 50, 4000])
                name = rng.choice([agent.name, f"{agent.name} as of turn {turn}"])
                said = agent.call("PATCH", "/v1/node", {"name": name, "private_data": data})
                assert (said["name"], said["private_data"]) == (name, data)
                wanted[agent.address] = (name, data)
                looked = watchers.polls
                eventually(lambda: None if watchers.polls > looked else "nobody looks", 10)  # noqa: B023
                if rng.random() < 0.5:  # else the next change overtakes this one
                    eventually(lambda: all_see(cluster, wanted), 10)
            eventually(lambda: all_see(cluster, wanted), 10)
            for agent in (cluster[0], cluster[3]):
                self_described = (f"{agent.name} restarted", "from its file")
                agent.settings["node"].update(name=self_described[0], private_data=self_described[1])
                assert agent.stop() == 0
                cluster.start([agent])
                wanted[agent.address] = self_described
                eventually(lambda: all_see(cluster, wanted), 10)
        assert watchers.faults == []
        assert watchers.polls > CHANGES
        assert cluster.disagreement() is None
