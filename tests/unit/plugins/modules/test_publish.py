# SPDX-License-Identifier: MIT
"""xdp_gossip_publish: idempotence, prediction, compare-and-set, waiting, secrets."""

from __future__ import annotations

import hashlib
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember() as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12, 13)]
        yield member


def publish(member: FakeMember, check: bool = False, diff: bool = True, **options: t.Any) -> dict[str, t.Any]:
    options = dict({"endpoints": [member.url], "timeout": 5, "key": "app/a"}, **options)
    return run_module("publish", options, check=check, diff=diff)


def sha(text: bytes) -> str:
    return "sha256:" + hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    "options, value, content_type",
    [
        ({"content": "héllo\n"}, "héllo\n".encode(), "raw"),
        ({"content": ""}, b"", "raw"),
        ({"content": "[]", "content_type": "json"}, b"[]", "json"),
        ({"value": "text as it is"}, b"text as it is", "raw"),
        (
            {"value": {"b": 1, "a": [True, None, "é"]}},
            '{\n  "a": [\n    true,\n    null,\n    "é"\n  ],\n  "b": 1\n}\n'.encode(),
            "json",
        ),
        ({"value": False}, b"false\n", "json"),
        ({"value": {"b": 1, "a": [1]}, "content_type": "yaml"}, b"a:\n- 1\nb: 1\n", "yaml"),
    ],
)
def test_what_is_published_and_that_a_second_run_changes_nothing(member, options, value, content_type):
    predicted = publish(member, check=True, **options)
    assert not member.documents
    first = publish(member, **options)
    assert (first["rc"], first["changed"]) == (0, True)
    held = member.documents["app/a"]
    assert (held["value"], held["content_type"]) == (value, content_type)
    assert first["version"] == held["version"]
    assert first["digest"] == sha(value) and first["size"] == len(value)
    for same in ("changed", "digest", "diff", "previous_version"):
        assert predicted[same] == first[same]
    assert predicted["version"] is None

    second = publish(member, **options)
    assert (second["changed"], second["version"]) == (False, first["version"])
    assert len(member.asked("PUT", "/v1/documents/app/a")) == 1


def test_src_is_published_byte_for_byte(member, tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(256)))
    result = publish(member, src=str(tmp_path / "f"))
    assert member.documents["app/a"]["value"] == bytes(range(256))
    assert "256 bytes" in result["diff"]["after"]
    assert not publish(member, src=str(tmp_path / "f"))["changed"]


def test_diff_shows_before_and_after(member):
    member.put("app/a", b"old\n")
    result = publish(member, content="new\n")
    assert (result["diff"]["before"], result["diff"]["after"]) == ("old\n", "new\n")
    assert "diff" not in publish(member, content="newer\n", diff=False)


def test_author_and_comment_go_along(member):
    publish(member, content="x", author="ops", comment="for ticket 7")
    assert (member.documents["app/a"]["author"], member.documents["app/a"]["comment"]) == ("ops", "for ticket 7")


def test_another_content_type_counts_only_when_it_is_asked_for(member):
    member.put("app/a", b"{}", content_type="json")
    assert not publish(member, content="{}")["changed"]
    assert publish(member, content="{}", content_type="text", check=True)["changed"]
    assert publish(member, content="{}", content_type="text")["changed"]


def test_absent(member):
    assert not publish(member, state="absent")["changed"]
    held = member.put("app/a", b"x")
    predicted = publish(member, state="absent", check=True)
    assert predicted["changed"] and "app/a" in member.documents
    result = publish(member, state="absent", wait="all", author="me", comment="why")
    assert result["changed"] and result["previous_version"] == held["version"]
    tombstone = member.history["app/a"][0]
    assert (tombstone["deleted"], tombstone["author"], tombstone["comment"]) == (True, "me", "why")
    assert result["version"] not in (None, held["version"]) and result["digest"] is None
    assert (result["diff"]["before"], result["diff"]["after"]) == ("x", "")
    assert result["confirmed"] == 3
    question = member.asked("GET", "/v1/convergence")[-1][2]
    assert (question["key"], question["version"], question["deleted"]) == ("app/a", result["version"], "1")
    again = publish(member, state="absent", wait="all")
    assert (again["changed"], again["version"], again["confirmed"]) == (False, None, 3)
    member.holdings["host12"] = {"app/a": held}
    behind = publish(member, state="absent", wait="all", wait_timeout=0)
    assert behind["rc"] == 1 and [late["name"] for late in behind["laggards"]] == ["host12"]


