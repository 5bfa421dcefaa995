# SPDX-License-Identifier: MIT
"""xdp_gossip_publish with a mapping of documents."""

from __future__ import annotations

import time
import typing as t
from urllib.parse import parse_qsl, urlsplit

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

OTHER = "%016x@198.18.0.12:8000" % 99


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember() as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12, 13)]
        yield member


def publish(member: FakeMember, documents: t.Any, **options: t.Any) -> dict[str, t.Any]:
    modes = {name: options.pop(name, name == "diff") for name in ("check", "diff")}
    arguments = dict({"endpoints": [member.url], "timeout": 5, "documents": documents}, **options)
    return run_module("publish", arguments, **modes)


def writes(member: FakeMember) -> list[str]:
    return [request[1] for request in member.requests if request[0] in ("PUT", "DELETE")]


def test_each_is_written_in_the_order_given_and_only_what_differs(member, tmp_path):
    (tmp_path / "f").write_bytes(b"\x00\xff")
    member.put("same", b"s")
    member.put("old", b"o")
    documents = {
        "z/text": {"content": "x"},
        "same": {"content": "s"},
        "old": {"state": "absent"},
        "data": {"value": {"a": 1}, "content_type": "yaml", "comment": "own"},
        "file": {"src": str(tmp_path / "f")},
    }
    result = publish(member, documents, comment="for all", author="ops", wait="all")
    assert (result["rc"], result["changed"]) == (0, True)
    assert writes(member) == ["/v1/documents/" + key for key in ("z/text", "old", "data", "file")]
    assert {key: found["changed"] for key, found in result["documents"].items()} == {
        "z/text": True,
        "same": False,
        "old": True,
        "data": True,
        "file": True,
    }
    assert member.documents["data"]["value"] == b"a: 1\n" and member.documents["file"]["value"] == b"\x00\xff"
    assert member.documents["z/text"]["comment"] == "for all" and member.documents["data"]["comment"] == "own"
    assert member.documents["data"]["author"] == "ops"
    for key, found in result["documents"].items():
        held = member.held(key)
        assert (found["key"], found["version"], found["digest"]) == (key, held["version"], held["digest"])
        assert (found["members"], found["confirmed"], found["laggards"]) == (3, 3, [])
    assert [diff["after_header"] for diff in result["diff"]] == ["z/text", "old (absent)", "data", "file"]
    assert (result["members"], result["confirmed"]) == (3, 3)
    again = publish(member, documents, wait="all")
    assert (again["changed"], again["confirmed"]) == (False, 3) and "diff" not in again


def test_options_of_the_module_are_for_all_that_have_none(member):
    member.put("a", b"a")
    member.put("b", b"b")
    result = publish(member, {"a": {}, "b": None, "c": {"state": "present", "content": "c"}}, state="absent")
    assert result["rc"] == 0 and list(member.documents) == ["c"]
    publish(member, {"d": {"content": "{}"}, "e": {"content": "", "content_type": "text"}}, content_type="json")
    assert [member.documents[key]["content_type"] for key in "de"] == ["json", "text"]


def test_nothing_to_do(member):
    result = publish(member, {})
    assert (result["rc"], result["changed"], result["documents"]) == (0, False, {})
    assert not member.requests


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"content": "x", "src": "/f"}, "mutually exclusive"),
        ({"contents": "x"}, "contents"),
        ({"content": {"a": 1}}, "expected text, got dict"),
        ({"state": "gone"}, "must be one of"),
        ({"src": "/does/not/exist"}, "/does/not/exist"),
        ({"value": {1, 2} and [1], "content_type": "text"}, "expected text for content_type"),
        ({}, "expected one of content, value, src with state=present, got none"),
        ("text", "dictionary of options"),
    ],
)
def test_a_wrong_entry_is_named_and_nothing_is_asked_or_written(member, bad, said):
    result = publish(member, {"good": {"content": "x"}, "app/bad": bad})
    assert result["rc"] == 1 and "'app/bad'" in result["msg"] and said in result["msg"]
    assert not member.requests


def test_a_wrong_name_is_an_error_before_anything_is_written(member):
    result = publish(member, {"good": {"content": "x"}, "a//b": {"content": "x"}})
    assert result["rc"] == 1 and "key: expected" in result["msg"] and not member.requests


@pytest.mark.parametrize(
    "other",
    [
        {"key": "k"},
        {"content": "x"},
        {"value": 1},
        {"src": "/etc/hosts"},
        {"if_version": "absent"},
    ],
)
def test_it_excludes_the_options_of_one_document(member, other):
    result = publish(member, {"a": {"content": "x"}}, **other)
    assert result["rc"] == 1 and "mutually exclusive" in result["msg"]


@pytest.mark.parametrize("check", [True, False])
def test_all_conditions_are_compared_before_the_first_write(member, check):
    held = member.put("second", b"theirs")
    documents = {
        "first": {"content": "1"},
        "second": {"content": "2", "if_version": OTHER},
        "third": {"content": "3", "if_version": "absent"},
        "fourth": {"content": "4", "if_version": OTHER},
    }
    result = publish(member, documents, check=check)
    assert result["rc"] == 1 and not writes(member) and not result["changed"]
    assert result["conflicts"] == [
        {"key": "second", "expected": OTHER, "actual": held["version"]},
        {"key": "fourth", "expected": OTHER, "actual": "absent"},
    ]
    assert (result["written"], result["unwritten"]) == ([], ["first", "second", "third", "fourth"])
    assert "'second'" in result["msg"] and "'fourth'" in result["msg"]
    assert not any(found["changed"] for found in result["documents"].values())


