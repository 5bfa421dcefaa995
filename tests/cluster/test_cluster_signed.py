# SPDX-License-Identifier: MIT
"""Three agents with signers, and keys of ssh-keygen: publish, delete, roll back, withdraw, refuse."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Agent, Cluster, eventually
from tests.support.process import AgentError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLUSTER = "signed"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Keys of ssh-keygen by name: the types that an operator has without hardware."""
    made = {}
    for name, kind in (("alice", ["ed25519"]), ("bob", ["ecdsa", "-b", "256"]), ("eve", ["ed25519"])):
        made[name] = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-f", str(made[name])], check=True)
    return made


def signer(keys: dict[str, Path], name: str, *prefixes: str, **more: str) -> dict[str, Any]:
    line = Path(f"{keys[name]}.pub").read_text().strip()
    return {"name": name, "public_key": line, "prefixes": list(prefixes), **more}


@pytest.fixture
def three(tmp_path: Path, keys: dict[str, Path]) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", 3, cycle=0.5) as cluster:
        for agent in cluster:
            agent.settings["cluster"] = CLUSTER
            agent.settings["signers"] = [signer(keys, "alice", "app/"), signer(keys, "bob", "db/")]
            agent.write_config()
        cluster.form()
        yield cluster


def signed(agent: Agent, key: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return agent.command(*words, "--sign-key", str(key), "--cluster", CLUSTER, "--json")


def done(found: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    assert found.returncode == 0, found.stderr.decode()
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def refused(found: subprocess.CompletedProcess[bytes], code: str) -> str:
    assert found.returncode != 0
    error = json.loads(found.stderr.decode().splitlines()[-1])["error"]
    assert error["code"] == code, error
    return str(error["message"])


def values(cluster: Cluster, key: str, wanted: str | None) -> Callable[[], str | None]:
    def missing() -> str | None:
        for agent in cluster:
            try:
                found = agent.call("GET", f"/v1/documents/{key}?format=json")["value_base64"]
            except AgentError:
                found = None
            if found != wanted:
                return f"{agent.name} has {found}"
        return None

    return missing


def test_documents_are_signed_with_keys_of_openssh(three: Cluster, keys: dict[str, Path]) -> None:
    one, two, three_ = three
    assert len({node["signers"] for node in one.nodes()}) == 1, "all tell the same digest of their signers"
    first = done(
        signed(one, keys["alice"], "publish", "app/a.json", "--value", "1", "--wait", "all", "--comment", "new")
    )
    assert first["changed"] and first["signed_by"]["signer"] == "alice" and first["content_type"] == "json"
    again = done(signed(two, keys["alice"], "publish", "app/a.json", "--value", "1"))
    assert not again["changed"] and again["version"] == first["version"]
    second = done(signed(two, keys["alice"], "publish", "app/a.json", "--value", "2", "--wait", "all"))
    assert second["previous_version"] == first["version"]

    assert "expected a signature of alice" in refused(
        one.command("publish", "app/a.json", "--value", "3", "--json"), "signature_required"
    )
    assert "expected a signature of alice, got one by SHA256:" in refused(
        signed(one, keys["eve"], "publish", "app/a.json", "--value", "3"), "signature_refused"
    )
    refused(signed(one, keys["bob"], "publish", "app/a.json", "--value", "3"), "signature_refused")
    refused(one.command("delete", "app/a.json", "--json"), "signature_required")
    refused(one.command("rollback", "app/a.json", first["version"], "--json"), "signature_required")
    done(signed(one, keys["bob"], "publish", "db/x", "--value", "1"))

    back = done(signed(three_, keys["alice"], "rollback", "app/a.json", first["version"]))
    assert back["changed"] and back["comment"] == f"rollback to {first['version']}"
    gone = done(signed(one, keys["alice"], "delete", "app/a.json", "--wait", "all"))
    assert gone["deleted"] and gone["signed_by"]["signer"] == "alice"
    new = done(signed(two, keys["alice"], "publish", "app/a.json", "--value", "5", "--wait", "all"))
    assert new["changed"] and new["version"] > gone["version"]
    text = one.command("history", "app/a.json").stdout.decode()
    assert text.count("signed by alice") == 5 and "overwritten" not in text
    for agent in three:
        counters = agent.call("GET", "/v1/status")["counters"]
        assert not counters["document_conflicts"] and not counters["documents_refused_signature"]


def test_a_command_says_what_a_signature_needs(three: Cluster, keys: dict[str, Path], tmp_path: Path) -> None:
    one = three[0]
    words = ("publish", "app/a", "--value", "1")
    assert b"expected --cluster NAME" in one.command(*words, "--sign-key", str(keys["alice"])).stderr
    assert b"together with --sign-key" in one.command(*words, "--cluster", CLUSTER).stderr
    assert b"could not sign" in signed(one, tmp_path / "none", *words).stderr
    (tmp_path / "text").write_text("no key\n")
    assert b"could not sign" in signed(one, tmp_path / "text", *words).stderr
    other = one.command(*words, "--sign-key", str(keys["alice"]), "--cluster", "another", "--json")
    assert "does not match" in refused(other, "signature_refused")
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(tmp_path / "rsa")], check=True)
    assert b"expected a key of OpenSSH of one of the types" in signed(one, tmp_path / "rsa", *words).stderr
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "locked")], check=True)
    assert b"could not sign" in signed(one, tmp_path / "locked", *words).stderr


