# SPDX-License-Identifier: MIT
"""The source with real agents: what happens to them, and to the one that it asks, is told once."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Agent, Cluster

from .running import Source

ROOT = Path(__file__).resolve().parents[2]

#: Quick to notice, so that the tests are.
PACE = {"cycle": 0.4, "timeout": 2}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three agents that agree."""
    with Cluster(tmp_path / "agents", 3, **PACE) as agents:
        agents.form()
        yield agents


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()


def _watch(collections: Path, *agents: Agent, **arguments: Any) -> Source:
    endpoints = [f"unix://{agent.socket}" for agent in agents]
    return Source(collections, endpoints=endpoints, **{"initial": True, "settle": 1, **arguments})


def _port_of(event: dict[str, Any]) -> tuple[str, int]:
    return event["node"]["addr"], event["node"]["port"]


def test_a_fleet_lives(cluster: Cluster, collections: Path) -> None:
    first, second, third = cluster
    with _watch(collections, first) as source:
        joined = [source.next("join") for _ in cluster]
        assert {_port_of(event) for event in joined} == {(agent.ip, agent.port) for agent in cluster}
        assert all(event["initial"] for event in joined)
        source.next("convergence_reached")

        version = second.publish("shop/settings", b"{}")
        assert source.next()["document"]["version"] == version
        assert source.next("convergence_reached")["convergence"]["members"] == 3
        second.call("PATCH", "/v1/node", {"private_data": "rack 2"})
        event = source.next()
        assert (event["type"], event["changed"]) == ("update", ["private_data"])
        assert event["node"]["private_data"] == "rack 2"
        third.call("DELETE", "/v1/documents/shop/settings")
        assert source.next()["type"] == "document_deleted"
        assert source.next()["type"] == "convergence_reached"

        third.kill()
        assert [_port_of(source.next(kind)) for kind in ("suspect", "dead")] == [(third.ip, third.port)] * 2
        cluster.start([third])
        assert _port_of(source.next("join")) == (third.ip, third.port)
        second.call("POST", "/v1/node/leave")
        assert _port_of(source.next("leave")) == (second.ip, second.port)


def test_the_agent_that_is_asked_dies_and_nothing_is_told_twice(cluster: Cluster, collections: Path) -> None:
    first, second, third = cluster
    with _watch(collections, first, second) as source:
        source.next("convergence_reached")
        first.kill()
        third.publish("app", b"1")
        event = source.next("document_changed")
        assert event["endpoint"] == f"unix://{second.socket}"
        assert _port_of(source.next("dead")) == (first.ip, first.port)
        cluster.start([first])
        assert _port_of(source.next("join")) == (first.ip, first.port)
        source.rest(3.0)
    counts = Counter((event["type"], *_port_of(event)) for event in source.told if "node" in event)
    assert counts[("join", second.ip, second.port)] == counts[("join", third.ip, third.port)] == 1
    assert counts[("join", first.ip, first.port)] == 2  # at the start, and when it came back
    assert counts[("dead", first.ip, first.port)] == 1
    assert {key[0] for key in counts if key[1] != first.ip} == {"join"}
    assert Counter(event["type"] for event in source.told)["document_changed"] == 1


def test_the_only_agent_that_is_asked_is_started_anew(cluster: Cluster, collections: Path) -> None:
    first, second, third = cluster
    with _watch(collections, first, settle=0.3) as source:
        source.next("convergence_reached")
        second.publish("before", b"1")
        source.next("document_changed")
        source.next("convergence_reached")
        first.kill()
        source.next("fleet_unreachable")
        second.call("DELETE", "/v1/documents/before")
        second.publish("meanwhile", b"1")
        third.kill()
        time.sleep(0.5)
        cluster.start([first])
        source.next("fleet_reachable")
        wanted = {"document_deleted", "document_changed", "dead"}
        told = []
        while wanted - {event["type"] for event in told}:
            told.append(source.next())
        told += source.rest(3.0)
    counts = Counter(event["type"] for event in told)
    assert [counts[kind] for kind in sorted(wanted)] == [1, 1, 1]
    assert {_port_of(event) for event in told if event["type"] == "dead"} == {(third.ip, third.port)}


