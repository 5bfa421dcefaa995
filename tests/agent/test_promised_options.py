# SPDX-License-Identifier: MIT
"""Options of the command line, settings and parameters, each by what it changes (tests/claims.yml)."""

from __future__ import annotations

import json
import math
import random
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import SECRET, TOKEN, agent, write_config
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import AgentProcess, command
from xdp_gossip import Limits, Node, NodeList, ProtocolError, __version__
from xdp_gossip.config.agent import load
from xdp_gossip.core.applied import Applied
from xdp_gossip.service.daemon import node_list_from

#: Agents are processes here.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", name="running")
def fixture_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with agent(tmp_path_factory.mktemp("promised") / "a") as running:
        yield running


def test_publish_keeps_author_type_and_comment(running: AgentProcess) -> None:
    words = ("--author", "alice", "--comment", "why", "--content-type", "json")
    running.json("publish", "app/a", "--value", "[1]", *words)
    document = running.json("history", "app/a")["versions"][0]
    assert (document["author"], document["comment"]) == ("user:root", "[alice] why")
    assert document["content_type"].endswith("json")
    refused = running.command("publish", "app/a", "--value", "[1", "--content-type", "json")
    assert refused.returncode != 0 and b"json" in refused.stderr.lower()


def test_publish_with_an_expiry_is_deleted_in_the_end(running: AgentProcess) -> None:
    running.json("publish", "app/lease", "--value", "x", "--expires-in", "0.5")
    for _ in range(600):
        if running.command("read", "app/lease").returncode != 0:
            break
        time.sleep(0.05)
    assert running.json("history", "app/lease")["versions"][0]["deleted"] is True


def test_rollback_compares_and_comments(running: AgentProcess) -> None:
    first = running.json("publish", "app/r", "--value", "one")["version"]
    second = running.json("publish", "app/r", "--value", "two")["version"]
    stale = running.command("rollback", "app/r", first, "--if-version", first)
    assert stale.returncode != 0 and second.encode() in stale.stderr
    running.json("rollback", "app/r", first, "--if-version", second, "--comment", "it was better")
    latest = running.json("history", "app/r")["versions"][0]
    assert latest["comment"] == "it was better"
    running.json("rollback", "app/r", second, "--expires-in", "3600")
    assert b", expires 2" in running.command("rollback", "app/r", second, "--expires-in", "7200").stdout
    assert running.json("rollback", "app/r", second, "--expires-in", "never")["expires"] is None
    assert running.json("rollback", "app/r", first)["expires"] is None
    assert running.command("read", "app/r").stdout == b"one"


def test_verify_by_digest_version_absence_and_effect(running: AgentProcess) -> None:
    written = running.json("publish", "app/v", "--value", "held")
    for words in (["--digest", written["digest"]], ["--version", written["version"]], ["--applied"]):
        assert running.json("verify", "app/v", *words, "--timeout", "10")["converged"] is True
    other = f"sha256:{'0' * 64}"
    assert running.command("verify", "app/v", "--digest", other, "--timeout", "0").returncode == 1
    assert running.command("verify", "app/v", "--deleted", "--timeout", "0").returncode == 1
    running.json("delete", "app/v")
    assert running.json("verify", "app/v", "--deleted", "--timeout", "10")["converged"] is True


