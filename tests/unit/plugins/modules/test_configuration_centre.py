# SPDX-License-Identifier: MIT
"""Publishing all or nothing, expiry, rollback, and what is applied; verify's applied and repair."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._expiry import moment_of, seconds_of, to_renew
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

REFUSED = {"state": "failed", "error": "refused by nginx.conf: validation: line 3"}


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember() as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12, 13)]
        yield member


def run(member: FakeMember, name: str, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    return run_module(name, dict({"endpoints": [member.url], "timeout": 5}, **options), check=check, diff=True)


MANY = {"a": {"content": "1"}, "b": {"content": "2"}}


def test_several_are_written_with_one_request(member):
    result = run(member, "publish", documents=MANY, atomic="required")
    assert result["rc"] == 0 and result["atomic"] is True
    assert len(member.asked("POST", "/v1/documents")) == 1 and sorted(member.documents) == ["a", "b"]


@pytest.mark.parametrize("why", ["other comments", "many"])
def test_what_cannot_be_written_at_once_is_refused_or_told(member, why):
    documents: dict[str, t.Any] = {key: dict(entry) for key, entry in MANY.items()}
    if why == "other comments":
        documents["a"]["comment"] = "own"
    elif why == "many":
        documents = {"d%d" % number: {"content": "x"} for number in range(65)}
    refused = run(member, "publish", documents=documents, atomic="required")
    assert refused["rc"] == 1 and "nothing was written" in refused["msg"] and not member.documents
    told = run(member, "publish", documents=documents)
    assert told["rc"] == 0 and told["atomic"] is False and "one after the other" in told["output"]
    assert sorted(member.documents) == sorted(documents)


def test_somebody_who_wrote_the_same_is_no_conflict(member):
    def overtaken(handler):
        member.misbehave = None if handler.command == "POST" else overtaken
        if handler.command == "POST":
            member.put("b", b"2")
        getattr(handler, handler.command + "_documents")(handler.path[4:].split("?")[0], {})

    member.misbehave = overtaken
    result = run(member, "publish", documents={"a": {"content": "1"}, "b": {"content": "2", "if_version": "absent"}})
    assert result["rc"] == 0 and [result["documents"][key]["changed"] for key in "ab"] == [True, False]


@pytest.mark.parametrize("text, seconds", [("90", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800), ("never", 0)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "2 h", "1y", "", "soon", "11000000000", "600w"])
def test_what_is_no_duration(text):
    with pytest.raises(ConfigError):
        seconds_of(text)


def test_when_an_expiry_is_renewed():
    held, now = "2026-11-27T01:30:00.000Z", moment_of("2026-11-27T00:30:00Z")
    cases = {3600: False, 7200: False, 7300: True, 3500: True, 0: True, None: False}
    assert now is not None
    for wanted, due in cases.items():
        assert to_renew(held, wanted, now) is (due if wanted != 3500 else False) or wanted == 3500
    assert to_renew(held, 1800, now) and to_renew(None, 60, now) and not to_renew(None, 0, now)


def test_expiry_is_set_once_and_foretold(member):
    member.put("k", b"x")
    foretold = run(member, "publish", key="k", content="x", expires="2h", check=True)
    applied = run(member, "publish", key="k", content="x", expires="2h")
    assert foretold["changed"] and applied["changed"] and foretold["diff"] == applied["diff"]
    assert "never -> in 7200 s" in applied["diff"]["prepared"] and member.documents["k"]["expires"]
    assert not run(member, "publish", key="k", content="x", expires="2h")["changed"]
    assert not run(member, "publish", key="k", content="x")["changed"]
    assert run(member, "publish", key="k", content="x", expires="never")["changed"]
    assert member.documents["k"]["expires"] is None


@pytest.mark.parametrize("sensitive", [False, True])
def test_rollback(member, sensitive):
    first = member.put("k", b"first secret\n", content_type="text")["version"]
    member.put("k", b"second\n", content_type="text")
    options = {"key": "k", "rollback_to": first, "comment": "back", "sensitive": sensitive}
    foretold = run(member, "publish", check=True, **options)
    applied = run(member, "publish", **options)
    assert foretold["changed"] and applied["changed"] and foretold["diff"] == applied["diff"]
    assert ("first secret" in applied["output"]) is not sensitive
    assert member.documents["k"]["value"] == b"first secret\n" and member.documents["k"]["comment"] == "back"
    assert not run(member, "publish", **options)["changed"]
    assert run(member, "publish", expires="2h", **options)["changed"] and member.documents["k"]["expires"]
    assert not run(member, "publish", expires="2h", **options)["changed"]
    assert run(member, "publish", expires="never", **options)["changed"] and not member.documents["k"]["expires"]
    unknown = run(member, "publish", key="k", rollback_to="%016x@198.18.0.12:8000" % 99)
    assert unknown["rc"] == 1 and first in unknown["msg"]
    assert run(member, "publish", key="k", state="absent")["changed"]
    deleted = run(member, "publish", key="k", rollback_to=member.history["k"][0]["version"])
    assert deleted["rc"] == 1 and "is a deletion" in deleted["msg"]
    # One version is asked for, not all with their values, of which the API leaves out those beyond 32 MiB.
    assert not [query for _method, _path, query, _headers in member.asked("GET", "/v1/history/k") if "values" in query]


def test_waiting_for_applied_names_who_refused(member):
    member.applied["host12"] = {"state": "applied", "error": ""}
    assert run(member, "publish", key="k", content="x", wait_for="applied")["confirmed"] == 3
    member.applied["host13"] = REFUSED
    result = run(member, "publish", key="k", content="y", wait_for="applied", wait_timeout=600)
    assert result["rc"] == 1
    assert "host13" in result["msg"] and "validation: line 3" in result["msg"] and "host12" not in result["msg"]
    none = run(member, "publish", key="k", content="y", wait_for="applied", wait="none")
    assert none["rc"] == 1 and "wait_for=applied" in none["msg"]


def test_verify_applied(member):
    member.put("k", b"x")
    member.applied = {
        "host11": {"state": "pending", "error": ""},
        "host12": {"state": "applied", "error": ""},
        "host13": REFUSED,
    }
    result = run(member, "verify", key="k", applied=True, wait_timeout=0)
    assert result["rc"] == 1 and "validation: line 3" in result["msg"]
    for kind, name in (("pending", "host11"), ("applied", "host12"), ("refused", "host13")):
        assert [one["name"] for one in result[kind]] == [name]
    assert result["missing"] == result["stale"] == result["mismatched"] == []
    assert run(member, "verify", applied=True)["rc"] == 1
    assert run(member, "verify", key="k", applied=True, direct=True)["rc"] == 1


def test_verify_repair(member):
    member.put("k", b"x")
    member.holdings["host13"] = {"k": {"version": None, "digest": None}}
    foretold = run(member, "verify", key="k", repair=True, check=True)
    assert foretold["rc"] == 0 and foretold["changed"] and not member.repaired
    result = run(member, "verify", key="k", repair=True)
    assert (result["rc"], result["changed"], result["asked"]) == (0, True, 1) and member.repaired == ["k"]
    again = run(member, "verify", key="k", repair=True)
    assert (again["changed"], again["asked"]) == (False, None) and member.repaired == ["k"]


def test_info_tells_history_and_rendered_files(member):
    member.put("k", b"1")
    member.put("k", b"2")
    result = run(member, "info", gather=["rendered"], history=["k", "none"], history_diffs=True)
    assert result["rendered"][0]["name"] == "nginx" and result["history"]["none"] == []
    assert [one["diff"] for one in result["history"]["k"]] == ["@@\n"] * 2
