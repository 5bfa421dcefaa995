# SPDX-License-Identifier: MIT
"""Tasks with ``sign_key``, run by Ansible itself: what is signed on the controller, and what is refused before that."""

from __future__ import annotations

import datetime
import hashlib
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._statement import Part, statement
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_playbook import play


@pytest.fixture(name="member")
def fixture_member(tmp_path: Path) -> t.Iterator[FakeMember]:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(tmp_path / "key")],
        check=True,
        capture_output=True,
        timeout=60,
    )
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "key")], check=True, capture_output=True, text=True, timeout=60
    )
    with FakeMember(unix=str(tmp_path / "api.sock")) as member:
        member.nodes = [node("198.18.0.11", "m1", local=True)]
        member.signer = shown.stdout.split()[1]
        yield member


def task(member: FakeMember, **options: t.Any) -> dict[str, t.Any]:
    options = dict({"sign_key": "key", "cluster": "east", "endpoints": [member.url]}, **options)
    return {"xdp_gossip.fleet.xdp_gossip_publish": options, "register": "done"}


def that(*conditions: str) -> dict[str, t.Any]:
    return {"ansible.builtin.assert": {"that": list(conditions)}}


def microseconds(text: str) -> int:
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


def verified(directory: Path, body: dict[str, t.Any], cluster: str, *parts: Part) -> bool:
    """Whether the request's signature is one of exactly this statement."""
    text = statement(cluster, microseconds(body["signed_at"]), body.get("comment", ""), parts)
    (directory / "signature").write_text(body["signature"])
    words = ["ssh-keygen", "-q", "-Y", "check-novalidate", "-n", "xdp-gossip", "-s", str(directory / "signature")]
    return subprocess.run(words, input=text, capture_output=True, timeout=60, check=False).returncode == 0


def test_the_bytes_of_the_task_are_signed(member, tmp_path):
    (tmp_path / "blob.txt").write_bytes(b"\xff\x00 bytes")
    documents = {
        "a.json": {"value": {"b": [1, "ü", "{{ name }}"], "a": None}},
        "b": {"src": "blob.txt"},
        "c": {"value": {"x": "{{ name }}"}, "content_type": "yaml"},
        "d": {"state": "absent"},
        "e": {"content": "{{ name }}"},
    }
    base = member.put("d", b"old")["version"]
    tasks = [
        dict(task(member, documents=documents, comment="{{ name }}"), vars={"name": 'it\'s "me"'}),
        that("done is changed", "done.lineages is undefined", "done.documents['b'].signed_by.signer == 'alice'"),
        dict(task(member, documents=documents, comment="other"), vars={"name": 'it\'s "me"'}),
        that("done is not changed"),
    ]
    output = play(tmp_path, tasks)
    assert "PRIVATE KEY" not in output and '"signing"' not in output
    (body,) = member.signed
    me = 'it\'s "me"'
    parts = [
        Part(key, None if key == "d" else member.documents[key]["value"], kind, 0, (base,) if key == "d" else ())
        for key, kind in (("a.json", "json"), ("b", "text"), ("c", "yaml"), ("d", ""), ("e", "raw"))
    ]
    assert body["comment"] == me and member.documents["e"]["value"] == me.encode()
    assert member.documents["b"]["value"] == b"\xff\x00 bytes"
    assert member.documents["a.json"]["value"].startswith(b'{\n  "a": null,\n')
    assert verified(tmp_path, body, "east", *parts)
    assert not verified(tmp_path, body, "west", *parts) and not verified(tmp_path, body, "east", *parts[1:])


def test_the_cluster_comes_from_the_controller(member, tmp_path):
    one = task(member, content="x")
    del one["xdp_gossip.fleet.xdp_gossip_publish"]["cluster"]
    failing = dict(one, ignore_errors=True)
    (tmp_path / "library").mkdir()
    fact = '{"changed": false, "ansible_facts": {"xdp_gossip_agent_cluster": "south"}}'
    (tmp_path / "library" / "lie.sh").write_text("#!/bin/sh\necho '%s'\n" % fact)
    play(
        tmp_path,
        [
            failing,
            that("done is failed", "'cluster: expected the name of the fleet' in done.msg"),
            {"lie": {}},
            that("xdp_gossip_agent_cluster == 'south'"),
            failing,
            that("done is failed", "'from the facts of the host' in done.msg"),
        ],
    )
    output = play(tmp_path, [dict(one, vars={"xdp_gossip_agent_cluster": "{{ 'we' ~ 'st' }}"})])
    (body,) = member.signed
    assert verified(tmp_path, body, "west", Part("default", b"x", "raw", 0, ())), output


