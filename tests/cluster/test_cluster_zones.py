# SPDX-License-Identifier: MIT
"""Five agents in two zones: the loss of a zone is one line of the log, and one change of the feed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Agent, Cluster, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def zone_changes(agent: Agent, since: int) -> list[dict[str, Any]]:
    found = agent.call("GET", f"/v1/watch?since={since}&timeout=0&kind=zone")
    assert not found["gap"]
    changes: list[dict[str, Any]] = found["changes"]
    return changes


def told(agents: list[Agent], since: dict[str, int], event: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        for agent in agents:
            if [change["event"] for change in zone_changes(agent, since[agent.name])] != [event]:
                return f"{agent.name} has not told {event}"
        return None

    return missing


def now_of(agents: list[Agent]) -> dict[str, int]:
    return {agent.name: agent.call("GET", "/v1/watch?timeout=0")["revision"] for agent in agents}


def test_the_loss_of_a_zone_is_told_once(tmp_path: Path) -> None:
    with Cluster(tmp_path, 5, cycle=0.5, timeout=2.5) as cluster:
        for number, agent in enumerate(cluster):
            agent.settings["zone"] = "west" if number < 2 else "east"
            agent.write_config()
        cluster.form()
        west, east = list(cluster)[:2], list(cluster)[2:]
        zones = {node["name"]: node["zone"] for node in west[0].nodes()}
        assert zones == {agent.name: agent.settings["zone"] for agent in cluster}

        since = now_of(west)
        for agent in east:
            agent.kill()
        eventually(told(west, since, "lost"), 120.0)
        for agent in west:
            (change,) = zone_changes(agent, since[agent.name])
            assert change["zone"] == {"name": "east", "members": 3}
            assert agent.log_text().count("zone 'east' is lost: none of its 3 members is present") == 1
            line = agent.command("watch", f"--since={since[agent.name]}", "--timeout=0.5").stdout.decode()
            assert line.count("zone lost: east (3 members gone)") == 1
        lines = west[0].command("watch", f"--since={since[west[0].name]}", "--timeout=0.5", "--json").stdout
        assert [change["kind"] for change in map(json.loads, lines.splitlines())][-1] == "zone"

        since = now_of(west)
        cluster.start(east)
        eventually(told(west, since, "returned"), 120.0)
        assert all("zone 'east' is back" in agent.log_text() for agent in west)
