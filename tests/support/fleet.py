# SPDX-License-Identifier: MIT
"""A fleet of agents as processes on loopback addresses, and what a test asks of its members.

:class:`Cluster` ends its agents and shows their logs when a test fails. Every wait has a deadline.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from tests.support.keys import KEY
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import AgentError, AgentProcess
from xdp_gossip.core.types import Version
from xdp_gossip.store.sqlite import Snapshot, Store

SECRET = KEY

_subnets = itertools.count(os.getpid() % 200)


class Agent(AgentProcess):
    """A member of a fleet, and what a test asks of it."""

    def __init__(self, directory: Path, number: int, ip: str, port: int, settings: dict[str, Any]) -> None:
        super().__init__(
            directory, f"node{number}", ip, port, SECRET, {"listen_addr": ip, "protocol": "UDP", **settings}
        )
        self.number = number
        self.address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

    def counters(self) -> dict[str, int]:
        """The counters of /v1/status."""
        return dict(self.status()["counters"])

    def nodes(self, state: str = "alive,suspect") -> list[dict[str, Any]]:
        """The NodeList."""
        return list(self.call("GET", f"/v1/nodes?state={state}")["nodes"])

    def listed(self, state: str = "alive,suspect") -> set[str]:
        """Addresses in the NodeList. An address twice is an error whatever the test is about."""
        addresses = [address_of(node) for node in self.nodes(state)]
        if len(addresses) != len(set(addresses)):
            raise AgentError(f"{self.name} lists a node twice: {sorted(addresses)}")
        return set(addresses)

    def publish(self, key: str, value: bytes) -> str:
        """PUT a document; returns its version."""
        return str(self.call("PUT", f"/v1/documents/{quote(key)}", value)["version"])

    def read(self, key: str) -> bytes | None:
        """The value held here."""
        answer = self.ask("GET", f"/v1/documents/{quote(key)}")
        if answer.status == 404:
            return None
        assert answer.status == 200, answer
        return answer.body

    def versions(self) -> dict[str, Version]:
        """The version of every document held here."""
        return {doc["key"]: Version.parse(doc["version"]) for doc in self.call("GET", "/v1/documents")["documents"]}

    def convergence(self, timeout: float, **query: str) -> dict[str, Any]:
        """GET /v1/convergence with wait=all."""
        text = "".join(f"&{key}={quote(value)}" for key, value in query.items())
        return dict(self.call("GET", f"/v1/convergence?wait=all&timeout={timeout:g}{text}"))

    def disk(self) -> Snapshot:
        """What its state directory holds, read from a copy; the agent must not run."""
        assert not self.running
        copy = self.directory / "copy-of-state"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.state_dir, copy)
        store = Store.open(copy / "state.db")
        try:
            snapshot = store.load()
            assert not store.problems, f"{self.name}: {store.problems}"
            return snapshot
        finally:
            store.close()


class Cluster:
    """A fleet of agents, ended when the ``with`` block ends, whatever happened in it."""

    def __init__(self, directory: Path, count: int, *, ipv6: bool = False, **settings: Any) -> None:
        self.directory = directory
        subnet = next(_subnets) % 250 + 1
        self.agents: list[Agent] = []
        port = free_port()
        for number in range(1, count + 1):
            # The loopback network has one IPv6 address: there the ports differ.
            ip, own_port = ("::1", port + number) if ipv6 else (f"127.77.{subnet}.{number}", port)
            self.agents.append(Agent(directory / f"n{number}", number, ip, own_port, dict(settings)))
        for agent in self.agents:
            agent.settings["seeds"] = [seed.address for seed in self.agents[:2]]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self.show_logs()
        finally:
            for agent in self.agents:
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    agent.kill()

    def show_logs(self) -> None:
        """The logs' ends, on standard error, where pytest keeps them for the report."""
        for agent in self.agents:
            state = "runs" if agent.running else "does not run"
            print(f"--- {agent.name} {agent.address} ({state}):\n{agent.log_tail(15)}", file=sys.stderr)

    def __iter__(self) -> Iterator[Agent]:
        return iter(self.agents)

    def __len__(self) -> int:
        return len(self.agents)

    def __getitem__(self, index: int) -> Agent:
        return self.agents[index]

    @property
    def running(self) -> list[Agent]:
        """Agents whose process exists."""
        return [agent for agent in self.agents if agent.running]

    def start(self, agents: Iterable[Agent] | None = None, seconds: float = 60.0) -> None:
        """Start agents (default: all) and wait until each serves its API."""
        chosen = list(agents if agents is not None else self.agents)
        for agent in chosen:
            agent.start()
        for agent in chosen:
            eventually(agent.not_ready, seconds)

    def form(self, seconds: float = 60.0) -> float:
        """Start all and wait until they agree; returns how long the agreement took once all served."""
        self.start()
        return eventually(self.disagreement, seconds)

    def disagreement(self, agents: Iterable[Agent] | None = None) -> str | None:
        """What ``agents`` (default: those that run) do not agree on yet: who is there and what they say of
        themselves, and the documents. None when all is equal and right."""
        chosen = list(agents if agents is not None else self.running)
        expected = {agent.address for agent in chosen}
        seen: dict[str, tuple[str, str]] = {}
        digests = set()
        for agent in chosen:
            answer = agent.call("GET", "/v1/nodes?state=alive,suspect")
            digests.add(answer["digest"])
            nodes = {address_of(node): node for node in answer["nodes"]}
            if set(nodes) != expected:
                return f"{agent.name} lists {sorted(nodes)}, expected {sorted(expected)}"
            for address, node in nodes.items():
                if node["state"] != "alive":
                    return f"{agent.name} holds {address} for {node['state']}"
                said = (node["name"], node["private_data"])
                if not node["record_known"] or seen.setdefault(address, said) != said:
                    return f"{agent.name} lists {address} as {said}, another as {seen.get(address)}"
        return None if len(digests) == 1 else f"documents digests differ: {sorted(digests)}"

    def holders(self, key: str, value: bytes) -> list[str]:
        """Names of the running agents that do not hold ``value`` right now."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            held = list(pool.map(lambda agent: agent.read(key), self.running))
        return [agent.name for agent, found in zip(self.running, held) if found != value]


def address_of(node: dict[str, Any]) -> str:
    """The address of a NODE of the API, as text."""
    return f"[{node['addr']}]:{node['port']}" if ":" in node["addr"] else f"{node['addr']}:{node['port']}"


#: Seconds that every wait may take: what comes in a moment takes a busy machine longer.
NET = 30.0


def eventually(missing: Callable[[], str | None], seconds: float, pause: float = 0.1) -> float:
    """Wait until ``missing()`` returns None; returns the seconds it took.

    Raises ``AssertionError`` with its text after ``seconds``, or NET if that is longer: that something is soon enough
    is proved by events, not by this bound.
    """
    began = time.monotonic()
    while True:
        text = missing()
        took = time.monotonic() - began
        if text is None:
            return took
        assert took < patient(max(seconds, NET)), f"after {took:.1f} s: {text}"
        time.sleep(pause)


def always(wrong: Callable[[], str | None], seconds: float, pause: float = 0.1) -> None:
    """Look for ``seconds``; ``wrong()`` must return None each time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = wrong()
        assert text is None, text
        time.sleep(pause)