def test_a_deletion_that_was_lost_with_its_member_is_not_reported_as_done(member):
    member.put("app/a", b"x")
    with FakeMember() as second:
        second.nodes, second.documents = member.nodes, dict(member.documents)

        def die(handler):
            if handler.command == "DELETE":
                handler.DELETE_documents("documents/app/a", {})
            elif handler.path.startswith("/v1/documents"):
                handler.GET_documents("documents/app/a", {})

        member.misbehave = die
        options = {"state": "absent", "wait": "all", "wait_timeout": 1, "retries": 0}
        result = publish(member, endpoints=[member.url, second.url], **options)
    assert result["rc"] == 1 and result["changed"]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_lost_compare_and_set_fails_with_both_versions(member, check, state):
    held = member.put("app/a", b"theirs")
    other = "%016x@198.18.0.12:8000" % 99
    options = {"content": "mine"} if state == "present" else {}
    result = publish(member, state=state, if_version=other, check=check, **options)
    assert result["rc"] == 1 and result["failed"]
    assert (result["expected"], result["actual"]) == (other, held["version"])
    assert other in result["msg"] and held["version"] in result["msg"]
    assert member.documents["app/a"]["value"] == b"theirs"


def test_a_race_lost_between_reading_and_writing_fails_too(member):
    seen = member.put("app/a", b"old")["version"]
    asked = member.asked

    def overtake(handler):
        # Somebody else writes after our read: reached through the PUT that is about to be checked.
        member.misbehave = None
        member.put("app/a", b"theirs")
        handler.PUT_documents("documents/app/a", {})

    def read_then_overtake(handler):
        if handler.command == "PUT":
            overtake(handler)
        else:
            handler.GET_documents("documents/app/a", {})

    member.misbehave = read_then_overtake
    result = publish(member, content="mine", if_version=seen)
    assert result["rc"] == 1
    assert (result["expected"], result["actual"]) == (seen, member.documents["app/a"]["version"])
    assert member.documents["app/a"]["value"] == b"theirs"
    assert len(asked("PUT", "/v1/documents/app/a")) == 1


def test_compare_and_set_that_holds(member):
    first = publish(member, content="1", if_version="absent")
    assert first["changed"]
    assert publish(member, content="2", if_version=first["version"])["changed"]
    again = publish(member, content="2", if_version=first["version"])
    assert again["rc"] == 0 and not again["changed"]  # what is wanted is there: nothing to write, nothing to lose
    lost = publish(member, content="3", if_version="absent")
    assert lost["rc"] == 1 and lost["expected"] == "absent"


def test_an_unanswered_compare_and_set_is_not_sent_to_another_member(member):
    with FakeMember() as second:
        member.after_write = lambda handler: setattr(handler, "close_connection", True)
        result = publish(member, endpoints=[member.url, second.url], content="x", if_version="absent")
        assert result["rc"] == 1 and "may have been made" in result["msg"]
        assert not second.requests
    member.after_write = None
    assert not publish(member, content="x", if_version="absent")["changed"]


def test_an_unanswered_write_without_condition_goes_to_another_member(member):
    with FakeMember() as second:
        member.after_write = lambda handler: setattr(handler, "close_connection", True)
        result = publish(member, endpoints=[member.url, second.url], content="x")
        assert result["changed"] and result["endpoint"] == second.url
        assert second.documents["app/a"]["value"] == b"x"


@pytest.mark.parametrize("wait, confirmed", [("all", 3), ("majority", 3), (2, 3)])
def test_wait_ends_as_soon_as_enough_hold_it(member, wait, confirmed):
    member.lagging["host13"] = 2 if wait == "all" else 0
    result = publish(member, content="x", wait=wait, wait_timeout=600)  # which is not waited for
    assert (result["rc"], result["members"], result["confirmed"]) == (0, 3, confirmed)
    assert result["laggards"] == []
    question = member.asked("GET", "/v1/convergence")[-1][2]
    assert (question["version"], question["digest"]) == (result["version"], result["digest"])