def test_node_set_changes_the_name(running: AgentProcess) -> None:
    running.json("node", "set", "--name", "renamed")
    assert running.json("node", "show")["name"] == "renamed"
    assert [node["name"] for node in running.json("members")["nodes"]] == ["renamed"]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until it holds; a net against hanging."""
    deadline = time.monotonic() + patient(30.0)
    while not condition():
        assert time.monotonic() < deadline, f"expected {what}"
        time.sleep(0.05)


def test_node_leave(tmp_path: Path) -> None:
    def states() -> dict[str, str]:
        return {node["name"]: node["state"] for node in first.json("members", "--all")["nodes"]}

    with agent(tmp_path / "a") as first, agent(tmp_path / "b", seeds=[f"127.0.0.1:{first.port}"]) as second:
        wait_for(lambda: states() == {"a": "alive", "b": "alive"}, "two members that list each other")
        second.json("node", "leave")
        assert second.json("status")["state"] == "left"
        # The other one was told: without a leave it would consider the node suspect, and then dead.
        wait_for(lambda: states()["b"] != "alive", "the other one notices")
        assert states()["b"] == "left"


def test_documents_lists_what_begins_with_a_prefix(running: AgentProcess) -> None:
    running.json("publish", "list/a", "--value", "1")
    running.json("publish", "list/b", "--value", "2")
    assert [entry["key"] for entry in running.json("documents", "list/")["documents"]] == ["list/a", "list/b"]


def test_top_takes_an_interval_of_seconds(running: AgentProcess) -> None:
    assert running.command("top", "--once", "--interval", "0.5").returncode == 0
    refused = running.command("top", "--once", "--interval", "soon")
    assert refused.returncode == 2 and b"--interval" in refused.stderr


def test_version_and_rendered(running: AgentProcess) -> None:
    assert command("--version").stdout.decode().split() == ["xdp-gossip", __version__]
    assert running.json("rendered")["templates"] == []


def test_tls_of_the_api_and_the_page(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    port = free_port()
    api: dict[str, Any] = {
        "socket": str(tmp_path / "a" / "api.sock"),
        "listen": f"127.0.0.1:{port}",
        "token_file": "api.token",
        "tls": {"cert": str(cert), "key": str(key)},
        "ui": True,
    }
    with agent(tmp_path / "a", api=api):
        reach = ("--endpoint", f"https://127.0.0.1:{port}", "--token-file", str(tmp_path / "a" / "api.token"))
        trusted = command(*reach, "--ca-file", str(cert), "--json", "status")
        assert trusted.returncode == 0, trusted.stderr
        assert json.loads(trusted.stdout)["state"] == "running"
        assert command(*reach, "status").returncode != 0  # nobody vouches for the certificate
        context = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/ui/", context=context, timeout=30) as page:
            assert b"<html" in page.read().lower()
        request = urllib.request.Request(
            f"https://127.0.0.1:{port}/v1/rendered", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            assert json.load(answer) == {"templates": []}
    with (
        agent(tmp_path / "b", api={**api, "socket": str(tmp_path / "b" / "api.sock"), "ui": False}),
        pytest.raises(urllib.error.HTTPError),
    ):
        urllib.request.urlopen(f"https://127.0.0.1:{port}/ui/", context=context, timeout=30)


#: Setting -> a value that is not its default; see the test for where it shows.
SETTINGS: dict[str, Any] = {
    "cluster": "other",
    "zone": "dc-1.west",
    "protocol": "TCP",
    "amount": 7,
    "cycle": 3.5,
    "timeout": 77.5,
    "buffer": 123,
    "size": 20_000,
    "max_clock_drift": 5.5,
    "history": 3,
    "tombstone_grace": 7200.0,
    "wait_for_members": 90,
    "is_print": True,
    "listen_addr": "127.0.0.2",
    "limits": {"document": 2048, "nodes": 11, "documents": 6, "store": 2097152},
    "dataplane": {
        "directory": "/run/elsewhere",
        "interface": "eth7",
        "prepare_interface": True,
        "allow": ["127.0.0.0/8"],
    },
}


def test_every_setting_reaches_the_node(tmp_path: Path) -> None:
    config = load(str(write_config(tmp_path / "a", free_port(), **SETTINGS)))
    node_list = node_list_from(config)
    assert node_list.settings is config  # one object from the file to the engine
    engine = node_list._assembly.engine(config.node, 1, "UDP", random.Random(1)).settings
    assert (config.cluster, config.protocol) == ("other", "TCP")
    assert (config.zone, engine.zone) == ("dc-1.west", "dc-1.west")
    assert (config.queue, config.size, config.is_print) == (123, 20_000, True)
    assert config.listen_addr == "127.0.0.2"
    assert (engine.amount, engine.cycle, engine.timeout, engine.size) == (7, 3.5, 77.5, 20_000)
    assert (engine.max_clock_drift, engine.tombstone_grace) == (5.5, 7200.0)
    assert (engine.limits.document, engine.limits.nodes, engine.limits.documents) == (2048, 11, 6)
    assert engine.limits.store == 2097152
    assert (engine.wait_for_members, engine.expects_seeds) == (90.0, False)
    assert config.history == 3
    assert config.dataplane.directory == "/run/elsewhere"
    assert (config.dataplane.interface, config.dataplane.prepare_interface) == ("eth7", True)
    assert [str(network) for network in node_list._assembly.allow.networks] == ["127.0.0.0/8"]
    assert config.state_dir == str(tmp_path / "a" / "state")
    never = load(str(write_config(tmp_path / "b", free_port(), wait_for_members="never", seeds=["a.example:8000"])))
    engine = node_list_from(never).settings
    assert (engine.wait_for_members, engine.expects_seeds) == (math.inf, True)


def test_the_log_has_the_level_and_the_format_of_its_settings(tmp_path: Path) -> None:
    with agent(tmp_path / "a", log={"level": "debug", "format": "json"}) as running:
        lines = [json.loads(line) for line in running.log_text().splitlines()]
        assert {"DEBUG", "INFO"} & {line["level"].upper() for line in lines}
    with agent(tmp_path / "b", log={"level": "info", "format": "text"}) as running:
        assert "runs as" in running.log_text() and not running.log_text().startswith("{")


def joined(**options: Any) -> NodeList:
    node_list = NodeList(secret_key=SECRET, listen_addr="127.0.0.1", cycle=0.2, **options)
    node_list.new(Node("127.0.0.1", free_port(), "n"))
    node_list.join()
    return node_list


def test_parameters_of_the_library() -> None:
    with joined(timeout_cycles=9) as node_list:
        assert node_list.status()["timeout"] == pytest.approx(9 * 0.2 + 2)
    with joined(timeout=33, cluster="mine", amount=5) as node_list:
        status = node_list.status()
        assert (status["timeout"], status["cluster"], status["amount"]) == (33, "mine", 5)
    with joined(history=2) as node_list:
        for number in range(5):
            node_list.publish(b"%d" % number)
        assert [version.value for version in node_list.history("default")] == [b"4", b"3"]
    with joined(limits=Limits(document=10, documents=2)) as node_list:
        with pytest.raises(ProtocolError) as caught:
            node_list.publish(bytes(11))
        assert caught.value.code == "document_too_large"
        node_list.publish(b"1", "a")
        node_list.publish(b"1", "b")
        with pytest.raises(ProtocolError) as caught:
            node_list.publish(b"1", "c")
        assert caught.value.code == "too_many_documents"
    options = (("max_clock_drift", 5.0), ("tombstone_grace", 60.0), ("wait_for_members", 7.0), ("expects_seeds", True))
    for name, value in (*options, ("buffer", 9)):
        node_list = NodeList(**{name: value})
        assert getattr(node_list._inner.settings, name) == value
    with pytest.raises(ValueError, match="tombstone_grace"):
        NodeList(tombstone_grace=0)


def test_every_member_learns_the_zone_of_every_other() -> None:
    with joined(zone="dc-1") as first, joined(zone="größer") as second:
        second.set(first.members()[0].node)
        deadline = time.monotonic() + 60
        for node_list in (first, second):
            while {member.record.zone for member in node_list.members() if member.record} != {"dc-1", "größer"}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert first.status()["node"]["zone"] == "dc-1"


def test_the_random_source_is_the_callers() -> None:
    class Counting(random.Random):
        asked = 0

        def random(self) -> float:
            Counting.asked += 1
            return super().random()

        def getrandbits(self, bits: int) -> int:
            Counting.asked += 1
            return super().getrandbits(bits)

    with joined(rng=Counting(1)) as node_list:
        node_list.publish(b"x")
        deadline = time.monotonic() + 30
        while not Counting.asked:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_rollback_and_repair_of_the_library() -> None:
    with joined() as node_list:
        first = node_list.publish(b"one").document
        node_list.publish(b"two")
        assert first is not None
        node_list.rollback("default", first.version)
        assert node_list.read() == b"one"
        assert node_list.repair() == 0  # nobody else is there


def test_what_was_applied_is_told() -> None:
    with joined() as node_list:
        document = node_list.publish(b"one").document
        assert document is not None
        inner = node_list._inner
        node_list._do(lambda: inner.tell_applied(lambda key: Applied("failed", document.version, "nginx says no")))
        found = node_list._wait(inner.convergence("default", applied=True, timeout=0.0))
        assert found.converged is False
        assert "nginx says no" in found.results[0]["reason"]
