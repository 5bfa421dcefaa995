# SPDX-License-Identifier: MIT
"""A key is rotated on a running fleet: staged, active, retiring, each step by configuration and restart, one by one."""

from __future__ import annotations

import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.fleet import SECRET, Agent, Cluster, eventually
from tests.support.process import AgentError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

NEW_SECRET = "the secret that comes after it"
#: Seconds in which an agent that restarts has to be listed again, and to list the others.
RESTART = 10.0


class Absences:
    """Polls every agent, notes when a list lacks somebody who is there, and publishes meanwhile."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._since: dict[tuple[str, str], float] = {}
        self.longest: dict[tuple[str, str], float] = {}
        self.published: list[tuple[str, bytes]] = []
        self.faults: list[str] = []
        #: The one that restarts: it answers nothing, and is not published on. Only it may be absent, and list nobody.
        self.restarting: Agent | None = None
        self._threads = [threading.Thread(target=self._poll), threading.Thread(target=self._publish)]

    def __enter__(self) -> Absences:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _poll(self) -> None:
        while not self._stop.wait(0.05):
            for agent in self._cluster:
                before = self.restarting
                try:
                    listed = agent.listed()
                except (OSError, HTTPException, AgentError):
                    continue  # it restarts
                now = time.monotonic()
                for other in self._cluster:
                    pair = (agent.name, other.name)
                    since = self._since.setdefault(pair, now)
                    if other.address in listed:
                        self._since[pair] = now
                    elif not {agent, other} & {before, self.restarting}:
                        self.faults.append(f"{agent.name} does not list {other.name}")
                    self.longest[pair] = max(self.longest.get(pair, 0.0), now - since)

    def _publish(self) -> None:
        turn = 0
        while not self._stop.wait(0.2):
            turn += 1
            agent = next(agent for agent in self._cluster if agent is not self.restarting)
            key, value = f"rotation/{turn}", b"published on %d" % agent.number
            try:
                agent.publish(key, value)
            except (OSError, HTTPException, AgentError) as error:
                if agent is not self.restarting:  # else its restart began just then
                    self.faults.append(f"publish on {agent.name}: {error}")
            else:
                self.published.append((key, value))


def slots(agent: Agent, **states: str) -> list[dict[str, Any]]:
    """``keys`` of the configuration: ``old`` is slot 1, ``new`` is slot 2."""
    secrets = {"old": (1, SECRET), "new": (2, NEW_SECRET)}
    return [
        {
            "id": secrets[name][0],
            "file": str(agent.write_secret(f"{name}.key", secrets[name][1])),
            "state": state,
        }
        for name, state in states.items()
    ]


def test_rotation_interrupts_nothing(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    with Cluster(tmp_path, 3) as cluster:
        for agent in cluster:
            del agent.settings["secret_key_file"]
            agent.settings["keys"] = slots(agent, old="active")
        cluster.form()
        longest_restart = 0.0
        with Absences(cluster) as absences:
            for step in (
                {"old": "active", "new": "staged"},
                {"old": "retiring", "new": "active"},
                {"new": "active"},
            ):
                for agent in cluster:
                    absences.restarting = agent
                    # One publish under way ends, and another one follows.
                    done = len(absences.published)
                    eventually(lambda done=done: None if len(absences.published) > done + 1 else "no publish", 10)  # type: ignore[misc]
                    began = time.monotonic()
                    assert agent.stop() == 0
                    agent.settings["keys"] = slots(agent, **step)
                    cluster.start([agent])
                    eventually(cluster.disagreement, RESTART)
                    longest_restart = max(longest_restart, time.monotonic() - began)
                    absences.restarting = None
                states = {key["id"]: key["state"] for key in cluster[0].call("GET", "/v1/keys")["keys"]}
                assert states == {{"old": 1, "new": 2}[name]: state for name, state in step.items()}
        assert absences.faults == []
        assert len(absences.longest) == len(cluster) ** 2

        def missing() -> str | None:
            for key, value in absences.published:
                lacking = cluster.holders(key, value)
                if lacking:
                    return f"{key} is not on {lacking}"
            return None

        eventually(missing, 10)
        # The old key is worth nothing any more: whoever still has it is a stranger.
        stranger = cluster[2]
        stranger.stop()
        stranger.settings["keys"] = slots(stranger, old="active")
        cluster.start([stranger])
        eventually(lambda: None if cluster[0].counters().get("rx_unknown_key") else "no packet was rejected", 10)
        cluster[0].publish("secret", b"not for strangers")
        time.sleep(2)
        assert stranger.read("secret") is None
        worst = max(absences.longest.values())
    figure(
        "key rotation on 3",
        f"{len(absences.published)} publishes, longest absence from any list {worst:.2f} s, "
        f"longest restart {longest_restart:.2f} s",
    )
