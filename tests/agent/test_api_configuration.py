# SPDX-License-Identifier: MIT
"""What the agent tells of its settings and its process: GET /v1/configuration, ``process`` and ``key_id``."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from api_harness import serving
from fake_node_list import FakeNodeList

from tests.support.agents import SECRET, agent
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import AgentProcess
from xdp_gossip.api import process
from xdp_gossip.api.client import Client
from xdp_gossip.wire.keys import derive

pytestmark = pytest.mark.slow
T = TypeVar("T")


def ask(running: AgentProcess, work: Callable[[Client], Awaitable[T]]) -> T:
    """What a client gets from an agent."""

    async def main() -> T:
        async with Client(f"unix://{running.socket}") as client:
            return await work(client)

    return asyncio.run(main())


def test_settings_on_disk_that_the_agent_does_not_run_with(tmp_path: Path) -> None:
    with agent(tmp_path / "a") as running:
        path = running.directory / "agent.yml"
        same = {"file": str(path), "problems": [], "reload": [], "restart": []}
        assert ask(running, Client.configuration) == same
        before = json.loads(path.read_text())
        node = {**before["node"], "name": "renamed", "port": free_port()}
        path.write_text(json.dumps({**before, "cycle": 0.3, "node": node, "log": {"level": "debug"}}))
        found = ask(running, Client.configuration)
        assert found["reload"] == ["log", "node.name or node.private_data"]
        assert found["restart"] == ["cycle", "node.addr or node.port"]
        path.write_text(json.dumps({**before, "cycle": -1}))
        found = ask(running, Client.configuration)
        assert "cycle: expected a number" in found["problems"][0] and found["restart"] == []
        path.unlink()
        assert "No such file" in ask(running, Client.configuration)["problems"][0]
        path.write_text(json.dumps(before))
        (running.directory / "secret.key").write_text("another secret of the tests")
        found = ask(running, Client.configuration)
        assert found == {**same, "reload": ["secret_key"]}  # and nothing of its value


def test_a_library_has_no_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(FakeNodeList(), tmp_path) as (api, _server):
            assert (await api("GET", "/v1/configuration")).status == 404
            assert (await api("GET", "/v1/configuration", params="x=1")).status == 400

    asyncio.run(main())


def test_what_the_process_uses(tmp_path: Path) -> None:
    with agent(tmp_path / "a") as running:
        usage = running.json("status")["process"]
        listed = len(os.listdir(f"/proc/{running.process.pid}/fd"))
        assert abs(usage["descriptors"] - listed) <= 3 and usage["descriptors_limit"] >= usage["descriptors"]
        assert usage["memory"] > 1 << 20
        text = ask(running, lambda client: client.request("GET", "/v1/metrics"))[0].decode()
        assert f"xdp_gossip_process_descriptors_limit {float(usage['descriptors_limit'])}" in text


def test_a_control_group_with_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MemoryMax makes it: its memory counts, with all processes in it."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    monkeypatch.setattr(process, "_group", lambda: tmp_path)
    assert (process.usage()["memory"], process.usage()["memory_limit"]) == (900, 1000)
    (tmp_path / "memory.max").write_text("max\n")
    assert process.usage()["memory_limit"] == 0 and process.usage()["memory"] > 1 << 20


def test_the_keys_of_each_member(tmp_path: Path) -> None:
    port = free_port()
    with agent(tmp_path / "a", port) as first, agent(tmp_path / "b", seeds=[f"127.0.0.1:{port}"]):
        deadline = time.monotonic() + patient(30)
        while len(nodes := first.json("members")["nodes"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        key = derive("default", SECRET)
        assert [node.get("key_id") for node in nodes if node["local"]] == [None]
        assert [node.get("key_id") for node in nodes if not node["local"]] == [key.id]
        while any("keys" not in node for node in nodes):
            assert time.monotonic() < deadline
            time.sleep(0.1)
            nodes = first.json("members")["nodes"]
        shown = {"fingerprint": f"{key.fingerprint:016x}", "state": "active"}
        assert [node["keys"] for node in nodes] == [[shown]] * 2
