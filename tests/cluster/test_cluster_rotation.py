# SPDX-License-Identifier: MIT
"""A key is rotated on a running fleet: staged, active, retiring, each step by configuration and reload, one by one."""

from __future__ import annotations

import signal
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.fleet import SECRET, Agent, Cluster, eventually
from tests.support.keys import OTHER_KEY
from tests.support.process import AgentError
from xdp_gossip.wire.keys import derive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

SECRETS = {"old": SECRET, "new": OTHER_KEY}


class Absences:
    """Polls every agent, notes when a list lacks somebody, and publishes meanwhile."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self.looks = 0
        self.published: list[tuple[str, bytes]] = []
        self.faults: list[str] = []
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
        everybody = {agent.address for agent in self._cluster}
        while not self._stop.wait(0.05):
            for agent in self._cluster:
                try:
                    missing = everybody - set(agent.listed("alive"))
                except (OSError, HTTPException, AgentError) as error:
                    missing = {repr(error)}
                if missing:
                    self.faults.append(f"{agent.name} does not list {sorted(missing)} as alive")
                self.looks += 1

    def _publish(self) -> None:
        turn = 0
        while not self._stop.wait(0.1):
            turn += 1
            agent = self._cluster[turn % len(self._cluster)]
            key, value = f"rotation/{turn}", b"published on %d" % agent.number
            try:
                agent.publish(key, value)
            except (OSError, HTTPException, AgentError) as error:
                self.faults.append(f"publish on {agent.name}: {error}")
            else:
                self.published.append((key, value))


def keys(agent: Agent, **states: str) -> list[dict[str, Any]]:
    """``keys`` of the configuration: ``old`` and ``new`` in these states."""
    return [
        {"file": str(agent.write_secret(f"{name}.key", SECRETS[name])), "state": state}
        for name, state in states.items()
    ]


def test_rotation_interrupts_nothing(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    with Cluster(tmp_path, 3) as cluster:
        # A default deployment has secret_key_file, and its key is the same key once it stands in keys.
        cluster.form()
        runs = [(agent.pid, agent.status()["node"]["incarnation"]) for agent in cluster]
        longest = 0.0
        with Absences(cluster) as absences:
            for step in (
                {"old": "active", "new": "staged"},
                {"old": "retiring", "new": "active"},
                {"new": "active"},
            ):
                wanted = {f"{derive('default', SECRETS[name]).fingerprint:016x}": state for name, state in step.items()}
                for agent in cluster:
                    # One publish under way ends, and another one follows.
                    done = len(absences.published)
                    eventually(lambda done=done: None if len(absences.published) > done + 1 else "no publish", 10)  # type: ignore[misc]
                    agent.settings.pop("secret_key_file", None)
                    agent.settings["keys"] = keys(agent, **step)
                    agent.write_config()
                    began = time.monotonic()
                    agent.signal(signal.SIGHUP)

                    def untold(agent: Agent = agent, wanted: dict[str, str] = wanted) -> str | None:
                        """Which member has not heard that this agent has the keys of the step."""
                        for other in cluster:
                            node = next(node for node in other.nodes() if node["name"] == agent.name)
                            if {key["fingerprint"]: key["state"] for key in node["keys"]} != wanted:
                                return f"{other.name} is told that {agent.name} has {node['keys']}"
                        return None

                    eventually(untold, 10, 0.02)
                    longest = max(longest, time.monotonic() - began)
                own = {key["fingerprint"]: key["state"] for key in cluster[0].call("GET", "/v1/keys")["keys"]}
                assert own == wanted
        assert absences.faults == [] and absences.looks > len(cluster)
        assert [(agent.pid, agent.status()["node"]["incarnation"]) for agent in cluster] == runs
        for agent in cluster:
            counters = agent.counters()
            assert not counters.get("rx_unknown_key") and not counters.get("rx_bad_mac"), agent.name

        def missing() -> str | None:
            for key, value in absences.published:
                lacking = cluster.holders(key, value)
                if lacking:
                    return f"{key} is not on {lacking}"
            return None

        eventually(missing, 10)
        # The old key is worth nothing any more: whoever still has it is a stranger, and says so.
        stranger = cluster[2]
        stranger.settings["keys"] = keys(stranger, old="active")
        stranger.write_config()
        stranger.signal(signal.SIGHUP)
        eventually(lambda: None if cluster[0].counters().get("rx_unknown_key") else "no packet was rejected", 10)

        def silent() -> str | None:
            said = "it may have missed a rotation" in stranger.log_text() and stranger.status()["missed_rotation"]
            return None if said else "the stranger does not say what it lacks"

        eventually(silent, 60)
        cluster[0].publish("secret", b"not for strangers")
        before = cluster[0].counters()["rx_unknown_key"]
        eventually(lambda: None if cluster[0].counters()["rx_unknown_key"] > before + 3 else "nothing came", 30)
        assert stranger.read("secret") is None
    figure(
        "key rotation on 3",
        f"{len(absences.published)} publishes, {absences.looks} looks at lists that lacked nobody, "
        f"longest time from a reload until all members knew of it {longest:.2f} s",
    )