#: Options, and what the refusal says.
REFUSED: dict[str, tuple[dict[str, t.Any], str]] = {
    "remote": ({"src": "/etc/hostname", "remote_src": True}, "remote_src: expected false with sign_key"),
    "remote of all": ({"documents": {"a": {"src": "x"}}, "remote_src": "yes"}, "remote_src: expected false"),
    "remote of one": ({"documents": {"a": {"src": "x", "remote_src": 1}}}, "remote_src: expected false"),
    "rollback": ({"rollback_to": "0" * 16 + "@198.18.0.11:8000"}, "rollback_to: expected no rollback with sign_key"),
    "one by one": ({"content": "x", "atomic": "never"}, "atomic: expected auto or required with sign_key"),
    "author": ({"content": "x", "author": "me"}, "author: expected none with sign_key"),
    "comments": (
        {"documents": {"a": {"content": "x", "comment": "1"}, "b": {"content": "x"}}},
        "comment: expected the same comment",
    ),
    "many": ({"documents": {"d%d" % number: {"content": "x"} for number in range(65)}}, "at most 64 documents"),
    "no content": ({"key": "a"}, "state is present but any of the following are missing"),
    "two contents": ({"content": "x", "value": "y"}, "mutually exclusive"),
    "wrong entry": ({"documents": {"a": "x"}}, "expected a dictionary of options"),
    "wrong option": ({"documents": {"a": {"contents": "x"}}}, "contents"),
    "key": ({"key": "a//b", "content": "x"}, "key: expected no empty"),
    "type": ({"content": "x", "content_type": "a b"}, "content_type: expected a name"),
    "how": ({"content": "x", "sign_with": "tpm"}, "sign_with: expected file or agent"),
    "no file": ({"content": "x", "sign_key": "nokey"}, "sign_key nokey"),
    "empty": ({"content": "x", "sign_key": ""}, "sign_key "),
    "no src": ({"src": "nothing"}, "src nothing"),
    "public": ({"content": "x", "sign_key": "key.pub"}, "expected a private key, got a public key"),
    "signing": ({"content": "x", "signing": {"key": "x"}}, "signing: expected only the options of a task"),
    "time": ({"content": "x", "expires": "soon"}, "expires: expected never"),
}


def test_what_is_refused_before_the_target_is_asked(member, tmp_path):
    tasks: list[dict[str, t.Any]] = []
    for name, (options, told) in REFUSED.items():
        tasks += [
            dict(task(member, **options), name=name, ignore_errors=True),
            that("done is failed", "%r in done.msg" % told),
        ]
    tasks += [
        dict(task(member, content="x"), **{"async": 60, "poll": 1, "ignore_errors": True}),
        that("done is failed", "'async' in done.msg"),
    ]
    play(tmp_path, tasks)
    assert not member.requests


def test_a_member_that_lies_gets_no_other_signature(member, tmp_path):
    """It answers each question as it likes: with another document, a far version, or no sense."""
    far = "f" * 16 + "@198.18.0.11:8000"
    held, value = "0" * 16 + "@198.18.0.11:8000", b"evil"
    answers: list[dict[str, t.Any]] = [
        {"lineage": [far]},
        {"lineage": ['1\npublish "evil"']},
        {"lineage": [held] * 9},
        {
            "key": "evil",
            "content_type": "evil",
            "comment": "evil",
            "expires": "2099-01-01T00:00:00.000Z",
            "lineage": [held],
        },
    ]
    tasks, lies = [], iter(answers)

    def lie(handler: t.Any) -> None:
        if handler.command == "POST":
            member.misbehave = None
            handler.POST_documents("documents", {})
            return
        answer = dict(member.put("a", value), value_base64="ZXZpbA==", **next(lies, answers[-1]))
        answer = {name: part for name, part in answer.items() if name != "value"}
        answer["digest"] = "sha256:" + hashlib.sha256(value).hexdigest()
        handler.reply(200, answer)

    member.misbehave = lie
    for told in ("seconds ahead of the controller", "expected a version such as", "expected at most 8 versions"):
        tasks += [
            dict(task(member, key="a", content="x"), ignore_errors=True),
            that("done is failed", "%r in done.msg" % told),
        ]
    tasks += [task(member, key="a", content="x"), that("done is changed")]
    play(tmp_path, tasks)
    (body,) = member.signed
    (entry,) = body["documents"]
    assert verified(tmp_path, body, "east", Part("a", b"x", "raw", 0, tuple(entry["read"])))
