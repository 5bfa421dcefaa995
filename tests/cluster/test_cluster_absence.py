# SPDX-License-Identifier: MIT
"""Nodes that leave, stop, die or freeze: who drops them, when, and how they come back."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.fleet import Agent, Cluster, address_of, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CYCLE, TIMEOUT = 0.5, 2.5
#: Rounds of probes before a silent node is given up, half a cycle apart; each failed one may worsen a member's
#: local health and stretch the gaps. One second more for the clocks' ticks, two for a busy machine.
SUSPICION = 3 * CYCLE / 2 * 3 + 3


@pytest.fixture
def five(tmp_path: Path) -> Iterator[Cluster]:
    """Five agents that agree."""
    with Cluster(tmp_path, 5, cycle=CYCLE, timeout=TIMEOUT) as cluster:
        cluster.form()
        yield cluster


def dropped_by_all(cluster: Cluster, gone: Agent) -> Callable[[], str | None]:
    """A condition: no other running agent lists ``gone``."""

    def listed() -> str | None:
        for agent in cluster.running:
            if agent is not gone and gone.address in agent.listed():
                return f"{agent.name} still lists {gone.name}"
        return None

    return listed


def early(cluster: Cluster, gone: Agent) -> list[str]:
    """Who dropped ``gone`` although it had heard it within the timeout."""
    found = []
    for agent in cluster.running:
        for node in agent.nodes("all") if agent is not gone else []:
            if address_of(node) == gone.address and node["last_heard"] < TIMEOUT:
                found.append(f"{agent.name} heard {gone.name} {node['last_heard']} s ago")
    return found


def back_with_all(cluster: Cluster, node: Agent) -> Callable[[], str | None]:
    """A condition: every running agent lists ``node``."""

    def missing() -> str | None:
        for agent in cluster.running:
            if node.address not in agent.listed("alive"):
                return f"{agent.name} does not list {node.name}"
        return None

    return missing


def node_events(agent: Agent, since: int) -> list[tuple[str, str]]:
    """(event, address) of every change in ``agent``'s NodeList after revision ``since``."""
    found: dict[str, Any] = agent.call("GET", f"/v1/watch?since={since}&timeout=0")
    assert not found["gap"], "the change log does not reach back to the revision"
    changes = [change for change in found["changes"] if change["kind"] == "node"]
    return [(change["event"], f"{change['node']['addr']}:{change['node']['port']}") for change in changes]


def revision(agent: Agent) -> int:
    """The newest revision of ``agent``'s change log."""
    return int(agent.call("GET", "/v1/nodes")["revision"])


def test_leave_is_at_once_and_lasts(five: Cluster, figure: Callable[[str, str], None]) -> None:
    leaver = five[2]
    marks = {agent.name: revision(agent) for agent in five}
    began = time.monotonic()
    assert leaver.call("POST", "/v1/node/leave") == {"state": "left", "changed": True}
    eventually(dropped_by_all(five, leaver), TIMEOUT, pause=0.02)
    figure("leave: dropped by all after", f"{time.monotonic() - began:.2f} s")
    # It runs on, and nobody takes it back.
    end = time.monotonic() + TIMEOUT + 3 * CYCLE
    while time.monotonic() < end:
        assert dropped_by_all(five, leaver)() is None
        time.sleep(0.1)
    for agent in five:
        if agent is not leaver:
            events = node_events(agent, marks[agent.name])
            assert ("left", leaver.address) in events
            assert not [event for event in events if event[0] in ("suspected", "removed")], (
                agent.name,
                events,
            )
    assert leaver.call("POST", "/v1/node/start")["changed"]
    eventually(back_with_all(five, leaver), 5)


def test_stop_drops_after_the_timeout_and_start_brings_back(five: Cluster, figure: Callable[[str, str], None]) -> None:
    sleeper = five[1]
    assert sleeper.call("POST", "/stop") is not None
    began = time.monotonic()
    eventually(dropped_by_all(five, sleeper), 1.5 * CYCLE + SUSPICION, pause=0.05)
    assert early(five, sleeper) == []
    took = time.monotonic() - began
    # It hears all the same.
    five[3].publish("while stopped", b"news")
    eventually(lambda: None if sleeper.read("while stopped") == b"news" else "the stopped node hears nothing", 5)
    sleeper.call("POST", "/start")
    back = eventually(back_with_all(five, sleeper), 3, pause=0.02)
    eventually(five.disagreement, 10)
    figure(f"stop (timeout {TIMEOUT} s): dropped by all after", f"{took:.2f} s; start: back after {back:.2f} s")


def test_killed_is_dropped_after_timeout_and_suspicion(five: Cluster, figure: Callable[[str, str], None]) -> None:
    victim = five[4]
    marks = {agent.name: revision(agent) for agent in five}
    victim.kill()
    took = eventually(dropped_by_all(five, victim), TIMEOUT + SUSPICION, pause=0.05)
    assert early(five, victim) == []
    for agent in five.running:
        events = node_events(agent, marks[agent.name])
        assert [address for event, address in events if event == "removed"] == [victim.address], (
            agent.name,
            events,
        )
    victim.start()
    eventually(victim.not_ready, 30)
    back = eventually(back_with_all(five, victim), 5)
    figure(
        f"kill (timeout {TIMEOUT} s): dropped by all after",
        f"{took:.2f} s; restarted: back after {back:.2f} s",
    )


def test_frozen_agent_comes_back_and_accuses_nobody(five: Cluster, figure: Callable[[str, str], None]) -> None:
    sleeper = five[0]
    marks = {agent.name: revision(agent) for agent in five}
    sleeper.signal(signal.SIGSTOP)
    eventually(dropped_by_all_but_frozen(five, sleeper), TIMEOUT + SUSPICION)
    five[3].publish("while frozen", b"news")
    time.sleep(2 * TIMEOUT)
    sleeper.signal(signal.SIGCONT)
    back = eventually(back_with_all(five, sleeper), 10, pause=0.05)
    eventually(five.disagreement, 10)
    assert sleeper.read("while frozen") == b"news"
    # Time for a late accusation to show.
    time.sleep(TIMEOUT)
    for agent in five:
        events = node_events(agent, marks[agent.name])
        removed = {address for event, address in events if event == "removed"}
        assert removed == (set() if agent is sleeper else {sleeper.address}), (agent.name, events)
    assert sleeper.counters()["own_stalls"] >= 1
    suspected = [event for event in node_events(sleeper, marks[sleeper.name]) if event[0] == "suspected"]
    figure("frozen for 3 timeouts", f"back {back:.2f} s after SIGCONT, suspected {len(suspected)} others")


def dropped_by_all_but_frozen(cluster: Cluster, frozen: Agent) -> Callable[[], str | None]:
    """As :func:`dropped_by_all`, without asking the one that cannot answer."""
    return lambda: next(
        (
            f"{agent.name} still lists {frozen.name}"
            for agent in cluster
            if agent is not frozen and frozen.address in agent.listed()
        ),
        None,
    )
