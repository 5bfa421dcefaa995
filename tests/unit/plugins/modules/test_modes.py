# SPDX-License-Identifier: MIT
"""Check mode foretells what applying does, and a second application does nothing: every case, one way through."""

from __future__ import annotations

import copy
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

#: Stand for the versions of the documents that the fleet holds at the start, and for one that it does not hold.
HELD, LOST = "<version of text>", "%016x@198.18.0.12:8000" % 99

#: module options -> whether that changes anything; None: it fails
PUBLISH = {
    "new": ({"key": "new", "content": "x\n"}, True),
    "new, empty": ({"key": "new", "content": ""}, True),
    "new, number": ({"key": "new", "content": 5}, True),
    "new, JSON": ({"key": "new", "value": {"b": [1, None], "a": "é"}}, True),
    "new, YAML": ({"key": "new", "value": {"b": [1]}, "content_type": "yaml"}, True),
    "new, bytes": ({"key": "new", "src": "/bin/true"}, True),
    "default": ({"content": "x"}, True),
    "same": ({"key": "text", "content": "old\n"}, False),
    "same, typed as it is": ({"key": "text", "content": "old\n", "content_type": "text"}, False),
    "same, other type": ({"key": "text", "content": "old\n", "content_type": "json"}, True),
    "same, author": ({"key": "text", "content": "old\n", "author": "me", "comment": "why"}, False),
    "other": ({"key": "text", "content": "new\n"}, True),
    "other, typed": ({"key": "text", "content": "new\n", "content_type": "yaml"}, True),
    "other, bytes before": ({"key": "bytes", "content": "new\n"}, True),
    "other, data": ({"key": "data", "value": {"n": 2}}, True),
    "same, data": ({"key": "data", "value": {"n": 1}}, False),
    "absent": ({"key": "text", "state": "absent"}, True),
    "absent, bytes": ({"key": "bytes", "state": "absent"}, True),
    "absent already": ({"key": "none", "state": "absent"}, False),
    "condition holds": ({"key": "text", "content": "new", "if_version": HELD}, True),
    "condition holds, absent": ({"key": "new", "content": "new", "if_version": "absent"}, True),
    "condition lost": ({"key": "text", "content": "new", "if_version": LOST}, None),
    "condition lost, there": ({"key": "text", "content": "new", "if_version": "absent"}, None),
    "condition lost, not there": ({"key": "none", "content": "new", "if_version": LOST}, None),
    "condition lost, but nothing to write": ({"key": "text", "content": "old\n", "if_version": LOST}, False),
    "delete on condition": ({"key": "text", "state": "absent", "if_version": HELD}, True),
    "delete on condition, lost": ({"key": "text", "state": "absent", "if_version": LOST}, None),
    "secret, new": ({"key": "new", "content": "hush", "sensitive": True}, True),
    "secret, other": ({"key": "text", "content": "hush", "sensitive": True}, True),
    "secret, same": ({"key": "text", "content": "old\n", "sensitive": True}, False),
    "secret, absent": ({"key": "text", "state": "absent", "sensitive": True}, True),
    "secret, lost": ({"key": "text", "content": "hush", "if_version": LOST, "sensitive": True}, None),
    "many": (
        {
            "documents": {
                "new": {"content": "x"},
                "text": {"content": "new", "if_version": HELD},
                "data": {"value": {"n": 1}},
                "bytes": {"state": "absent"},
                "none": {"state": "absent"},
            }
        },
        True,
    ),
    "many, nothing to do": ({"documents": {"text": {"content": "old\n"}, "none": {"state": "absent"}}}, False),
    "many, one lost": ({"documents": {"new": {"content": "x"}, "text": {"content": "y", "if_version": LOST}}}, None),
    "many, secret": ({"documents": {"new": {"content": "hush"}, "text": {"value": [1]}}, "sensitive": True}, True),
    "bad": ({"key": "a//b", "content": "x"}, None),
}

NODE = {
    "name": ({"name": "other"}, True),
    "name as it is": ({"name": "host11"}, False),
    "private data": ({"private_data": '{"role": "db"}'}, True),
    "all at once": ({"name": "other", "private_data": "x", "join": ["198.18.0.99:8000"], "state": "stopped"}, True),
    "join": ({"join": ["198.18.0.12:8000", "198.18.0.99:8000", "[fd00::9]:8000"]}, True),
    "join who is known": ({"join": ["198.18.0.12:8000"]}, False),
    "join, and start what runs": ({"join": ["198.18.0.99:8000"], "state": "started"}, True),
    "stop": ({"state": "stopped"}, True),
    "leave": ({"state": "left"}, True),
    "start what runs": ({"state": "started"}, False),
    "bad": ({"join": ["nowhere"]}, None),
}

CASES = [("publish", name, *case) for name, case in PUBLISH.items()]
CASES += [("node", name, *case) for name, case in NODE.items()]

#: What may differ: the version of what is written is not known before, and members are asked only when it is.
UNKNOWN_BEFORE = (
    "version",
    "members",
    "confirmed",
    "known",
    "dead",
    "agent_down",
    "elapsed",
    "laggards",
    "invocation",
    "output",
    "documents",
    "node",
    "atomic",
)


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember() as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12)]
        member.put("text", b"old\n", content_type="text")
        member.put("bytes", b"\x00\xff")
        member.put("data", b'{\n  "n": 1\n}\n', content_type="json")
        yield member


def state(member: FakeMember) -> t.Any:
    return copy.deepcopy([member.documents, member.nodes, member.status])


def put_version(options: t.Any, version: str) -> t.Any:
    if isinstance(options, dict):
        return {name: put_version(value, version) for name, value in options.items()}
    return version if options == HELD else options


@pytest.mark.parametrize("diff", [True, False], ids=["diff", "no diff"])
@pytest.mark.parametrize(
    "module, options, changes", [case[:1] + case[2:] for case in CASES], ids=["%s, %s" % case[:2] for case in CASES]
)
def test_check_then_apply_then_apply_again(member, module, options, changes, diff):
    options = put_version(dict(options, endpoints=[member.url]), member.documents["text"]["version"])
    before = state(member)
    foretold = run_module(module, options, check=True, diff=diff)
    assert state(member) == before
    applied = run_module(module, options, diff=diff)

    for results in (foretold, applied):
        assert bool(results.get("failed")) is (changes is None), results
        assert results.get("changed", False) is bool(changes)
        assert ("diff" in results) <= diff
    assert (state(member) != before) is bool(changes)
    for name in set(foretold) | set(applied):
        if name not in UNKNOWN_BEFORE:
            assert foretold.get(name) == applied.get(name), name
    for key, found in foretold.get("documents", {}).items():
        for name in ("changed", "digest", "previous_version"):
            assert found[name] == applied["documents"][key][name]
    if changes and diff:
        assert foretold["diff"]
    if changes is not None:
        again = run_module(module, options, diff=diff)
        assert (again["rc"], again["changed"]) == (0, False)
        for shown in [again["diff"]] if isinstance(again.get("diff"), dict) else []:
            assert shown["before"] == shown["after"] and "prepared" not in shown
