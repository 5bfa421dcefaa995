# SPDX-License-Identifier: MIT
"""sensitive: a content is in nothing that a module says, to Ansible or to the target's log; its digest is."""

from __future__ import annotations

import hashlib
import json
import syslog
import typing as t

import pytest
from ansible.module_utils import basic
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

SECRET = "correct horse battery staple"
OLD = "the former horse"
DIGEST = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember() as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12)]
        member.put("app/a", OLD.encode())
        yield member


@pytest.fixture(name="log")
def fixture_log(monkeypatch):
    """What a module hands to the system log, by either way."""
    lines: list[str] = []
    monkeypatch.setattr(basic, "has_journal", False)
    monkeypatch.setattr(syslog, "openlog", lambda *dummy: None)
    monkeypatch.setattr(syslog, "syslog", lambda *arguments: lines.append(str(arguments[-1])))
    return lines


def run(member: FakeMember, module: str = "publish", check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    options = dict({"endpoints": [member.url], "timeout": 2, "retries": 0}, **options)
    if "documents" not in options:
        options.setdefault("key", "app/a")
    return run_module(module, options, check=check, diff=True)


CONTENTS = {
    "content": {"content": SECRET},
    "value": {"value": {"deep": [SECRET]}},
    "documents": {"documents": {"app/a": {"content": SECRET}, "app/b": {"value": {"deep": [SECRET]}}}},
}


@pytest.mark.parametrize("given", sorted(CONTENTS))
@pytest.mark.parametrize("how", ["check", "apply", "again", "lost", "lag", "refused", "nobody", "wrong option"])
def test_it_is_nowhere_in_the_output_and_in_no_log(member, log, given, how):
    options = dict(CONTENTS[given], sensitive=True)
    if how == "again":
        run(member, **options)
    elif how == "lost":
        for one in options.get("documents", {"": options}).values():
            one = dict(one, if_version="%016x@198.18.0.9:8000" % 99)
            options = dict(options, documents={"app/a": one}) if given == "documents" else one
        options["sensitive"] = True
    elif how == "lag":
        member.holdings["host12"] = {"app/a": {"version": None, "digest": None}}
        options.update(wait="all", wait_timeout=0)
    elif how == "refused":
        repeats = {"error": {"code": "bad", "message": "what is %s" % SECRET, "value": [SECRET]}}
        member.misbehave = lambda handler: handler.reply(400, json.dumps(repeats).encode())
    elif how == "nobody":
        options["endpoints"] = ["unix:///does/not/exist"]
    elif how == "wrong option":
        options["wait_timeout"] = "soon"
    result = run(member, check=how == "check", **options)
    assert result["rc"] == (0 if how in ("check", "apply", "again") else 1)
    assert SECRET not in result["output"] and OLD not in result["output"]
    assert not [line for line in log if SECRET in line]
    assert log == []
    if result["rc"] == 0 and given == "content":
        assert DIGEST in result["output"] and "app/a" in result["output"]
    arguments = result["invocation"]["module_args"]
    assert SECRET not in str(arguments) and "VALUE_SPECIFIED" in str(arguments)


def test_without_it_the_output_shows_what_is_published_and_the_log_still_does_not(member, log):
    """So that the test above can fail."""
    result = run(member, content=SECRET)
    assert SECRET in result["diff"]["after"] and OLD in result["diff"]["before"]
    assert result["invocation"]["module_args"]["content"] == SECRET
    assert log == []
    run_module("info", {"endpoints": [member.url]})
    assert log  # a module that has nothing to hide does write to it


@pytest.mark.parametrize(
    "options",
    [
        {"conten": SECRET},
        {"documents": {"a": {"conten": SECRET}}},
        {"documents": {"a": SECRET}},
        {"documents": SECRET},
        {"content": {"text": SECRET}},
        {"documents": {"a": {"content": [SECRET]}}},
        {"key": "a//b", "content": SECRET},
        {"content": SECRET, "state": "gone"},
        {"content": SECRET, "token": "a", "token_file": "b"},
    ],
)
@pytest.mark.parametrize("sensitive", [True, "yes", "not a boolean"])
def test_a_slip_in_the_options_does_not_show_it_either(member, log, options, sensitive):
    result = run(member, sensitive=sensitive, **options)
    assert result["rc"] == 1 and SECRET not in result["output"] and log == []


def test_the_token_is_hidden_too(member):
    member.token = "a-token-nobody-should-see"
    result = run(member, content=SECRET, sensitive=True, token=member.token)
    assert result["rc"] == 0 and member.token not in result["output"]


@pytest.mark.parametrize("given", ["content", "value"])
def test_verify(member, log, given):
    result = run(member, "verify", sensitive=True, wait_timeout=0, **CONTENTS[given])
    assert result["rc"] == 1 and SECRET not in result["output"] and log == []
    assert result["digest"].startswith("sha256:")
