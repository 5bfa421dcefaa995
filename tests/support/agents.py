# SPDX-License-Identifier: MIT
"""Real agents on loopback: in this process, or as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.patience import patient
from tests.support.ports import free_port
from xdp_gossip.core.types import Node
from xdp_gossip.nodelist import AsyncNodeList

ROOT = Path(__file__).resolve().parents[2]
COMMAND = str(ROOT / "agent" / "bin" / "xdp-gossip")
SECRET = "a secret of the tests"
TOKEN = "a-token-of-the-tests"


@contextlib.asynccontextmanager
async def cluster(count: int, cycle: float = 0.2) -> AsyncIterator[list[AsyncNodeList]]:
    """So many node lists that know each other."""
    nodes = [Node("127.0.0.1", free_port(), f"n{number}", "rack 1") for number in range(1, count + 1)]
    lists = []
    try:
        for node in nodes:
            node_list = AsyncNodeList(amount=3, cycle=cycle, secret_key=SECRET)
            lists.append(node_list)
            node_list.new(node)
            if node is not nodes[0]:
                node_list.set(nodes[0])
            await node_list.join()
        yield lists
    finally:
        for node_list in lists:
            await node_list.close()


@dataclass
class AgentProcess:
    """An agent running in a directory of its own."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> str:
        """Its API socket."""
        return str(self.directory / "api.sock")

    @property
    def log(self) -> str:
        """What it wrote to stderr and stdout."""
        return (self.directory / "log").read_text()

    def command(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run the command line against it."""
        return command("--socket", self.socket, *words, stdin=stdin)

    def json(self, *words: str) -> Any:
        """The JSON that a command prints; it has to succeed."""
        done = self.command("--json", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def wait_until(self, text: str, seconds: float = 20.0) -> None:
        """Until the log contains ``text``."""
        deadline = time.monotonic() + patient(seconds)
        while text not in self.log:
            assert time.monotonic() < deadline, f"no {text!r} in the log:\n{self.log}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


def command(*words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDP_GOSSIP")}
    return subprocess.run([COMMAND, *words], input=stdin, capture_output=True, timeout=60, check=False, env=environment)


def write_config(directory: Path, port: int, **more: Any) -> Path:
    """A configuration file with its secret and token."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("secret.key", SECRET), ("api.token", TOKEN)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    config = {
        "node": {"addr": "127.0.0.1", "port": port, "name": directory.name},
        "listen_addr": "127.0.0.1",
        "secret_key_file": "secret.key",
        "cycle": 0.2,
        "state_dir": str(directory / "state"),
        "api": {"socket": str(directory / "api.sock")},
        **more,
    }
    path = directory / "agent.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


@contextlib.contextmanager
def agent(
    directory: Path,
    port: int | None = None,
    *,
    environment: dict[str, str] | None = None,
    ready: str = "runs as",
    **more: Any,
) -> Iterator[AgentProcess]:
    """Run an agent until the block ends; it is killed when it does not end by itself.

    ``ready`` is what its log has to say before the block begins.
    """
    port = port or free_port()
    path = write_config(directory, port, **more)
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            [COMMAND, "agent", "--config", str(path)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    running = AgentProcess(directory, port, process)
    try:
        running.wait_until(ready)
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
