# SPDX-License-Identifier: MIT
"""The part of a signed publish that runs on the target host: what it plans, and what it sends."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

OURS, OTHERS = "SHA256:ours", "SHA256:others"
SIGNED: dict[str, t.Any] = {"key": OURS, "signed_at": "2026-11-30T15:20:48.123456Z", "signature": "armored"}


@pytest.fixture(name="member")
def fixture_member() -> t.Iterator[FakeMember]:
    with FakeMember() as member:
        member.nodes = [node("198.18.0.11", "m1", local=True)]
        member.signer = OURS
        yield member


def run(member: FakeMember, check: bool = False, diff: bool = False, **options: t.Any) -> dict[str, t.Any]:
    return run_module("publish", dict(options, endpoints=[member.url]), check=check, diff=diff)


def plan(member: FakeMember, **options: t.Any) -> dict[str, t.Any]:
    return run(member, signing={"key": OURS}, content_type="raw", **options)


def signed(**lineages: t.Any) -> dict[str, t.Any]:
    return dict(SIGNED, documents={key: {"read": read, "expires": None} for key, read in lineages.items()})


def hold(member: FakeMember, key: str, value: bytes, signer: str | None) -> str:
    held = member.put(key, value)
    held["signed_by"] = {"signer": "alice", "key": signer, "withdrawn": False} if signer else None
    return str(held["version"])


def test_the_plan_names_the_versions_and_writes_nothing(member):
    assert plan(member, key="a", content="x")["lineages"] == {"a": []}
    version = hold(member, "a", b"y", OURS)
    assert plan(member, key="a", content="x")["lineages"] == {"a": [version]}
    member.tombstones["gone"] = "0" * 16 + "@198.18.0.11:8000"
    assert plan(member, key="gone", content="x")["lineages"] == {"gone": [member.tombstones["gone"]]}
    documents = {"a": {"content": "y"}, "b": {"content": "z"}, "c": {"state": "absent"}}
    assert plan(member, documents=documents)["lineages"] == {"b": []}
    assert not [request for request in member.requests if request[0] != "GET"]


@pytest.mark.parametrize("signer", [None, OTHERS])
def test_the_same_content_by_another_key_or_none_is_signed(member, signer):
    version = hold(member, "a", b"x", signer)
    planned = run(member, key="a", content="x", content_type="raw", signing={"key": OURS}, diff=True)
    assert planned["lineages"] == {"a": [version]}
    assert "a: signed by %s -> SHA256:ours\n" % (signer or "nobody") in planned["diff"]["prepared"]


def test_what_the_key_has_signed_is_not_planned_and_still_waited_for(member):
    hold(member, "a", b"x", OURS)
    result = plan(member, key="a", content="x", wait="all")
    assert "lineages" not in result and not result["changed"] and result["confirmed"] == 1
    assert result["signed_by"] == {"signer": "alice", "key": OURS, "withdrawn": False}


def test_check_mode_has_no_second_run(member):
    result = run(member, check=True, key="a", content="x", content_type="raw", signing={"key": OURS})
    assert result["changed"] and result["signed_by"] is None and "lineages" not in result


def test_the_signed_request(member):
    version = hold(member, "a", b"y", OURS)
    signing = signed(a=[version], b=[])
    signing["documents"]["b"]["expires"] = "2027-01-31T12:00:00.000Z"
    documents = {"a": {"state": "absent"}, "b": {"content": "z", "expires": "1h"}}
    result = run(member, documents=documents, content_type="text", comment="why", signing=signing, wait="all")
    assert result["changed"] and result["atomic"] and result["documents"]["b"]["signed_by"]["key"] == OURS
    assert member.signed == [
        {
            "documents": [
                {"key": "a", "delete": True, "read": [version]},
                {
                    "key": "b",
                    "value": "z",
                    "content_type": "text",
                    "read": [],
                    "expires": "2027-01-31T12:00:00.000Z",
                },
            ],
            "comment": "why",
            "signed_at": SIGNED["signed_at"],
            "signature": "armored",
        }
    ]


def test_a_document_that_was_signed_is_sent_even_if_it_differs_no_more(member):
    """The signature covers all documents of the request, so all have to be in it."""
    hold(member, "a", b"x", OURS)
    documents = {"a": {"content": "x"}, "b": {"content": "z"}}
    run(member, documents=documents, content_type="raw", signing=signed(a=[], b=[]))
    assert [entry["key"] for entry in member.signed[0]["documents"]] == ["a", "b"]


def test_a_document_that_was_not_signed_is_never_sent(member):
    documents = {"a": {"content": "x"}, "b": {"content": "z"}}
    result = run(member, documents=documents, content_type="raw", signing=signed(a=[]))
    assert result["rc"] == 1 and result["error"]["code"] == "signature_outdated" and not member.signed


def test_a_version_in_the_way_is_told(member):
    member.outdated = ["0" * 15 + "9@198.18.0.12:8000"]
    result = run(member, key="a", content="x", content_type="raw", signing=signed(a=[]))
    assert result["rc"] == 1 and result["unwritten"] == ["a"]
    assert result["error"]["details"]["lineage"] == ["0" * 15 + "9@198.18.0.12:8000"]


def test_compare_and_set(member):
    version = hold(member, "a", b"y", OURS)
    result = plan(member, key="a", content="x", if_version="absent")
    assert result["rc"] == 1 and result["actual"] == version
    result = run(member, key="a", content="x", content_type="raw", if_version=version, signing=signed(a=[version]))
    assert result["changed"] and member.signed[0]["documents"][0]["if_version"] == version


def test_the_remedy_of_an_unsigned_publish(member):
    def refuse(handler: t.Any) -> None:
        if handler.command == "GET":
            handler.error(404, "document_not_found")
        else:
            handler.error(403, "signature_required", key="a", signers=["alice"])

    member.misbehave = refuse
    for sensitive in (False, True):
        result = run(member, key="a", content="x", sensitive=sensitive)
        assert result["error"]["code"] == "signature_required"
        assert result["msg"].endswith("set sign_key and cluster of xdp_gossip_publish")


def test_a_module_without_its_action_plugin_signs_nothing(member):
    result = run(member, key="a", content="x", sign_key="/nowhere")
    assert result["rc"] == 1 and "sign_key: expected the action plugin" in result["msg"]


def test_verify_says_who_signed(member):
    version = hold(member, "a", b"x", OURS)
    hold(member, "ab", b"x", None)
    options = {"endpoints": [member.url], "wait_timeout": 0}
    assert run_module("verify", dict(options, key="a"))["signed_by"]["key"] == OURS
    assert run_module("verify", dict(options, key="a", signed_by="alice"))["rc"] == 0
    assert run_module("verify", dict(options, key="ab"))["signed_by"] is None
    for key, signer, told in (
        ("a", "bob", "document 'a' version %s: expected a signature by bob, got one by alice with the key" % version),
        ("ab", "alice", "expected a signature by alice, got no signature"),
    ):
        result = run_module("verify", dict(options, key=key, signed_by=signer))
        assert result["rc"] == 1 and told in result["msg"]
    assert "required" in run_module("verify", dict(options, signed_by="alice"))["msg"]
    result = run_module("verify", dict(options, key="a", signed_by="alice", state="absent"))
    assert "expected no signed_by" in result["msg"]