def test_a_race_that_is_lost_tells_what_was_written_before(member):
    seen = member.put("b", b"old")["version"]

    def overtaken(handler):
        if handler.path.startswith("/v1/documents/b") and handler.command == "PUT":
            member.put("b", b"theirs")
        getattr(handler, handler.command + "_documents")(handler.path[4:].split("?")[0], {})

    member.misbehave = overtaken
    documents = {"a": {"content": "1"}, "b": {"content": "2", "if_version": seen}, "c": {"content": "3"}}
    result = publish(member, documents, atomic="never")
    assert result["rc"] == 1 and result["changed"]
    assert (result["written"], result["unwritten"], result["uncertain"]) == (["a"], ["b", "c"], [])
    actual = member.documents["b"]["version"]
    assert result["conflicts"] == [{"key": "b", "expected": seen, "actual": actual}]
    assert [result["documents"][key]["changed"] for key in "abc"] == [True, False, False]
    assert result["documents"]["a"]["version"] == member.documents["a"]["version"]
    assert [diff["after_header"] for diff in result["diff"]] == ["a"]


def test_a_member_that_dies_half_way_leaves_one_uncertain(member):
    def die(handler):
        if handler.path.startswith("/v1/documents/b") and handler.command == "PUT":
            return
        getattr(handler, handler.command + "_documents")(handler.path[4:].split("?")[0], {})

    member.misbehave = die
    documents = {key: {"content": "x", "if_version": "absent"} for key in "abc"}
    result = publish(member, documents, retries=0, atomic="never")
    assert result["rc"] == 1 and result["error"]["code"] == "answer_lost"
    assert (result["written"], result["uncertain"], result["unwritten"]) == (["a"], ["b"], ["c"])
    assert result["failed_endpoints"][0]["endpoint"] == member.url
    member.misbehave = None
    again = publish(member, documents)
    assert again["rc"] == 0 and [again["documents"][key]["changed"] for key in "abc"] == [False, True, True]


def test_a_refused_document_stops_the_run(member):
    documents = {"a": {"content": "1"}, "b": {"content": "x" * (2 << 20)}, "c": {"content": "3"}}
    result = publish(member, documents)
    assert result["error"]["code"] == "document_too_large" and not member.documents
    assert (result["written"], result["unwritten"]) == ([], ["a", "b", "c"])
    result = publish(member, documents, atomic="never")
    assert result["error"]["code"] == "document_too_large"
    assert (result["written"], result["unwritten"]) == (["a"], ["b", "c"])


def test_wait_is_for_all_of_them_together(member):
    member.put("other", b"o")
    member.holdings["host13"] = {"b": {"version": None, "digest": None}}
    member.holdings["host12"] = {"c": {"version": None, "digest": None}}
    result = publish(member, {key: {"content": key} for key in "abc"}, wait="all", wait_timeout=1)
    assert result["rc"] == 1 and result["changed"] and sorted(member.documents) == ["a", "b", "c", "other"]
    assert all(told in result["msg"] for told in ("'b'", "host13", "'c'", "host12")) and "'a'" not in result["msg"]
    assert [(late["key"], late["name"]) for late in result["laggards"]] == [("b", "host13"), ("c", "host12")]
    assert (result["members"], result["confirmed"]) == (3, 2)
    assert [result["documents"][key]["confirmed"] for key in "abc"] == [3, 2, 2]
    assert result["written"] == ["a", "b", "c"]
    assert publish(member, {key: {"content": key} for key in "abc"}, wait="majority")["rc"] == 0


def test_a_wait_that_is_over_does_not_ask_without_end(member):
    keys = "abcdefgh"
    member.holdings["host13"] = {key: {"version": None, "digest": None} for key in keys}

    def slow(handler):
        parts = urlsplit(handler.path)
        if parts.path == "/v1/convergence":
            time.sleep(0.4)
        answer = getattr(handler, "%s_%s" % (handler.command, parts.path.split("/")[2]))
        answer(parts.path[4:], dict(parse_qsl(parts.query)))

    member.misbehave = slow
    result = publish(member, {key: {"content": key} for key in keys}, wait="all", wait_timeout=0, timeout=1)
    assert result["rc"] == 1
    assert result["written"] == list(keys)
    confirmed = [result["documents"][key]["confirmed"] for key in keys]
    asked = confirmed.index(None)
    # Three answers of 0.4 s fill the second; a busy machine is slower than that, but the first is always asked for.
    assert 1 <= asked <= 3 and confirmed == asked * [2] + (len(keys) - asked) * [None]
    assert "%r" % keys[asked] in result["msg"] and "no time was left" in result["msg"]
    assert "'h'" not in result["msg"]


def test_without_waiting_nobody_is_counted(member):
    result = publish(member, {"a": {"content": "1"}, "b": {"content": "2"}})
    assert (result["members"], result["confirmed"], result["laggards"]) == (None, None, [])
    assert not member.asked("GET", "/v1/convergence")