def test_wait_that_runs_out_names_the_laggards(member):
    member.lagging.update(host12=999, host13=999)
    result = publish(member, content="x", wait="majority", wait_timeout=1)
    assert result["rc"] == 1 and result["changed"]
    assert "1 of 3 members" in result["msg"] and "host12" in result["msg"] and "host13" in result["msg"]
    assert [laggard["name"] for laggard in result["laggards"]] == ["host12", "host13"]
    assert result["version"] == member.documents["app/a"]["version"]
    # A second run waits as well, though there is nothing to change.
    again = publish(member, content="x", wait="all", wait_timeout=0)
    assert again["rc"] == 1 and not again["changed"]
    member.lagging.clear()
    assert publish(member, content="x", wait="all")["rc"] == 0


def test_without_waiting_the_count_is_taken_once(member):
    member.lagging["host13"] = 999
    result = publish(member, content="x")
    assert (result["rc"], result["members"], result["confirmed"]) == (0, 3, 2)
    assert len(member.asked("GET", "/v1/convergence")) == 1


def test_check_mode_waits_for_nothing(member):
    publish(member, content="x", wait="all", check=True)
    assert not member.asked("GET", "/v1/convergence")


@pytest.mark.parametrize("option", ["content", "value"])
def test_a_sensitive_content_is_nowhere_in_the_output(member, option):
    secret = "correct horse battery staple"
    member.put("app/a", b"old secret stapler")
    member.lagging["host13"] = 999
    results = [
        publish(member, sensitive=True, check=True, **{option: secret}),
        publish(member, sensitive=True, if_version="absent", **{option: secret}),
        publish(member, sensitive=True, wait="all", wait_timeout=0, **{option: secret}),
        publish(member, sensitive=True, **{option: secret}),
    ]
    assert [result["rc"] for result in results] == [0, 1, 1, 0]
    for result in results:
        assert secret not in result["output"] and "old secret" not in result["output"]
    assert member.documents["app/a"]["value"] == secret.encode()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"content": "x", "key": "a//b"}, "key: expected no empty"),
        ({"content": "x", "key": "../etc"}, "'..'"),
        ({"content": "x", "key": "a\nb"}, "control character"),
        ({"content": "x", "key": ""}, "1 to 512 bytes"),
        ({"content": "x", "key": "a" * 513}, "1 to 512 bytes"),
        ({"content": "x", "wait": "some"}, "wait: expected"),
        ({"content": "x", "wait": "0"}, "wait: expected"),
        ({"content": "x", "wait": "²"}, "wait: expected"),
        ({"src": "/does/not/exist"}, "/does/not/exist"),
        ({"value": {"a": 1}, "content_type": "text"}, "expected text"),
        ({}, "content, value, src"),
        ({"content": None}, "got none"),
        ({"value": None}, "got none"),
        ({"content": True}, "expected text, got bool"),
        ({"content": {"a": 1}}, "expected text, got dict"),
        ({"content": "x", "value": "y"}, "mutually exclusive"),
        ({"content": "x" * (2 << 20)}, "document_too_large"),
    ],
)
def test_bad_options_say_what_was_expected(member, options, said):
    result = publish(member, **options)
    assert result["rc"] == 1 and said in result["msg"]
    assert not member.documents


def test_null_is_no_content_and_deletes_nothing(member):
    member.put("app/a", b"x")
    for options in ({"content": None}, {"value": None}, {"documents": {"app/a": {"content": None}}, "key": None}):
        arguments = dict({"endpoints": [member.url], "key": "app/a"}, **options)
        if arguments["key"] is None:
            del arguments["key"]
        assert run_module("publish", arguments)["rc"] == 1
    assert member.documents["app/a"]["value"] == b"x"


def test_a_type_is_kept_unless_another_one_is_given(member):
    member.put("app/a", b"{}", content_type="json")
    publish(member, content="[]")
    assert member.documents["app/a"]["content_type"] == "json"
    publish(member, value={"a": 1}, content_type="yaml")
    assert member.documents["app/a"]["content_type"] == "yaml"


