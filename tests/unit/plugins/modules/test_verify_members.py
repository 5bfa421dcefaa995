# SPDX-License-Identifier: MIT
"""xdp_gossip_verify: why members do not count, deletions, and members asked directly."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _direct
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

OLD, NEW = "%016x@198.18.0.11:8000" % 0, "%016x@198.18.0.11:8000" % 9
DIGEST = "sha256:" + "b" * 64
TOKEN = "T0KEN-0F-THE-TEST"


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember() as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12, 13, 14, 15)]
        yield member


def verify(member: FakeMember, **options: t.Any) -> dict[str, t.Any]:
    arguments = {"endpoints": [member.url], "timeout": 3, "retries": 0, "wait_timeout": 0, "key": "app/a"}
    return run_module("verify", dict(arguments, **options), diff=True)


def names(members: list[dict[str, t.Any]]) -> list[str]:
    return [entry["name"] for entry in members]


def test_each_laggard_is_in_one_list(member):
    held = member.put("app/a", b"text")
    member.lagging["host12"] = 9
    for name, version in (("host13", OLD), ("host14", NEW)):
        member.holdings[name] = {"app/a": {"version": version, "digest": DIGEST}}
    result = verify(member, version=held["version"])
    assert result["rc"] == 1 and not result["changed"]
    assert names(result["missing"]) == ["host12"]
    assert names(result["stale"]) == ["host13"]
    assert names(result["mismatched"]) == ["host14"]
    assert names(result["laggards"]) == ["host12", "host13", "host14"]
    assert (result["members"], result["confirmed"], result["version"]) == (5, 2, held["version"])
    enough = verify(member, version=held["version"], wait="2")
    assert enough["rc"] == 0 and names(enough["stale"]) == ["host13"]


def test_a_deletion_is_proved_and_its_opposite_too(member):
    held = member.put("app/a", b"text")
    there = verify(member, state="absent")
    assert there["rc"] == 1 and "no document 'app/a'" in there["msg"] and len(there["mismatched"]) == 5
    deleted = run_module("publish", {"endpoints": [member.url], "key": "app/a", "state": "absent"})["version"]
    assert verify(member, state="absent", version=deleted)["rc"] == 0
    member.holdings["host12"] = {"app/a": held}
    member.holdings["host13"] = {"app/a": {"version": None, "digest": None}}
    result = verify(member, state="absent", version=deleted)
    assert result["rc"] == 1
    assert (names(result["stale"]), names(result["missing"])) == (["host12"], ["host13"])
    assert result["digest"] is None
    # Who never had it is fine as long as nobody asks for the deletion itself.
    assert names(verify(member, state="absent")["laggards"]) == ["host12"]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"state": "absent", "digest": "0" * 64}, "neither digest nor a content"),
        ({"state": "absent", "content": "x"}, "neither digest nor a content"),
        ({"state": "absent", "key": None}, "key: expected the name"),
        ({"content": "x", "key": None}, "required by 'content': key"),
        ({"version": OLD, "key": None}, "required by 'version': key"),
        ({"direct": True, "direct_port": 0}, "direct_port: expected 1 to 65535"),
        ({"direct": True, "direct_port": 70000}, "direct_port: expected 1 to 65535"),
        ({"content": {"a": 1}}, "expected text, got dict"),
    ],
)
def test_wrong_options(member, options, said):
    result = verify(member, **options)
    assert result["rc"] == 1 and said in result["msg"]
    assert not member.requests


class Fleet:
    """Members at 127.0.0.1, .2, ... with one port, as a fleet has its API; the first one is asked about all."""

    def __init__(self, stack: contextlib.ExitStack, count: int) -> None:
        self.port = free_port()
        self.members: list[FakeMember] = []
        for number in range(1, count + 1):
            host = "127.0.0.%d" % number
            self.members.append(stack.enter_context(FakeMember(host=host, port=self.port, token=TOKEN)))
        self.first = self.members[0]
        self.first.nodes = [node("127.0.0.%d" % number, "m%d" % number) for number in range(1, count + 1)]

    def put(self, key: str, value: bytes) -> dict[str, t.Any]:
        for member in self.members:
            held = member.put(key, value)
        return held

    def verify(self, **options: t.Any) -> dict[str, t.Any]:
        return verify(self.first, direct=True, token=TOKEN, **options)


@pytest.fixture(name="fleet")
def fixture_fleet():
    with contextlib.ExitStack() as stack:
        yield Fleet(stack, 4)


@pytest.mark.parametrize("by", ["key", "version", "content", "state"])
def test_every_member_says_so_itself(fleet, by):
    held = fleet.put("app/a", b"text")
    options = {
        "key": {},
        "version": {"version": held["version"]},
        "content": {"content": "text"},
        "state": {"key": None},
    }[by]
    for member in fleet.members:
        member.status["digest"] = "00112233445566aa"
    result = fleet.verify(**options)
    assert (result["rc"], result["members"], result["confirmed"]) == (0, 4, 4), result["msg"]
    assert all(entry["reached"] and entry["holds"] for entry in result["holdings"])
    path = "/v1/status" if by == "state" else "/v1/documents/app/a"
    assert all(member.asked("GET", path) for member in fleet.members)


def test_what_gossip_says_of_members_does_not_count(fleet):
    """The member that is asked believes that all hold it, and three of them do not."""
    held = fleet.put("app/a", b"text")
    fleet.members[1].documents["app/a"] = dict(held, version=OLD)
    del fleet.members[2].documents["app/a"]
    fleet.members[3].put("app/a", b"other")
    result = fleet.verify(version=held["version"])
    assert result["rc"] == 1 and "1 of 4 members" in result["msg"]
    assert (names(result["stale"]), names(result["missing"])) == (["m2"], ["m3"])
    assert names(result["mismatched"]) == ["m4"] and result["unreachable_members"] == []
    assert fleet.verify(version=held["version"], wait="1")["rc"] == 0


def test_a_content_that_does_not_match_its_digest_counts_for_nothing(fleet):
    held = fleet.put("app/a", b"text")
    fleet.members[2].documents["app/a"] = dict(held, value=b"forged")
    result = fleet.verify(content="text")
    assert result["rc"] == 1 and names(result["missing"]) == ["m3"] == names(result["unreachable_members"])
    assert "does not match its digest" in result["missing"][0]["reason"]


def test_deletions_and_other_states_are_asked_directly_too(fleet):
    fleet.members[3].put("app/a", b"text")
    result = fleet.verify(state="absent")
    assert result["rc"] == 1 and names(result["laggards"]) == ["m4"]
    assert fleet.verify(state="absent", wait="3")["rc"] == 0
    for member in fleet.members:
        member.status["digest"] = "00112233445566aa"
    fleet.members[1].status["digest"] = "ffffffffffffffff"
    assert names(fleet.verify(key=None)["mismatched"]) == ["m2"]


def test_members_that_do_not_answer_are_named_within_their_time(fleet):
    fleet.put("app/a", b"text")
    fleet.members[1].misbehave = lambda handler: time.sleep(5)
    fleet.members[2].token = "another"
    fleet.first.nodes.append(node("127.0.0.9", "m9"))
    result = fleet.verify(content="text", timeout=1)
    assert result["rc"] == 1 and result["confirmed"] == 2 and result["members"] == 5
    assert names(result["unreachable_members"]) == ["m2", "m3", "m9"] == names(result["missing"])
    reasons = [entry["reason"] for entry in result["unreachable_members"]]
    assert "no complete answer within 1 s" in reasons[0]
    assert "the token was refused" in reasons[1] and "refused" in reasons[2]


def test_no_more_members_are_asked_at_once_than_is_said(monkeypatch):
    monkeypatch.setattr(_direct, "_AT_ONCE", 3)
    busy, most = [], []

    def count(handler):
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.1)
        busy.pop()
        getattr(handler, "GET_" + handler.path.split("/")[2])(handler.path[4:].split("?")[0], {})

    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack, 9)
        fleet.put("app/a", b"text")
        for member in fleet.members[1:]:
            member.misbehave = count
        assert fleet.verify(content="text")["rc"] == 0
    assert 2 <= max(most) <= 3


def test_scheme_and_port_can_be_said(fleet, tmp_path):
    fleet.put("app/a", b"text")
    with FakeMember(unix=str(tmp_path / "api.sock")) as local:
        local.nodes = fleet.first.nodes
        local.put("app/a", b"text")
        options = {"direct": True, "token": TOKEN, "content": "text"}
        found = verify(local, direct_port=fleet.port, **options)
        assert found["rc"] == 0 and found["confirmed"] == 4
        # Without, it is port 8001 and http.
        reasons = [entry["reason"] for entry in verify(local, **options)["unreachable_members"]]
        assert len(reasons) == 4 and "http://127.0.0.1:8001" in reasons[0]
        secure = verify(local, direct_scheme="https", direct_port=fleet.port, **options)
        assert "TLS" in secure["unreachable_members"][0]["reason"]


@pytest.mark.parametrize("address", ["host.example", "127.0.0.1:80/", None, "127.0.0.1%lo"])
def test_an_address_that_is_none_is_not_used(fleet, address):
    fleet.put("app/a", b"text")
    fleet.first.nodes[1]["addr"] = address
    result = fleet.verify(content="text")
    assert names(result["unreachable_members"]) == ["m2"]
    assert "expected an IP address" in result["holdings"][1]["reason"]
