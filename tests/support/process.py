# SPDX-License-Identifier: MIT
"""An agent as a process of its own: its configuration, its start and end, its log, its command line and its API."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

from tests.support.patience import patient

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "agent" / "bin" / "xdp-gossip"
#: Seconds for one answer. Long, because the machine may be busy; nothing here should come near it.
ANSWER_SECONDS = patient(30.0)
#: Seconds until a process that was asked to end is killed.
END_SECONDS = patient(20.0)
_COMMAND_SECONDS = patient(60.0)
_LOG_LINES = 40


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


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, seconds: float = ANSWER_SECONDS) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class AgentProcess:
    """One agent. Its configuration, secrets, state, socket and log lie in a directory of its own."""

    #: What is raised when the agent does not do what its user relies on.
    failure: type[Exception] = AgentError

    def __init__(
        self, directory: Path, name: str, ip: str, port: int, secret: str, settings: Mapping[str, Any]
    ) -> None:
        """``settings`` go into the configuration file, over the few that stand there anyway."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.name = name
        self.ip, self.port = ip, port
        self.config = directory / "agent.yml"
        self.socket = directory / "api.sock"
        self.state_dir = directory / "state"
        self.log = directory / "log"
        #: Command words before the agent's own, to run it elsewhere (``ip netns exec NAME``).
        self.prefix: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, Any] = {
            "node": {"addr": ip, "port": port, "name": name},
            "secret_key_file": str(self.write_secret("secret.key", secret)),
            "state_dir": str(self.state_dir),
            "api": {"socket": str(self.socket)},
            **settings,
        }

    # -- its files ---------------------------------------------------------------------------------------------

    def write_secret(self, name: str, secret: str) -> Path:
        """A secret file in the agent's directory."""
        path = self.directory / name
        path.write_text(secret + "\n")
        path.chmod(0o600)
        return path

    def write_config(self) -> Path:
        """The configuration file, written from ``settings``."""
        self.config.write_text(json.dumps(self.settings))  # JSON is YAML
        return self.config

    def log_text(self) -> str:
        """What it wrote to stdout and stderr; empty before the first start."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines: int = _LOG_LINES) -> str:
        """The end of its log."""
        return "\n".join(self.log_text().splitlines()[-lines:]) or "(no log)"

    def wait_until_logged(self, text: str, seconds: float = 20.0) -> None:
        """Wait until the log contains ``text``. Raises :attr:`failure` with the log after ``seconds`` (patient)."""
        deadline = time.monotonic() + patient(seconds)
        while text not in self.log_text():
            if time.monotonic() > deadline:
                raise self.failure(f"{self.name}: expected {text!r} in the log:\n{self.log_text()}")
            time.sleep(0.05)

    # -- the process -------------------------------------------------------------------------------------------

    def start(self, command: Sequence[str] = (str(COMMAND),), environment: Mapping[str, str] | None = None) -> None:
        """Write the configuration and start the process; does not wait.

        ``command``: words that stand for the installed command. From the main thread only: the kernel ends a child
        with the thread that made it.
        """
        if self.running:
            raise self.failure(f"{self.name} runs already")
        self.write_config()
        dying = ("setpriv", "--pdeathsig", "KILL")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*dying, *self.prefix, *command, "agent", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                # As the systemd unit has it (roles/agent/templates).
                env={**os.environ, "MALLOC_ARENA_MAX": "1", **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Process id of the agent: each command before it becomes the next."""
        if self.process is None:
            raise self.failure(f"{self.name} was never started")
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: Signals) -> None:
        """Send a signal to the agent."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9 to its process group, and wait for the end."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, SIGKILL)
            self.process.wait(END_SECONDS)

    def stop(self, number: Signals = SIGTERM) -> int:
        """Send a signal that ends the agent; returns the exit status. Raises :attr:`failure` when it does not end."""
        pid = self.pid
        self.signal(number)
        assert self.process is not None
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.failure(
                f"{self.name} ({pid}) did not end within {END_SECONDS:g} s of {number!r}:\n{self.log_tail()}"
            ) from None

    # -- what it is asked --------------------------------------------------------------------------------------

    def command(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run the command line against it."""
        return command("--socket", str(self.socket), *words, stdin=stdin)

    def json(self, *words: str) -> Any:
        """The JSON that a command prints. Raises :attr:`failure` when the command fails."""
        done = self.command("--json", *words)
        if done.returncode:
            raise self.failure(f"{self.name}: {' '.join(words)}: status {done.returncode}: {done.stderr!r}")
        return json.loads(done.stdout)

    def not_ready(self) -> str | None:
        """What keeps the agent from serving; None when it serves. Raises :attr:`failure` when it ended."""
        if not self.running:
            status = self.process.returncode if self.process is not None else None
            raise self.failure(f"{self.name} ended with status {status}:\n{self.log_tail()}")
        try:
            answer = self.ask("GET", "/v1/health")
        except (OSError, HTTPException) as error:
            return f"{self.name} does not answer: {error}"
        return None if answer.status == 200 else f"{self.name} is {answer.json}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request, as it is. Raises ``OSError`` or ``HTTPException`` when there is no answer."""
        with contextlib.closing(UnixConnection(self.socket)) as connection:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, response.read(), dict(response.getheaders()))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request whose success is taken for granted; returns its JSON. Raises :attr:`failure` otherwise."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = self.ask(method, path, raw)
        if answer.status >= 300:
            raise self.failure(f"{self.name}: {method} {path}: {answer.status} {answer.body[:500]!r}")
        return answer.json

    def status(self) -> Any:
        """GET /v1/status."""
        return self.call("GET", "/v1/status")


def command(*words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command line, without what the caller's environment sets for it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDP_GOSSIP")}
    return subprocess.run(
        [str(COMMAND), *words], input=stdin, capture_output=True, timeout=_COMMAND_SECONDS, check=False, env=environment
    )
