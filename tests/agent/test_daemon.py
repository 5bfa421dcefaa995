# SPDX-License-Identifier: MIT
"""The agent process: start, signals, reload, crash, systemd's protocol, memory. Real processes on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.agents import TOKEN, agent, write_config
from tests.support.keys import KEY, OTHER_KEY
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import command
from xdp_gossip.config.agent import load
from xdp_gossip.service.daemon import Agent, node_list_from
from xdp_gossip.wire.keys import derive

#: Processes and their start take a while.
pytestmark = pytest.mark.slow


def test_it_serves_and_ends_in_order(tmp_path: Path) -> None:
    with agent(tmp_path / "a") as first:
        assert first.json("status")["state"] == "running"
        assert first.stop(signal.SIGTERM) == 0
        assert "SIGTERM: stopping" in first.log_text()
        assert "Traceback" not in first.log_text()
        assert not os.path.exists(first.socket)
    with agent(tmp_path / "a", first.port) as again:
        assert again.stop(signal.SIGINT) == 0


def test_an_acknowledged_publish_survives_kill_9(tmp_path: Path) -> None:
    with agent(tmp_path / "a") as first:
        version = first.json("publish", "app/a", "--value", "precious")["version"]
        incarnation = first.json("status")["node"]["incarnation"]
        first.process.kill()
        first.process.wait(5)
    with agent(tmp_path / "a", first.port) as again:
        assert again.json("documents")["documents"][0]["version"] == version
        assert again.command("read", "app/a").stdout == b"precious"
        assert again.json("status")["node"]["incarnation"] > incarnation


def test_two_agents_find_each_other_and_a_stop_is_no_leave(tmp_path: Path) -> None:
    port = free_port()
    with agent(tmp_path / "a", port) as first, agent(tmp_path / "b", seeds=[f"127.0.0.1:{port}"]) as second:
        deadline = time.monotonic() + patient(60)
        while len(first.json("members")["nodes"]) < 2:
            assert time.monotonic() < deadline
        assert second.stop() == 0
        states = {node["name"]: node["state"] for node in first.json("members", "--all")["nodes"]}
        assert states["b"] in ("alive", "suspect", "dead")


def test_reload_takes_over_what_it_can_and_says_what_not(tmp_path: Path) -> None:
    other = free_port()
    with agent(tmp_path / "a") as running:
        config = json.loads((tmp_path / "a" / "agent.yml").read_text())
        config["node"]["private_data"] = "rack 9"
        config["seeds"] = [f"127.0.0.1:{other}"]
        config["amount"] = 7
        config["log"] = {"level": "debug", "format": "json"}
        (tmp_path / "a" / "agent.yml").write_text(json.dumps(config))
        running.process.send_signal(signal.SIGHUP)
        running.wait_until_logged("configuration reloaded")
        assert "need a restart: amount" in running.log_text()
        assert running.json("status")["node"]["private_data"] == "rack 9"
        assert running.json("status")["amount"] == 4
        assert json.loads(running.log_text().splitlines()[-1])["logger"] == "xdp_gossip.daemon"
        with agent(tmp_path / "b", other) as seeded:
            deadline = time.monotonic() + patient(60)
            while len(seeded.json("members")["nodes"]) < 2:
                assert time.monotonic() < deadline

        (tmp_path / "a" / "agent.yml").write_text("nonsense: 1\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_until_logged("not reloaded: ")
        assert running.json("status")["node"]["private_data"] == "rack 9"
        assert running.stop() == 0


def test_what_keeps_it_from_starting_is_one_clear_line(tmp_path: Path) -> None:
    with agent(tmp_path / "a") as first:
        same_port = write_config(tmp_path / "b", first.port)
        done = command("agent", "--config", str(same_port))
        assert done.returncode == 1
        assert f"127.0.0.1:{first.port}".encode() in done.stderr
        assert b"in use" in done.stderr
        assert b"Traceback" not in done.stderr
        assert not (tmp_path / "b" / "api.sock").exists()

        same_state = write_config(tmp_path / "c", free_port(), state_dir=str(tmp_path / "a" / "state"))
        done = command("agent", "--config", str(same_state))
        assert done.returncode == 1
        assert b"state.db" in done.stderr
        assert b"Traceback" not in done.stderr

        same_socket = write_config(tmp_path / "d", free_port(), api={"socket": str(first.socket)})
        done = command("agent", "--config", str(same_socket))
        assert done.returncode == 1
        assert b"another process serves it" in done.stderr
        assert first.json("status")["state"] == "running"

    wrong = write_config(tmp_path / "e", 0)
    done = command("agent", "--config", str(wrong))
    assert done.returncode == 2
    assert b"node.port: expected an integer from 1 to 65535, got integer 0" in done.stderr


def test_a_fault_of_its_own_ends_the_process(tmp_path: Path) -> None:
    """A callback that fails must not leave half an agent behind: the exit code tells systemd to start another."""
    sabotage = tmp_path / "sabotage.py"
    sabotage.write_text(
        "import asyncio, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[2] / 'agent')!r})\n"
        "from xdp_gossip.service import daemon\n"
        "from xdp_gossip.config.agent import load\n"
        "def boom():\n"
        "    raise ZeroDivisionError('a fault in a callback')\n"
        "opened = daemon.Agent._open\n"
        "async def sabotaged(self):\n"
        "    await opened(self)\n"
        "    asyncio.get_running_loop().call_later(0.2, boom)\n"
        "daemon.Agent._open = sabotaged\n"
        f"sys.exit(daemon.main(load({str(write_config(tmp_path / 'a', free_port()))!r})))\n"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, str(sabotage)], capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert b"a fault in a callback" in done.stderr
    assert b"ending, so that a sound process can start" in done.stderr


def test_systemd_hears_of_start_watchdog_and_stop(tmp_path: Path) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        with agent(tmp_path / "a", environment=environment) as running:
            while "WATCHDOG=1" not in "\n".join(heard):
                heard.append(manager.recv(4096).decode())
            running.process.send_signal(signal.SIGHUP)
            while "RELOADING=1" not in "\n".join(heard):
                heard.append(manager.recv(4096).decode())
            assert running.stop() == 0
            while "STOPPING=1" not in "\n".join(heard):
                heard.append(manager.recv(4096).decode())
    assert heard[0].startswith("READY=1\nSTATUS=running: 1 alive")


def test_a_token_guards_the_tcp_api(tmp_path: Path) -> None:
    port = free_port()
    api = {"socket": "", "listen": f"127.0.0.1:{port}", "token_file": "api.token"}
    with agent(tmp_path / "a", api=api):
        endpoint = ["--endpoint", f"http://127.0.0.1:{port}"]
        assert command(*endpoint, "members").returncode == 1
        token = str(tmp_path / "a" / "api.token")
        done = command(*endpoint, "--token-file", token, "members")
        assert done.returncode == 0, done.stderr
        assert TOKEN.encode() not in done.stdout + done.stderr


def test_secrets_are_in_no_log(tmp_path: Path) -> None:
    with agent(tmp_path / "a", log={"level": "debug"}) as running:
        assert running.command("publish", "default", "--value", "the-document-itself").returncode == 0
        assert running.stop() == 0
        for secret in (KEY, TOKEN, "the-document-itself"):
            assert secret not in running.log_text()


def test_resident_memory_stays_small(tmp_path: Path) -> None:
    with agent(tmp_path / "a") as running:
        running.json("publish", "default", "--value", "x")
        time.sleep(1)
        status = Path(f"/proc/{running.process.pid}/status").read_text()
    kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert kilobytes < 47_000, kilobytes


def test_the_node_list_gets_what_the_file_says(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "other.key").write_text(OTHER_KEY)
    (tmp_path / "a" / "other.key").chmod(0o600)
    keys = [{"file": "secret.key", "state": "active"}, {"file": "other.key", "state": "staged"}]
    seeds = [f"127.0.0.1:{port}", "127.0.0.1:1"]
    path = write_config(tmp_path / "a", port, keys=keys, secret_key_file="", seeds=seeds, protocol="TCP", cluster="c1")
    node_list = node_list_from(load(str(path)))
    expected = [(derive("c1", KEY).fingerprint, "active"), (derive("c1", OTHER_KEY).fingerprint, "staged")]
    assert node_list.keys == expected
    settings = node_list.settings
    assert (settings.cluster, settings.protocol, settings.amount) == ("c1", "TCP", 4)
    # The node itself is no seed, the other one is.
    assert [str(node.address) for node in node_list.get()] == [f"127.0.0.1:{port}", "127.0.0.1:1"]


def test_errors_of_sockets_are_counted_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        one = Agent(load(str(write_config(tmp_path / "a", free_port()))))
        assert one.counters["loop_errors"] == 0
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(one._on_unforeseen)
        for number in range(100):
            loop.call_exception_handler({"message": "SSL handshake failed", "exception": OSError(f"client {number}")})
        assert one.counters["loop_errors"] == 100

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["SSL handshake failed: client 0"]


def test_it_has_descriptors_for_all_connections(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        with agent(tmp_path / "a") as one:
            (line,) = [
                line
                for line in Path(f"/proc/{one.process.pid}/limits").read_text().splitlines()
                if line.startswith("Max open files")
            ]
            soft = int(line.split()[3])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert soft == min(65536, limits[1])
