# SPDX-License-Identifier: MIT
"""The command line: every command against a real agent, exit codes, and what goes where."""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import SECRET, agent, write_config
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import AgentProcess, command
from xdp_gossip.cli import tables
from xdp_gossip.cli.main import build_parser
from xdp_gossip.wire.keys import derive

#: Processes and their start take a while.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """Two agents; the commands talk to the first."""
    directory = tmp_path_factory.mktemp("cli")
    port = free_port()
    with agent(directory / "a", port, zone="paris") as first, agent(directory / "b", seeds=[f"127.0.0.1:{port}"]):
        deadline = time.monotonic() + patient(60)
        while sum(node["record_known"] for node in first.json("members")["nodes"]) < 2:
            assert time.monotonic() < deadline
        yield first


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """The lines of stdout of a command that succeeded."""
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def failure(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """The error of a command that failed with ``code``: on stderr, with the command's name."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    text = done.stderr.decode()
    assert text.startswith(("xdp-gossip: ", "usage: "))
    assert "Traceback" not in text
    return text


def test_members_status_and_keys(running: AgentProcess) -> None:
    table = lines(running.command("members"))
    assert table[0].split("  ")[0] == "NAME"
    assert [line.split()[0] for line in table[1:]] == ["a", "b"]
    assert f"node:      a (127.0.0.1:{running.port})" in lines(running.command("status"))
    assert any(line.startswith("datagrams_sent:") for line in lines(running.command("status", "--counters")))
    key = derive("default", SECRET)
    heads, row = lines(running.command("keys"))
    assert heads.split()[:3] == ["KEY", "ID", "STATE"]
    assert row.split() == [f"{key.fingerprint:016x}", str(key.id), "active", "1", "(b)", "0"]
    assert {node["name"] for node in running.json("members", "--all")["nodes"]} == {"a", "b"}
    # The options may stand before or after the command.
    assert json.loads(command("members", "--json", "--socket", str(running.socket)).stdout)["cluster"] == "default"


def test_members_of_a_zone(running: AgentProcess) -> None:
    table = lines(running.command("members"))
    assert [line.split()[2] for line in table] == ["ZONE", "paris", "-"]
    for words, names in (
        (["--zone", "paris"], ["a"]),
        (["--zone", ""], ["b"]),
        (["--zone", "lyon", "--zone=paris"], ["a"]),
        (["--zone", ",paris", "--all"], ["a", "b"]),
        (["--zone", "lyon"], []),
    ):
        assert sorted(node["name"] for node in running.json("members", *words)["nodes"]) == names, words
    # Without a zone among what is listed, the table is that of a fleet without zones.
    assert lines(running.command("members", "--zone", ""))[0].split()[:3] == ["NAME", "ADDRESS", "STATE"]
    assert "zone: expected at most 64 bytes" in failure(running.command("members", "--zone", "x" * 65), 2)
    assert "zone:      paris" in lines(running.command("status"))
    assert running.json("node", "show")["zone"] == "paris"
    top = lines(running.command("top", "--once"))
    assert "zone:      paris" in top and any(line.split()[2:3] == ["paris"] for line in top)


def test_publish_read_history_delete(running: AgentProcess) -> None:
    done = running.command("publish", "cli/doc", "--value", "größer", "--wait", "all", "--comment", "why not")
    assert lines(done)[0].startswith("cli/doc: published, version ")
    assert lines(done)[1].startswith("held by 2 of 2 members after ")
    assert running.command("read", "cli/doc").stdout == "größer".encode()
    again = lines(running.command("publish", "cli/doc", "-", stdin="größer".encode()))
    assert again[0].startswith("cli/doc: unchanged, version ")

    first = running.json("documents", "cli/")["documents"][0]
    assert first["comment"] == "why not"
    second = running.json("publish", "cli/doc", "--value", "2", "--if-version", first["version"])
    assert second["previous_version"] == first["version"]
    refused = failure(running.command("publish", "cli/doc", "--value", "3", "--if-version", first["version"]), 4)
    assert second["version"] in refused
    failure(running.command("publish", "cli/doc", "--value", "3", "--if-absent"), 4)
    failure(running.command("delete", "cli/doc", "--if-version", first["version"]), 4)

    assert [entry["size"] for entry in running.json("history", "cli/doc")["versions"]][:2] == [1, 8]
    assert "why not" in "\n".join(lines(running.command("history", "cli/doc")))
    words = ("--comment", "not needed", "--author", "alice", "--wait", "all", "--timeout", "30")
    done = lines(running.command("delete", "cli/doc", *words))
    assert done[0].startswith("cli/doc: deleted, version ") and done[1].startswith("deleted on 2 of 2 members after ")
    newest = running.json("history", "cli/doc")["versions"][0]
    assert (newest["deleted"], newest["comment"], newest["author"]) == (True, "[alice] not needed", "user:root")
    assert running.command("read", "cli/doc", "--version", first["version"]).stdout == "größer".encode()
    assert running.json("read", "cli/doc", "--version", second["version"])["size"] == 1
    assert "is its deletion" in failure(running.command("read", "cli/doc", "--version", newest["version"]), 1)
    assert lines(running.command("delete", "cli/never")) == ["cli/never: unchanged, there is no such document"]
    assert running.json("delete", "cli/never", "--wait", "all")["convergence"]["converged"] is True
    assert "there is no document" in failure(running.command("read", "cli/doc"), 1)


def test_binary_values_pass_unchanged(running: AgentProcess, tmp_path: Path) -> None:
    value = bytes(range(256)) * 1000
    (tmp_path / "in").write_bytes(value)
    assert running.json("publish", "cli/binary", "--file", str(tmp_path / "in"))["size"] == len(value)
    assert running.command("read", "cli/binary").stdout == value
    assert running.command("read", "cli/binary", "--output", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_bytes() == value


def test_verify(running: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "v").write_text("right")
    version = running.json("publish", "cli/verify", "--file", str(tmp_path / "v"), "--wait", "all")["version"]
    assert lines(running.command("verify"))[0].startswith("held by 2 of 2 members")
    for question in (["--version", version], ["--file", str(tmp_path / "v")], []):
        assert lines(running.command("verify", "cli/verify", *question))[0].startswith("held by 2 of 2")
    (tmp_path / "v").write_text("wrong")
    done = running.command("verify", "cli/verify", "--file", str(tmp_path / "v"), "--timeout", "0.5")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[0].startswith("held by 0 of 2 members")
    assert "holds version" in done.stdout.decode()
    failure(running.command("verify", "cli/none"), 1)
    failure(running.command("verify", "--version", version), 2)


def test_node(running: AgentProcess) -> None:
    assert running.json("node", "set", "--private-data", "rack 7")["private_data"] == "rack 7"
    assert "private_data: rack 7" in lines(running.command("node", "show"))
    assert lines(running.command("node", "stop")) == ["paused"]
    assert lines(running.command("node", "stop")) == ["paused (as before)"]
    assert lines(running.command("node", "start")) == ["running"]
    assert running.json("node", "join", f"127.0.0.1:{running.port}") == {"added": 0}
    failure(running.command("node", "join", "host"), 2)
    failure(running.command("node", "set"), 2)
    failure(running.command("node"), 2)


def test_watch_prints_what_happens(running: AgentProcess) -> None:
    since = running.json("members")["revision"]
    running.json("publish", "cli/watched", "--value", str(time.time()))
    done = running.command("watch", "cli/", "--since", str(since), "--count", "1", "--documents", "--timeout", "10")
    assert "document published: cli/watched" in lines(done)[0]
    done = running.command("watch", "cli/", "--json", "--since", str(since), "--count", "1", "--documents")
    assert json.loads(done.stdout)["document"]["key"] == "cli/watched"
    assert running.command("watch", "--timeout", "0.5").returncode == 0


def test_top_prints_once_into_a_pipe(running: AgentProcess) -> None:
    text = lines(running.command("top"))
    assert text[0].startswith("node:")
    assert any(line.startswith("NAME") for line in text)
    assert set(running.json("top", "--once")) == {"status", "nodes", "documents", "templates"}
    version = running.json("publish", "cli/top", "--value", "x", "--wait", "all")["version"]
    assert running.json("top", "--once")["documents"][0]["version"] == version
    (row,) = [line.split() for line in lines(running.command("top")) if line.startswith("cli/top ")]
    assert row[1:3] == ["1", "B"] and row[-4:] == ["2", "of", "2", "-"]


def test_doctor(running: AgentProcess, tmp_path: Path) -> None:
    healthy = lines(running.command("doctor", "--config", str(running.directory / "agent.yml")))
    assert any(line.startswith("ok      agent.ok: ") for line in healthy)
    assert not any(line.startswith("error") for line in healthy)

    taken = write_config(tmp_path / "c", running.port)
    done = command("doctor", "--config", str(taken), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["ok"] is False
    failed = {(finding["id"], finding["remedy"] != "") for finding in found["findings"] if finding["level"] == "error"}
    assert failed == {("port.taken", True)}

    (tmp_path / "c" / "secret.key").chmod(0o644)
    done = command("doctor", "--config", str(taken))
    assert done.returncode == 1
    assert b"secret_key_file: expected a file that others cannot use" in done.stdout


def test_check_config(tmp_path: Path) -> None:
    good = write_config(tmp_path / "a", 8000)
    assert lines(command("check-config", str(good))) == [f"{good}: ok"]
    assert json.loads(command("check-config", str(good), "--json").stdout)["node"]["port"] == 8000
    good.write_text("node: {addr: x}\namount: y\n")
    done = command("check-config", str(good))
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().splitlines()[0] == f"{good}: node.addr: expected an IPv4 or IPv6 address, got text 'x'"
    assert len(json.loads(command("check-config", str(good), "--json").stdout)["problems"]) == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--socket", "/nowhere/api.sock", "members"], 3),
        (["--endpoint", "http://127.0.0.1:1", "members"], 3),
        (["--endpoint", "nonsense", "members"], 2),
        (["--endpoint", "http://127.0.0.1:1", "--token-file", "/nowhere", "members"], 2),
        (["--socket", "a", "--endpoint", "b", "members"], 2),
        ([], 2),
        (["frobnicate"], 2),
        (["publish", "a"], 2),
        (["publish", "a", "--value", "x", "-"], 2),
        (["publish", "a", "--value", "x", "--wait", "most"], 2),
        (["publish", "a", "--file", "/nowhere"], 2),
    ],
)
def test_exit_codes_without_an_agent(words: list[str], code: int) -> None:
    failure(command(*words), code)


def test_a_bad_key_is_wrong_usage(running: AgentProcess) -> None:
    assert "document key" in failure(running.command("publish", "a//b", "--value", "x"), 2)


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['xdp-gossip', '--help']\n"
        "from xdp_gossip.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = {'aiohttp', 'rich', 'yaml', 'cryptography', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(__file__).resolve().parents[2] / "agent"
    done = subprocess.run(["/usr/bin/python3", "-c", code], cwd=root, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    for word in ("agent", "members", "publish", "verify", "doctor", "top", "watch", "keys"):
        assert word in done.stdout.decode()


def test_every_command_has_a_handler() -> None:
    parser = build_parser()
    for words in ("agent", "check-config", "members", "publish k", "read k", "delete k", "documents", "history k"):
        assert callable(parser.parse_args(words.split()).handler)


def test_plain_tables_lose_nothing_and_print_no_control_characters() -> None:
    stream = io.StringIO()
    long = "x" * 500
    tables.plain(("a", "b"), [[long, "\x1b[31mred\n"], ["日本", None], [True, 0]], stream)
    text = stream.getvalue().splitlines()
    assert text[1] == f"{long}  \\x1b[31mred\\n"
    assert text[2] == "日本" + " " * 496 + "  -"
    assert text[3] == "yes" + " " * 497 + "  0"


def test_how_long_ago() -> None:
    assert [tables.ago(seconds) for seconds in (0.04, 119, 600, 90_000)] == ["0.0 s", "119.0 s", "10 min", "25 h"]
    assert tables.address({"addr": "fd00::1", "port": 1}) == "[fd00::1]:1"