def test_an_agent_of_ssh_signs(three: Cluster, keys: dict[str, Path], tmp_path: Path) -> None:
    """The private key is only in the ssh-agent; the command gets the public key."""
    started = subprocess.run(
        ["ssh-agent", "-a", str(tmp_path / "s")], check=True, capture_output=True, text=True
    ).stdout
    number = int(started.split("SSH_AGENT_PID=")[1].split(";")[0])
    environment = {"SSH_AUTH_SOCK": str(tmp_path / "s")}
    try:
        subprocess.run(["ssh-add", "-q", str(keys["alice"])], check=True, env={**environment, "PATH": "/usr/bin"})
        keys["alice"].unlink()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
            found = done(signed(three[0], Path(f"{keys['alice']}.pub"), "publish", "app/a", "--value", "1"))
        assert found["signed_by"]["signer"] == "alice"
    finally:
        subprocess.run(["kill", str(number)], check=True)


def test_signers_change_without_a_restart(three: Cluster, keys: dict[str, Path]) -> None:
    one, two, _ = three
    first = done(signed(one, keys["alice"], "publish", "app/a", "--value", "1", "--wait", "all"))
    done(one.command("publish", "open/a", "--value", "1", "--wait", "all", "--json"))
    since = one.call("GET", "/v1/watch?timeout=0")["revision"]
    for agent in three:
        agent.settings["signers"] = [
            signer(keys, "alice", "app/", valid_before="2020-01-01T00:00:00Z"),
            signer(keys, "bob", "app/", "open/"),
        ]
        agent.write_config()
        agent.signal(signal.SIGHUP)

    def refuses(agent: Agent) -> Callable[[], str | None]:
        return lambda: None if agent.call("GET", "/v1/documents")["documents"] == [] else "not yet"

    # Alice was withdrawn before she signed, and nobody signed open/a: both stay in the history only.
    for agent in three:
        eventually(refuses(agent), 60.0)
        history = agent.call("GET", "/v1/history/app/a")["versions"]
        assert [entry["version"] for entry in history] == [first["version"]]
    feed = one.call("GET", f"/v1/watch?since={since}&timeout=0")["changes"]
    assert {change["refusal"]["key"] for change in feed if change["kind"] == "refusal"} == {"app/a", "open/a"}
    assert "withdrawn" in refused(signed(two, keys["alice"], "publish", "app/a", "--value", "2"), "signature_refused")
    done(signed(two, keys["bob"], "publish", "app/a", "--value", "2", "--wait", "all"))
    assert all("reloaded" in agent.log_text() for agent in three)
    # What was withheld does not come back after a restart.
    one.stop()
    three.start([one])
    eventually(values(three, "app/a", "Mg=="), 60.0)
    with pytest.raises(AgentError):
        one.call("GET", "/v1/documents/open/a")
