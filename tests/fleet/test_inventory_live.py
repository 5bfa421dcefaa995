# SPDX-License-Identifier: MIT
"""The inventory plugin against real agents: members that are gone or hang, the cache, and what a majority says.

Between Ansible and an agent stands a relay that takes notes, so that requests are counted where they arrive.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_ansible_plugins import Fleet, pytestmark  # noqa: F401  (the same needs)

HOSTS = {"host1", "host2", "host3"}


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("i"))
    try:
        fleet.wait_for_hosts(fleet.inventory(), HOSTS, 30)
        yield fleet
    finally:
        for pid in fleet.pids:  # a stopped one could not be waited for
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        fleet.close()


class Relay:
    """A Unix socket in front of an agent's; ``seen`` has (asked conditionally?, status) of each request."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target
        self.seen: list[tuple[bool, int]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as agent:
                client.settimeout(10)
                agent.settimeout(10)
                agent.connect(str(self._target))
                request = client.recv(65536)
                agent.sendall(request)
                answer = b""
                while chunk := agent.recv(65536):  # the client asks for "Connection: close"
                    answer += chunk
                self.seen.append((b"\r\nIf-None-Match:" in request, int(answer.split()[1])))
                client.sendall(answer)

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture(name="relay")
def fixture_relay(fleet: Fleet) -> Iterator[Relay]:
    path = fleet.directory / "relay.sock"
    relay = Relay(path, fleet.sockets[0])
    try:
        yield relay
    finally:
        relay.close()
        path.unlink()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A member that takes connections and says nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def urls(fleet: Fleet) -> list[str]:
    return [f"unix://{path}" for path in fleet.sockets]


def cached(fleet: Fleet, relay: Relay, name: str, **options: object) -> Path:
    return fleet.inventory(
        endpoints=[f"unix://{relay.path}"],
        cache=True,
        cache_plugin="ansible.builtin.jsonfile",
        cache_connection=str(fleet.directory / name),
        **options,
    )


def wait_for_agreement(fleet: Fleet) -> None:
    """Until every member sees all three alive: after a test that has stopped one."""
    for url in urls(fleet):
        fleet.wait_for_hosts(fleet.inventory(endpoints=[url]), HOSTS, 30)


def test_two_endpoints_are_gone_and_the_third_answers(fleet: Fleet) -> None:
    dead = ["unix:///does/not/exist", "http://127.0.0.1:9"]
    path = fleet.inventory(endpoints=[*dead, urls(fleet)[2]], retries=0, timeout=10)
    hosts = fleet.hosts(path)
    assert {name: host["ansible_host"] for name, host in hosts.items()} == {
        f"host{number}": f"198.18.77.{10 + number}" for number in (1, 2, 3)
    }
    assert all(set(host) == {"ansible_host", "xdp_gossip"} for host in hosts.values())


def test_an_endpoint_that_hangs_is_passed_over(fleet: Fleet) -> None:
    path = fleet.inventory(endpoints=urls(fleet), retries=0, timeout=1, states=["alive", "suspect", "dead"])
    with stopped(fleet.pids[0]):
        assert set(fleet.hosts(path)) == HOSTS
    wait_for_agreement(fleet)


def test_when_all_are_gone_each_is_named_with_its_reason(fleet: Fleet) -> None:
    endpoints = [urls(fleet)[0], "unix:///does/not/exist", "http://127.0.0.1:9"]
    with stopped(fleet.pids[0]):
        for consistency in ("one", "majority"):
            path = fleet.inventory(endpoints=endpoints, retries=0, timeout=1, consistency=consistency)
            output = " ".join(fleet.run("ansible-inventory", "-i", str(path), "--list", fails=True).split())
            for url, reason in zip(endpoints, ("no complete answer", "No such file", "Connection refused")):
                assert f"{url}: {reason}" in output
    wait_for_agreement(fleet)


def test_a_warm_run_asks_nobody_and_then_for_news_only(fleet: Fleet, relay: Relay) -> None:
    path = cached(fleet, relay, "warm", cache_timeout=3600)
    cold = fleet.hosts(path)
    assert set(cold) == HOSTS and relay.seen == [(False, 200)]
    assert fleet.hosts(path) == cold and relay.seen == [(False, 200)]
    # Heartbeats have come in meanwhile; the agent's tag does not change by them.
    path = cached(fleet, relay, "warm", cache_timeout=1)
    time.sleep(1.1)
    assert fleet.hosts(path) == cold and relay.seen == [(False, 200), (True, 304)]
    fleet.play([{"xdp_gossip.fleet.xdp_gossip_node": {"private_data": "new"}}], members="1")
    deadline = time.monotonic() + 20
    while fleet.hosts(path)["host2"]["xdp_gossip"]["private_data"] != "new":
        assert time.monotonic() < deadline, relay.seen
        time.sleep(0.3)
    assert relay.seen[-1] == (True, 200)


def test_flushing_and_refreshing_ask_for_everything(fleet: Fleet, relay: Relay) -> None:
    path = cached(fleet, relay, "flushed", cache_timeout=3600)
    play = fleet.directory / "refresh.yml"
    tasks = [{"meta": "refresh_inventory"}]
    play.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    fleet.hosts(path)
    fleet.run("ansible-inventory", "-i", str(path), "--list", "--flush-cache")
    assert relay.seen == [(False, 200)] * 2
    fleet.run("ansible-playbook", "-i", str(path), str(play))
    assert relay.seen == [(False, 200)] * 3  # the play's start was served from the cache
    fleet.run("ansible-playbook", "-i", str(path), str(play), "--flush-cache")
    assert relay.seen == [(False, 200)] * 5


def test_filters_and_parsed_data_of_real_nodes(fleet: Fleet) -> None:
    for index, zone in enumerate("aab"):
        node = {"private_data": json.dumps({"zone": zone})}
        fleet.play([{"xdp_gossip.fleet.xdp_gossip_node": node}], members=str(index))
    path = fleet.inventory(
        private_data_format="json",
        filters=[{"exclude": "(xdp_gossip.data or {}).zone | default('b') == 'b'"}],
        hostnames=["xdp_gossip.data.zone ~ '-' ~ xdp_gossip.name"],
    )
    fleet.wait_for_hosts(path, {"a-host1", "a-host2"}, 60)
    assert fleet.hosts(path)["a-host2"]["xdp_gossip"]["data"] == {"zone": "a"}


def test_zones_of_real_nodes(fleet: Fleet) -> None:
    by_zone = {"key": "xdp_gossip.zone", "prefix": "zone", "default_value": "none"}
    path = fleet.inventory(strict=True, keyed_groups=[by_zone])
    fleet.wait_for_hosts(path, HOSTS, 60)
    assert {name: node["xdp_gossip"]["zone"] for name, node in fleet.hosts(path).items()} == {
        "host1": "a",
        "host2": "a",
        "host3": "",
    }
    shown = fleet.run("ansible-inventory", "-i", str(path), "--list")
    listed = json.JSONDecoder().raw_decode(shown[shown.index("{") :])[0]
    assert sorted(listed["zone_a"]["hosts"]) == ["host1", "host2"] and listed["zone_none"]["hosts"] == ["host3"]
    path = fleet.inventory(filters=[{"exclude": "xdp_gossip.zone == 'a'"}])
    assert set(fleet.hosts(path)) == {"host3"}


def test_a_majority_does_without_one_member_but_not_without_two(fleet: Fleet) -> None:
    path = fleet.inventory(
        endpoints=urls(fleet), consistency="majority", retries=0, timeout=2, states=["alive", "suspect", "dead"]
    )
    assert set(fleet.hosts(path)) == HOSTS
    with stopped(fleet.pids[2]):
        assert set(fleet.hosts(path)) == HOSTS
        with stopped(fleet.pids[1]):
            output = " ".join(fleet.run("ansible-inventory", "-i", str(path), "--list", fails=True).split())
    assert "1 of 3 endpoints answered, expected at least 2" in output
    assert all(f"{url}: no complete answer within 2 s" in output for url in urls(fleet)[1:])
    wait_for_agreement(fleet)


def test_a_member_that_is_killed_drops_out_of_what_a_majority_says(fleet: Fleet) -> None:
    """Last, because it takes one away."""
    path = fleet.inventory(endpoints=urls(fleet), consistency="majority", retries=0, timeout=2)
    os.kill(fleet.pids[2], signal.SIGKILL)
    fleet.wait_for_hosts(path, {"host1", "host2"}, 90)
    killed = fleet.inventory(endpoints=[urls(fleet)[2]], retries=0)
    output = " ".join(fleet.run("ansible-inventory", "-i", str(killed), "--list", fails=True).split())
    assert f"{urls(fleet)[2]}: Connection refused" in output
