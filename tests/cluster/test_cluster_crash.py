# SPDX-License-Identifier: MIT
"""kill -9 at any moment loses no acknowledged publish, and a fleet that went off comes back by itself."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from http.client import HTTPException
from pathlib import Path
from typing import Callable

import pytest

from tests.support.fleet import Agent, Cluster, eventually
from tests.support.process import AgentError
from xdp_gossip.core.types import Version

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

KILLS = 30
KEYS = 6
FAST = {"cycle": 0.5, "timeout": 2.5}


class Publishers:
    """Threads that publish on random members without a pause, and keep book of what was acknowledged."""

    def __init__(self, cluster: Cluster, threads: int) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._acknowledged: dict[str, dict[str, Version]] = defaultdict(dict)
        self.published = 0
        self.cut_off = 0
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._publish, args=[seed]) for seed in range(threads)]

    def __enter__(self) -> Publishers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _publish(self, seed: int) -> None:
        rng = random.Random(seed)
        turn = 0
        while not self._stop.is_set():
            agent = rng.choice(self._cluster.agents)
            turn += 1
            key = f"key/{rng.randrange(KEYS)}"
            value = b"%d/%d " % (seed, turn) + bytes(rng.choice([0, 200, 3000]))
            try:
                version = Version.parse(agent.publish(key, value))
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.02)  # it is down
            except (OSError, HTTPException):
                self.cut_off += 1  # killed between request and answer: nothing was acknowledged
            except AgentError as error:
                if ": 503 " not in str(error):  # it starts
                    self.faults.append(str(error))
            else:
                with self._lock:
                    self.published += 1
                    book = self._acknowledged[agent.name]
                    book[key] = max(version, book.get(key, version))

    def by(self, agent: Agent) -> dict[str, Version]:
        """The newest version of each key that this agent acknowledged up to now."""
        with self._lock:
            return dict(self._acknowledged[agent.name])

    def newest(self) -> dict[str, Version]:
        """The newest acknowledged version of each key."""
        with self._lock:
            found: dict[str, Version] = {}
            for book in self._acknowledged.values():
                for key, version in book.items():
                    found[key] = max(version, found.get(key, version))
            return found


def lost(wanted: dict[str, Version], held: dict[str, Version]) -> list[str]:
    """Keys whose version held is older than wanted, or that are not held."""
    return [
        f"{key}: {held.get(key)} < {version}" for key, version in wanted.items() if held.get(key, version) < version
    ]


def test_kill_at_any_moment_loses_no_acknowledged_publish(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    rng = random.Random(11)
    with Cluster(tmp_path, 5, **FAST) as cluster:
        cluster.form()
        with Publishers(cluster, threads=3) as publishers:
            kills = 0
            while kills < KILLS or not publishers.cut_off:  # at least one kill meets a publish
                kills += 1
                done = publishers.published
                eventually(lambda done=done: None if publishers.published > done else "nobody publishes", 10)  # type: ignore[misc]
                time.sleep(rng.uniform(0.0, 0.8))
                victim = rng.choice(cluster.agents)
                # Also in the middle of its start.
                victim.kill()
                acknowledged = publishers.by(victim)
                snapshot = victim.disk()
                held = {document.key: document.version for document in snapshot.documents}
                assert acknowledged.keys() <= held.keys()
                assert lost(acknowledged, held) == [], f"on the disk of {victim.name}"
                victim.start()
            for agent in cluster:
                eventually(agent.not_ready, 30)
        assert publishers.faults == []
        newest = publishers.newest()
        assert len(newest) == KEYS

        def missing() -> str | None:
            for agent in cluster:
                held = agent.versions()
                if not newest.keys() <= held.keys() or lost(newest, held):
                    return f"{agent.name} lacks {newest.keys() - held.keys()} {lost(newest, held)}"
            return cluster.disagreement()

        took = eventually(missing, 20)
    figure(
        f"{KILLS} kills",
        f"{publishers.published} publishes acknowledged, {publishers.cut_off} cut off by the kill, none lost, "
        f"all agents equal {took:.1f} s after the last",
    )


def test_whole_fleet_killed_comes_back_without_seeds(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    with Cluster(tmp_path, 5, **FAST) as cluster:
        for agent in cluster:
            agent.settings["node"]["private_data"] = f"data of {agent.name}"
        cluster.form()
        documents = {f"doc/{number}": b"value %d" % number for number in range(8)}
        documents["large"] = random.Random(5).randbytes(300_000)
        for number, (key, value) in enumerate(documents.items()):
            cluster[number % len(cluster)].publish(key, value)
        eventually(lambda: cluster.disagreement(), 15)
        # A document that only its publisher can have by now, and nobody else heard of.
        documents["last words"] = b"published and killed"
        cluster[3].publish("last words", documents["last words"])
        for agent in cluster:
            agent.kill()
        for agent in cluster:
            agent.settings["seeds"] = []
        cluster.start()

        def missing() -> str | None:
            for agent in cluster:
                for key, value in documents.items():
                    if agent.read(key) != value:
                        return f"{agent.name} does not hold {key}"
            return cluster.disagreement()

        took = eventually(missing, 20)
        told = {node["name"]: node["private_data"] for node in cluster[0].nodes()}
        assert told == {agent.name: f"data of {agent.name}" for agent in cluster}
    figure("fleet of 5 killed at once", f"whole again {took:.1f} s after the last agent serves")
