# SPDX-License-Identifier: MIT
"""Real agents as processes on loopback addresses, and what a test asks of them.

Each agent is one process group of its own, dies with the test process (``setpriv --pdeathsig``), and writes its log
into its directory; :class:`Cluster` shows the logs when a test fails. Every wait has a deadline.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import yaml

from tests.support.patience import patient
from tests.support.ports import free_port
from xdp_gossip.core.types import Version
from xdp_gossip.store.sqlite import Snapshot, Store

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "agent" / "bin" / "xdp-gossip"
SECRET = "the secret of the acceptance tests"
#: Seconds for one answer. Long, because the machine may be busy; nothing here should come near it.
ANSWER_SECONDS = patient(30.0)
#: Seconds until a process that was asked to end is killed.
END_SECONDS = patient(15.0)
_LOG_LINES = 40

_subnets = itertools.count(os.getpid() % 200)


class AgentError(AssertionError):
    """An agent did not do what a test relies on."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Agent:
    """One agent: its directory, its configuration, its process if it runs, and its API."""

    def __init__(self, directory: Path, number: int, ip: str, port: int, settings: dict[str, Any]) -> None:
        directory.mkdir()
        self.directory = directory
        self.number = number
        self.ip, self.port = ip, port
        self.address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        self.name = f"node{number}"
        self.socket = directory / "api.sock"
        self.state_dir = directory / "state"
        self.log = directory / "log"
        #: Command words before the agent's own, to run it elsewhere (``ip netns exec NAME``).
        self.prefix: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None
        secret = self.write_secret("secret.key", SECRET)
        self.settings: dict[str, Any] = {
            "node": {"addr": ip, "port": port, "name": self.name, "private_data": ""},
            "listen_addr": ip,
            "protocol": "UDP",
            "secret_key_file": str(secret),
            "state_dir": str(self.state_dir),
            "api": {"socket": str(self.socket)},
            **settings,
        }

    def write_secret(self, name: str, secret: str) -> Path:
        """A secret file in the agent's directory."""
        path = self.directory / name
        path.write_text(secret + "\n")
        path.chmod(0o600)
        return path

    # -- the process -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Write the configuration and start the process; does not wait. From the main thread only: the kernel
        ends a child with the thread that made it."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        config = self.directory / "agent.yml"
        config.write_text(yaml.safe_dump(self.settings))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    *self.prefix,
                    str(COMMAND),
                    "agent",
                    "--config",
                    str(config),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                # As the systemd unit has it (roles/agent/templates).
                env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            )

    @property
    def pid(self) -> int:
        """Process id of the running agent."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(END_SECONDS)

    def stop(self) -> int:
        """SIGTERM; returns the exit status. Raises :class:`AgentError` when the agent does not end."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AgentError(f"{self.name} did not end within {END_SECONDS:g} s of SIGTERM") from None

    def not_ready(self) -> str | None:
        """What keeps the agent from serving; None when it serves. Raises :class:`AgentError` when it ended."""
        if not self.running:
            status = self.process.returncode if self.process is not None else None
            raise AgentError(f"{self.name} ended with status {status}:\n{self.log_tail()}")
        try:
            answer = self.ask("GET", "/v1/health")
        except (OSError, HTTPException) as error:
            return f"{self.name} does not answer: {error}"
        return None if answer.status == 200 else f"{self.name} is {answer.json}"

    def log_tail(self, lines: int = _LOG_LINES) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return "(no log)"

    # -- its API -----------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request, as it is. Raises ``OSError`` or ``HTTPException`` when there is no answer."""
        connection = _UnixConnection(str(self.socket))
        with contextlib.closing(connection):
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, response.read(), dict(response.getheaders()))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request whose success is taken for granted; returns its JSON. Raises :class:`AgentError` otherwise."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = self.ask(method, path, raw)
        if answer.status >= 300:
            raise AgentError(f"{self.name}: {method} {path}: {answer.status} {answer.body[:500]!r}")
        return answer.json

    def status(self) -> Any:
        """GET /v1/status."""
        return self.call("GET", "/v1/status")

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
        return None if len(digests) == 1 else f"state digests differ: {sorted(digests)}"

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