def test_nobody_answers(member):
    dead = "http://127.0.0.1:%d" % free_port()
    result = publish(member, endpoints=[dead, "unix:///does/not/exist"], retries=0, content="x")
    assert result["rc"] == 1
    assert [attempt["endpoint"] for attempt in result["failed_endpoints"]] == [dead, "unix:///does/not/exist"]


def test_a_value_that_does_not_match_its_digest_is_not_believed(member):
    member.put("app/a", b"x")["value"] = b"y"
    result = publish(member, content="x")
    assert result["rc"] == 1 and "does not match its digest" in result["msg"]


def test_keys_travel_unharmed(member):
    key = "ä b/%2F?#&=+"
    publish(member, key=key, content="x")
    assert list(member.documents) == [key]


def test_the_type_of_a_file_is_by_its_suffix_unless_the_document_has_one(member, tmp_path):
    (tmp_path / "limits.yml").write_text("a: 1")
    publish(member, src=str(tmp_path / "limits.yml"), remote_src=True)
    assert member.documents["app/a"]["content_type"] == "yaml"
    member.put("app/a", b"{}", content_type="json")
    (tmp_path / "limits.yml").write_text("a: 2")
    publish(member, src=str(tmp_path / "limits.yml"), remote_src=True)
    assert member.documents["app/a"]["content_type"] == "json"
    # What is held is the agent's to look up, at the moment of writing.
    assert "content_type" not in member.asked("PUT", "/v1/documents/app/a")[-1][2]


# Members that are cut off


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("wait", ["all", "majority", 1])
def test_an_isolated_member_refuses_at_once_and_nothing_is_written(member, wait, state):
    member.isolated = True
    member.put("app/a", b"old")
    content = {"content": "x"} if state == "present" else {}
    result = publish(member, wait=wait, state=state, wait_timeout=60, retries=5, **content)
    assert (result["rc"], result["error"]["code"], result["error"]["status"]) == (1, "isolated", 503)
    assert (result["written"], result["unwritten"], result["uncertain"]) == ([], ["app/a"], [])
    assert member.documents["app/a"]["value"] == b"old"
    writes = [request for request in member.requests if request[0] in ("PUT", "DELETE")]
    assert len(writes) == 1 and not member.asked("GET", "/v1/convergence")


def test_who_waits_for_nobody_may_publish_on_an_isolated_member(member):
    member.isolated = True
    result = publish(member, content="x")
    assert (result["rc"], result["changed"], result["members"]) == (0, True, None)
    assert member.documents["app/a"]["value"] == b"x"


def test_all_documents_or_none_are_refused_together(member):
    member.isolated = True
    options = {"endpoints": [member.url], "documents": {"a": {"content": "1"}, "b": {"content": "2"}}, "wait": "all"}
    result = run_module("publish", options)
    assert (result["rc"], result["error"]["code"], sorted(result["unwritten"])) == (1, "isolated", ["a", "b"])
    assert not member.documents


def test_the_next_endpoint_takes_what_an_isolated_member_refused(member):
    member.isolated = True
    with FakeMember() as second:
        second.nodes = list(member.nodes)
        result = publish(second, content="x", wait="all", endpoints=[member.url, second.url])
        assert (result["rc"], result["confirmed"], result["endpoint"]) == (0, 3, second.url)
        assert not member.documents and second.documents["app/a"]["value"] == b"x"


def test_a_majority_counts_the_dead_and_the_result_tells_their_number(member):
    member.absent = {"dead": 3, "agent_down": 1}
    lost = publish(member, content="x", wait="majority", wait_timeout=0)
    assert (lost["rc"], lost["confirmed"], lost["members"], lost["known"]) == (1, 3, 3, 7)
    assert (lost["dead"], lost["agent_down"]) == (3, 1)
    assert "Of 7 known members, 3 dead and 1 agent_down." in lost["msg"]
    member.absent = {"dead": 2}
    assert publish(member, content="x", wait="majority", wait_timeout=0)["rc"] == 0
    every = publish(member, content="x", wait="all")
    assert (every["rc"], every["known"], every["dead"], every["agent_down"]) == (0, 5, 2, 0)
