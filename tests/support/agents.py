# SPDX-License-Identifier: MIT
"""Agents on 127.0.0.1 that know their secret and token: in this process, or one as a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from tests.support.keys import KEY
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import AgentProcess
from xdp_gossip.core.types import Node
from xdp_gossip.nodelist import AsyncNodeList

SECRET = KEY
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


def configured(directory: Path, port: int, **more: Any) -> AgentProcess:
    """An agent that was not started yet, on 127.0.0.1, with the file ``api.token`` beside its secret.

    ``more`` are settings of its configuration.
    """
    settings = {"listen_addr": "127.0.0.1", "cycle": 0.2, **more}
    made = AgentProcess(directory, directory.name, "127.0.0.1", port, SECRET, settings)
    made.write_secret("api.token", TOKEN)
    return made


def write_config(directory: Path, port: int, **more: Any) -> Path:
    """The configuration file of an agent that nobody starts here. See :func:`configured`."""
    return configured(directory, port, **more).write_config()


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

    ``ready`` is what its log has to say before the block begins. See :func:`configured` for ``more``.
    """
    running = configured(directory, port or free_port(), **more)
    running.log.unlink(missing_ok=True)  # of an earlier run, which said ``ready``, too
    running.start(environment=environment)
    try:
        running.wait_until_logged(ready)
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(patient(15))
        running.kill()