def test_a_token_is_sent_over_tcp_and_needed(tmp_path: Path, collections: Path) -> None:
    with Cluster(tmp_path / "agents", 1, **PACE) as agents:
        (agent,) = agents
        token = agent.write_secret("api.token", "a-token-of-the-tests")
        agent.settings["api"].update(listen=f"{agent.ip}:{agent.port + 1}", token_file=str(token))
        agents.form()
        url = f"http://{agent.ip}:{agent.port + 1}"
        with Source(collections, endpoints=[url], token_file=str(token), initial=True) as source:
            assert source.next("join")["node"]["name"] == agent.name
        with Source(collections, endpoints=[url], token="another", settle=0) as source:
            assert "401" in source.next("fleet_unreachable")["attempts"][0]["reason"]


def test_a_fleet_that_does_not_agree_is_told_with_those_behind(tmp_path: Path, collections: Path) -> None:
    # The second one takes no document of this size, so it stays behind.
    with Cluster(tmp_path / "agents", 2, **PACE) as agents:
        agents[1].settings["limits"] = {"document": 1024}
        agents.form()
        with _watch(collections, agents[0]) as source:
            source.next("convergence_reached")
            agents[0].publish("large", b"x" * 4096)
            found = source.next("convergence_lost")["convergence"]
            assert (found["members"], found["confirmed"]) == (2, 1)
            assert [laggard["addr"] for laggard in found["laggards"]] == [agents[1].ip]
            agents[0].call("DELETE", "/v1/documents/large")
            source.next("convergence_reached")


def test_the_loss_of_a_zone_is_one_event(tmp_path: Path, collections: Path) -> None:
    with Cluster(tmp_path / "zones", 5, **PACE) as cluster:
        for number, agent in enumerate(cluster):
            agent.settings["zone"] = "west" if number < 2 else "east"
            agent.write_config()
        cluster.form()
        west, east = list(cluster)[:2], list(cluster)[2:]
        with _watch(collections, *west) as source:
            source.next("convergence_reached")
            for agent in east:
                agent.kill()
            event = source.next("zone_lost")
            assert (event["zone"], event["members"]) == ("east", 3)
            assert {(node["addr"], node["name"]) for node in event["nodes"]} == {(a.ip, a.name) for a in east}
            cluster.start(east)
            assert source.next("zone_returned")["zone"] == "east"
            assert {_port_of(source.next("join")) for _ in east} == {(agent.ip, agent.port) for agent in east}
            alone = {event["type"] for event in source.told if "node" in event and not event["initial"]}
            assert alone <= {"join", "recover", "update"}


def test_a_document_that_a_member_refuses_is_told(tmp_path: Path, collections: Path) -> None:
    """The second one has another signer, so it publishes what the first one does not accept."""
    lines = []
    for name in ("alice", "eve"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        lines.append((tmp_path / f"{name}.pub").read_text().strip())
    with Cluster(tmp_path / "agents", 2, **PACE) as agents:
        for agent, line in zip(agents, lines):
            agent.settings["signers"] = [{"name": "alice", "public_key": line, "prefixes": ["app/"]}]
        agents.form()
        with _watch(collections, agents[0]) as source:
            source.next("convergence_reached")
            command = [
                "publish",
                "app/limits",
                "--value",
                "1",
                "--sign-key",
                str(tmp_path / "eve"),
                "--cluster",
                "default",
            ]
            program = [str(ROOT / "agent" / "bin" / "xdp-gossip"), "--socket", str(agents[1].socket), *command]
            done = subprocess.run(program, check=False, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
            assert done.returncode == 0, done
            refusal = source.next("document_refused")["refusal"]
            assert (refusal["key"], refusal["from"]) == ("app/limits", f"{agents[1].ip}:{agents[1].port}")
            assert refusal["version"] == str(agents[1].versions()["app/limits"])
            assert refusal["reason"].startswith("expected a signature of alice, got one by SHA256:")
            assert agents[0].read("app/limits") is None
