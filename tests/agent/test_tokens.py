# SPDX-License-Identifier: MIT
"""Tokens in ``agent.yml``: what is accepted, the command that makes them, and a reload of a running agent."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.agents import TOKEN, agent
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.process import AgentProcess, command
from xdp_gossip.api.access import Access
from xdp_gossip.config.access import MAX_TOKENS, hash_of
from xdp_gossip.config.agent import ConfigError, describe, parse

HASH = hash_of("a-token-that-nobody-has")
GOOD: dict[str, Any] = {"name": "ci", "hash": HASH, "rights": "read"}


def api(**settings: Any) -> Any:
    """The checked section ``api``. Raises ``ConfigError``."""
    data = {"node": {"addr": "198.18.0.11"}, "allow_insecure": True, "api": settings}
    return parse(yaml.safe_dump(data), "agent.yml")


def test_tokens_and_rights_are_read() -> None:
    config = api(
        listen="198.18.0.11:8001",
        tokens=[
            GOOD,
            {**GOOD, "name": "app", "hash": hash_of("x" * 30), "rights": "write", "prefixes": ["b", "a/", "a/b"]},
        ],
        socket_rights=[{"group": "ops", "rights": "write", "prefixes": []}, {"user": 1000, "rights": "read"}],
        audit_file="/var/lib/xdp-gossip/audit.jsonl",
    )
    assert [(one.name, one.rights, one.prefixes) for one in config.api.tokens] == [
        *(("ci", "read", ()), ("app", "write", ("a/", "b")))
    ]
    assert [(one.user, one.group, one.rights) for one in config.api.socket_rights] == [
        *(("", "ops", "write"), ("1000", "", "read"))
    ]
    shown = json.dumps(describe(config))
    assert "sha256" not in shown and '"name": "app"' in shown and "audit.jsonl" in shown
    assert "sha256" not in repr(config)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tokens": [{**GOOD, "name": "user:root"}]}, "api.tokens[0].name: expected 1 to 64 letters"),
        ({"tokens": [{**GOOD, "name": "token_file"}]}, "api.tokens[0].rights: expected those of api.token_file, admin"),
        ({"tokens": [{**GOOD, "name": None}]}, "api.tokens[0].name: expected 1 to 64 letters"),
        (
            {"tokens": [GOOD, {**GOOD, "hash": hash_of("b"), "rights": "write"}]},
            "api.tokens[1].rights: expected those of the other token of this name, and the same prefixes, got others",
        ),
        (
            {"tokens": [GOOD, {**GOOD, "hash": hash_of("b"), "prefixes": ["a"]}]},
            "api.tokens[1].rights: expected those of the other token of this name",
        ),
        ({"tokens": [GOOD, GOOD]}, "api.tokens[1].hash: expected the hash of a token that no other entry"),
        ({"tokens": [{**GOOD, "hash": hash_of("")}]}, "hash: expected the hash of a token, got that of the empty text"),
        ({"tokens": [GOOD, {**GOOD, "name": "b"}]}, "api.tokens[1].hash: expected the hash of a token that no other"),
        ({"tokens": [{**GOOD, "hash": "my-secret-token"}]}, "api.tokens[0].hash: expected sha256: and 64 hex digits"),
        ({"tokens": [{**GOOD, "hash": HASH.upper()}]}, "api.tokens[0].hash: expected sha256: and 64 hex digits"),
        ({"tokens": [{**GOOD, "hash": HASH + "\n"}]}, "api.tokens[0].hash: expected sha256: and 64 hex digits"),
        ({"tokens": [{**GOOD, "hash": 5}]}, "api.tokens[0].hash: expected text"),
        ({"tokens": [{**GOOD, "rights": "root"}]}, "api.tokens[0].rights: expected one of read, write, admin"),
        ({"tokens": [{"name": "ci", "hash": HASH}]}, "api.tokens[0].rights: expected one of read, write, admin"),
        ({"tokens": [{**GOOD, "right": "read"}]}, "api.tokens[0].right: expected one of name, hash, rights, prefixes"),
        ({"tokens": [{**GOOD, "rights": "admin", "prefixes": ["a"]}]}, "api.tokens[0].prefixes: expected none with"),
        ({"tokens": [{**GOOD, "prefixes": ["/a"]}]}, "api.tokens[0].prefixes[0]: expected the beginning of doc"),
        ({"tokens": [{**GOOD, "prefixes": ["a/../b"]}]}, "api.tokens[0].prefixes[0]: expected the beginning"),
        ({"tokens": [{**GOOD, "prefixes": [""]}]}, "api.tokens[0].prefixes[0]: expected the beginning"),
        ({"tokens": [{**GOOD, "prefixes": ["k" * 513]}]}, "api.tokens[0].prefixes[0]: expected the beginning"),
        ({"tokens": [{**GOOD, "prefixes": "app/"}]}, "api.tokens[0].prefixes: expected a list of at most 64 entries"),
        ({"tokens": [{**GOOD, "prefixes": [5]}]}, "api.tokens[0].prefixes[0]: expected the beginning"),
        ({"tokens": ["ci"]}, "api.tokens[0]: expected a mapping with name, hash, rights, prefixes"),
        ({"tokens": GOOD}, "api.tokens: expected a list of at most 1000 entries"),
        ({"tokens": [GOOD] * (MAX_TOKENS + 1)}, "api.tokens: expected a list of at most 1000 entries"),
        ({"socket_rights": [{"rights": "read"}]}, "socket_rights[0].user: expected either user or group, got neither"),
        ({"socket_rights": [{"user": "a", "group": "b", "rights": "read"}]}, "expected either user or group, got both"),
        ({"socket_rights": [{"user": "a:b", "rights": "read"}]}, "socket_rights[0].user: expected the name or the"),
        ({"socket_rights": [{"user": -1, "rights": "read"}]}, "api.socket_rights[0].user: expected text"),
        ({"socket_rights": [{"user": "a", "rights": "read"}] * 2}, "expected one entry for each user and group"),
        ({"audit_file": "audit.jsonl"}, "api.audit_file: expected an absolute path"),
        ({"listen": "198.18.0.11:8001"}, "api.token_file: expected a file with the API token, or api.tokens"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api(**settings)
    assert expected in str(caught.value)
    assert "my-secret-token" not in str(caught.value)


def test_the_token_of_the_file_is_in_no_entry(tmp_path: Path) -> None:
    (tmp_path / "api.token").write_text("a-token-that-nobody-has\n")
    (tmp_path / "api.token").chmod(0o600)
    with pytest.raises(
        ConfigError, match=r"api.tokens\[0\].hash: expected the hash of a token that no other entry and"
    ):
        api(token_file=str(tmp_path / "api.token"), tokens=[GOOD])


def test_a_second_token_of_a_name_is_one_that_replaces_the_first(tmp_path: Path) -> None:
    """Also the token of the file, before and after the content of the file was replaced."""
    path = tmp_path / "api.token"
    admin = {"name": "token_file", "hash": hash_of("n" * 30), "rights": "admin"}
    for content in ("o" * 30, "n" * 30):
        path.write_text(content)
        path.chmod(0o600)
        config = api(token_file=str(path), tokens=[GOOD, {**GOOD, "hash": hash_of("next")}, admin])
        access = Access(config.api.token, config.api.tokens)
        for token, name in ((content, "token_file"), ("n" * 30, "token_file"), ("next", "ci")):
            identity = access.of_token(f"Bearer {token}")
            assert identity is not None and identity.name == name and access.is_valid(identity)
        assert (access.of_token("Bearer " + "o" * 30) is None) == (content[0] == "n")
    with pytest.raises(ConfigError, match=r"no other entry and not api\.token_file"):
        api(token_file=str(path), tokens=[{**admin, "name": "other"}])


@pytest.mark.slow
def test_ten_thousand_tokens_are_refused_and_a_thousand_are_read() -> None:
    held = [{"name": f"t{n}", "hash": hash_of(f"token-number-{n}"), "rights": "read"} for n in range(MAX_TOKENS)]
    assert len(api(tokens=held).api.tokens) == MAX_TOKENS
    with pytest.raises(ConfigError, match="expected a list of at most 1000 entries, got a list of 10000"):
        api(tokens=held * 10)


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_makes_a_token_and_its_hash(tmp_path: Path) -> None:
    made = json.loads(command("token", "--json").stdout)
    assert made["hash"] == hash_of(made["token"])
    text = command("token").stdout.decode()
    found = re.fullmatch(r"token: (xg_[\w-]{43})\nhash:  (sha256:[0-9a-f]{64})\n", text)
    assert found is not None and hash_of(found[1]) == found[2] and found[1] != made["token"]

    file = tmp_path / "ci.token"
    file.write_text(made["token"] + "\n")
    for words, given in ((("--file", str(file)), b""), (("--file", "-"), file.read_bytes())):
        done = command("token", *words, stdin=given)
        assert done.stdout.decode() == f"hash:  {made['hash']}\n", done.stderr
        assert made["token"].encode() not in done.stdout + done.stderr
    for wrong, why in (("", "one token"), ("two words of a token and more", "one token"), ("tiny-one", "at least 22")):
        file.write_text(wrong)
        done = command("token", "--file", str(file))
        assert done.returncode == 2 and why.encode() in done.stderr
        assert not wrong or wrong.encode() not in done.stderr
    assert command("token", made["token"]).returncode == 2


# -- a running agent ---------------------------------------------------------------------------------------------


def _configure(running: AgentProcess, **settings: Any) -> None:
    file = running.directory / "agent.yml"
    config = json.loads(file.read_text())
    config["api"].update(settings)
    file.write_text(json.dumps(config))


def _reload(running: AgentProcess, says: str = "configuration reloaded") -> None:
    before = running.log_text().count(says)
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    running.wait_until_logged(says) if not before else _again(running, says, before)


def _again(running: AgentProcess, says: str, before: int) -> None:
    deadline = time.monotonic() + patient(20)
    while running.log_text().count(says) <= before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_reload_replaces_tokens_rights_and_the_audit_file(tmp_path: Path) -> None:
    port = free_port()
    first = {"name": "ci", "hash": hash_of("the-first-token-of-the-ci"), "rights": "write", "prefixes": ["app/"]}
    settings = {
        "socket": str(tmp_path / "a" / "api.sock"),
        "listen": f"127.0.0.1:{port}",
        "token_file": "api.token",
        "tokens": [first],
    }
    with agent(tmp_path / "a", api=settings) as running:

        def ask(token: str, *words: str) -> tuple[int, bytes]:
            file = tmp_path / "token"
            file.write_text(token)
            done = command("--endpoint", f"http://127.0.0.1:{port}", "--token-file", str(file), *words)
            return done.returncode, done.stdout + done.stderr

        assert ask(TOKEN, "node", "set", "--private-data", "x")[0] == 0
        assert ask("the-first-token-of-the-ci", "publish", "app/a", "--value", "1")[0] == 0
        status, text = ask("the-first-token-of-the-ci", "publish", "db/a", "--value", "1")
        assert status == 1 and b"expected a key that begins with app/" in text and b"(forbidden)" in text
        status, text = ask("the-first-token-of-the-ci", "node", "stop")
        assert status == 1 and b"needs the right admin; ci has the right write" in text

        second = {"name": "ci", "hash": hash_of("the-second-token-of-the-ci"), "rights": "read"}
        _configure(running, tokens=[second], audit_file=str(tmp_path / "audit.jsonl"))
        running.write_secret("api.token", "another-token-of-the-file")
        told = running.call("GET", "/v1/configuration")
        assert (told["reload"], told["restart"]) == (["api.audit_file", "api.token_file", "api.tokens"], [])
        _reload(running)
        assert "need a restart" not in running.log_text()
        assert b"unauthorized" in ask("the-first-token-of-the-ci", "members")[1]
        assert b"unauthorized" in ask(TOKEN, "members")[1]
        assert ask("the-second-token-of-the-ci", "members")[0] == 0
        assert ask("another-token-of-the-file", "publish", "db/b", "--value", "1")[0] == 0
        assert b"needs the right write" in ask("the-second-token-of-the-ci", "publish", "app/a", "--value", "2")[1]

        # A file with a mistake changes nothing.
        _configure(running, tokens=[{**second, "hash": "no hash"}])
        _reload(running, "not reloaded: ")
        assert ask("the-second-token-of-the-ci", "members")[0] == 0
        _configure(running, tokens=[], ui=True)
        _reload(running)
        assert "need a restart: api" in running.log_text()
        assert b"unauthorized" in ask("the-second-token-of-the-ci", "members")[1]
        assert ask("another-token-of-the-file", "members")[0] == 0

        counters = running.json("status")["counters"]
        assert counters["api_forbidden"] == 3 and counters["audit_lost"] == 0
        history = running.json("history", "app/a")["versions"]
        assert [one["author"] for one in history] == ["ci"]
        log = running.log_text()
        assert "xdp_gossip.audit: documents.publish app/a by ci from 127.0.0.1: done, version none -> " in log
        assert running.stop() == 0
        for secret in (TOKEN, "token-of-the-ci", "another-token"):
            assert secret not in running.log_text() + (tmp_path / "audit.jsonl").read_text()
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {"done", "forbidden", "unauthorized"} <= {one["outcome"] for one in records}
