# SPDX-License-Identifier: MIT
"""xdp_gossip_verify, xdp_gossip_info and xdp_gossip_node."""

from __future__ import annotations

import hashlib
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, node
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module


@pytest.fixture(name="member")
def fixture_member(tmp_path):
    with FakeMember(unix=str(tmp_path / "api.sock")) as member:
        member.nodes = [node("198.18.0.%d" % last, "host%d" % last) for last in (11, 12, 13)]
        member.nodes[0]["local"] = True
        yield member


def run(module: str, member: FakeMember, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    return run_module(module, dict({"endpoints": [member.url], "timeout": 5}, **options), check=check, diff=True)


# verify


@pytest.mark.parametrize("by", ["version", "digest", "bare digest", "content", "value", "src", "key"])
def test_verify_holds(member, by, tmp_path):
    held = member.put("app/a", b"text")
    (tmp_path / "f").write_bytes(b"text")
    options = {
        "version": {"version": held["version"]},
        "digest": {"digest": held["digest"]},
        "bare digest": {"digest": hashlib.sha256(b"text").hexdigest().upper()},
        "content": {"content": "text"},
        "value": {"value": "text"},
        "src": {"src": str(tmp_path / "f")},
        "key": {},
    }[by]
    result = run("verify", member, key="app/a", **options)
    assert (result["rc"], result["changed"], result["converged"]) == (0, False, True)
    assert (result["members"], result["confirmed"], len(result["holdings"])) == (3, 3, 3)
    assert result["digest"] == held["digest"]
    question = member.asked("GET", "/v1/convergence")[0][2]
    if by not in ("version", "key"):
        assert question["digest"] == held["digest"]


@pytest.mark.parametrize(
    "options", [{"content": "other"}, {"version": "%016x@198.18.0.9:8000" % 5}, {"digest": "0" * 64}]
)
def test_verify_fails_when_something_else_is_held(member, options):
    member.put("app/a", b"text")
    result = run("verify", member, key="app/a", wait_timeout=0, **options)
    assert result["rc"] == 1 and not result["converged"] and result["confirmed"] == 0
    assert len(result["laggards"]) == 3 and "host11" in result["msg"]


def test_verify_names_each_laggard_and_waits_for_them(member):
    member.put("app/a", b"text")
    member.lagging["host12"] = 2
    assert run("verify", member, key="app/a", wait_timeout=10)["rc"] == 0
    member.lagging["host12"] = 999
    result = run("verify", member, key="app/a", wait_timeout=1)
    assert result["rc"] == 1 and "2 of 3" in result["msg"]
    assert [laggard["name"] for laggard in result["laggards"]] == ["host12"]
    assert run("verify", member, key="app/a", wait="majority")["rc"] == 0
    assert run("verify", member, key="app/a", wait="2")["rc"] == 0


def test_verify_the_whole_state(member):
    assert run("verify", member)["rc"] == 0
    assert "key" not in member.asked("GET", "/v1/convergence")[0][2]
    member.lagging["host11"] = 999
    assert "the same state" in run("verify", member, wait_timeout=0)["msg"]


def test_verify_does_not_believe_an_answer_that_makes_no_sense(member):
    member.misbehave = lambda handler: handler.reply(200, {"converged": True})
    assert run("verify", member)["rc"] == 1
    answer = {"converged": "yes", "members": 1, "confirmed": 1, "digest": "", "results": []}
    member.misbehave = lambda handler: handler.reply(200, answer)
    assert run("verify", member, wait_timeout=0)["rc"] == 1


@pytest.mark.parametrize(
    "options, said",
    [
        ({"content": "x"}, "required by 'content'"),
        ({"key": "a", "digest": "xyz"}, "64 hexadecimal digits"),
        ({"key": "a", "digest": "0" * 64, "content": "x"}, "mutually exclusive"),
        ({"key": "a/"}, "key: expected"),
        ({"wait": "none"}, "wait: expected"),
    ],
)
def test_verify_bad_options(member, options, said):
    result = run("verify", member, **options)
    assert result["rc"] == 1 and said in result["msg"].replace('"', "'")


def test_laggards_texts_are_bounded_and_printable(member):
    member.nodes = [node("198.18.0.%d" % last, "\x1b[2Jevil" * 50) for last in range(1, 200)]
    member.lagging = {"\x1b[2Jevil" * 50: 9999}
    result = run("verify", member, wait_timeout=0)
    assert len(result["msg"]) < 4000 and "\x1b" not in result["msg"] and "and 189 more" in result["msg"]


# info


def test_info_reads_everything_by_default(member):
    member.put("app/a", b"text")
    result = run("info", member)
    assert (result["rc"], result["changed"]) == (0, False)
    assert result["status"]["state"] == "running"
    assert [entry["name"] for entry in result["nodes"]] == ["host11", "host12", "host13"]
    assert [entry["key"] for entry in result["documents"]] == ["app/a"]
    assert result["documents"][0]["digest"] == "sha256:" + hashlib.sha256(b"text").hexdigest()
    assert result["endpoint"] == member.url


def test_info_reads_only_what_is_asked(member):
    member.put("app/a", b"")
    member.put("b", b"")
    result = run("info", member, gather=["documents"], prefix="app/")
    assert [entry["key"] for entry in result["documents"]] == ["app/a"]
    assert "nodes" not in result and "status" not in result
    assert {request[1] for request in member.requests} == {"/v1/documents"}


def test_info_states(member):
    member.nodes[1]["state"] = "dead"
    assert len(run("info", member, gather=["nodes"])["nodes"]) == 2
    dead = run("info", member, gather=["nodes"], states=["dead"])["nodes"]
    assert [entry["name"] for entry in dead] == ["host12"]


def test_info_leaves_malformed_nodes_out_and_says_so(member):
    member.nodes.append(node("not an address"))
    result = run("info", member, gather=["nodes"])
    assert len(result["nodes"]) == 3
    assert "expected an IP address" in result["output"]


def test_info_returns_the_zone_of_each_node(member):
    member.nodes[0]["zone"] = "a"
    assert [entry["zone"] for entry in run("info", member, gather=["nodes"])["nodes"]] == ["a", "", ""]


def test_info_leaves_a_node_out_whose_zone_is_no_text(member):
    member.nodes[0]["zone"], member.nodes[1]["zone"] = ["a"], "z" * 256
    result = run("info", member, gather=["nodes"])
    assert [entry["name"] for entry in result["nodes"]] == ["host13"]
    assert "zone: expected text, got list" in result["output"]
    assert "zone: expected at most 255 bytes, got 256" in result["output"]


def test_info_returns_no_zone_that_an_older_agent_does_not_know(member):
    for entry in member.nodes:
        del entry["zone"]
    result = run("info", member, gather=["nodes"])
    assert [entry["zone"] for entry in result["nodes"]] == ["", "", ""] and "malformed" not in result["output"]


# node


@pytest.mark.parametrize("zone", ["a", None])
def test_node_returns_the_zone_and_an_older_agent_has_none(member, zone):
    member.nodes[0].pop("zone")
    if zone:
        member.nodes[0]["zone"] = zone
    for options in ({"state": "started"}, {"private_data": "new", "check": True}, {"private_data": "new"}):
        assert run("node", member, **options)["node"]["zone"] == (zone or "")


def test_private_data_changes_once(member):
    predicted = run("node", member, check=True, private_data="new", name="host11")
    assert predicted["changed"] and predicted["node"]["private_data"] == "new" and member.nodes[0]["private_data"] == ""
    result = run("node", member, private_data="new", name="host11")
    assert result["changed"] and member.nodes[0]["private_data"] == "new"
    assert result["diff"] == predicted["diff"]
    assert (result["diff"]["before"]["private_data"], result["diff"]["after"]["private_data"]) == ("", "new")
    assert not run("node", member, private_data="new", name="host11")["changed"]


def test_join_counts_only_new_addresses(member):
    seeds = ["198.18.0.12:8000", "198.18.0.99:8000", "[fd00::9]:8000"]
    predicted = run("node", member, check=True, join=seeds)
    assert (predicted["changed"], predicted["joined"]) == (True, 2) and len(member.nodes) == 3
    result = run("node", member, join=seeds)
    assert (result["changed"], result["joined"]) == (True, 2) and len(member.nodes) == 5
    again = run("node", member, join=seeds)
    assert (again["changed"], again["joined"]) == (False, 0)


@pytest.mark.parametrize(
    "seed", ["198.18.0.1", "fd00::1:8000", "[fe80::1%lo]:8000", "host:8000", "198.18.0.1:0", "198.18.0.1:99999"]
)
def test_join_refuses_what_is_no_address(member, seed):
    result = run("node", member, join=[seed])
    assert result["rc"] == 1 and "ADDRESS:PORT" in result["msg"]


@pytest.mark.parametrize("state, word", [("stopped", "paused"), ("left", "left")])
def test_state_there_and_back(member, state, word):
    assert not run("node", member, state="started")["changed"]
    predicted = run("node", member, state=state, check=True)
    assert (predicted["changed"], predicted["state"], member.status["state"]) == (True, word, "running")
    result = run("node", member, state=state)
    assert (result["changed"], result["state"], member.status["state"]) == (True, word, word)
    assert not run("node", member, state=state)["changed"]
    assert run("node", member, state="started")["changed"]
    assert member.status["state"] == "running"


def test_node_acts_on_the_first_endpoint_only(member):
    result = run_module("node", {"endpoints": ["unix:///does/not/exist", member.url], "retries": 0, "state": "left"})
    assert result["rc"] == 1
    assert not member.requests


def test_private_data_is_text(member):
    assert run("node", member, private_data=7)["node"]["private_data"] == "7"
    result = run("node", member, name=["a"])
    assert result["rc"] == 1 and "name: expected text" in result["msg"]


def test_private_data_that_is_data_becomes_json_as_the_role_writes_it(member):
    data = {"zone": "ä", "role": "db", "racks": [1, None]}
    # What to_json(sort_keys=true) makes of it.
    written = '{"racks": [1, null], "role": "db", "zone": "\\u00e4"}'
    result = run("node", member, private_data=data)
    assert result["changed"] and result["node"]["private_data"] == written
    assert not run("node", member, private_data=data)["changed"]
    assert not run("node", member, private_data=written)["changed"]


def test_node_needs_something_to_do(member):
    assert run("node", member)["rc"] == 1


# Members that are cut off, and nodes that are gone


def test_verify_on_an_isolated_member_fails_at_once(member):
    member.put("app/a", b"text")
    member.isolated = True
    result = run("verify", member, key="app/a", wait="all", wait_timeout=60)
    assert (result["rc"], result["error"]["code"]) == (1, "isolated")
    assert len(member.asked("GET", "/v1/convergence")) == 1


def test_verify_tells_how_many_known_members_are_gone(member):
    member.put("app/a", b"text")
    member.absent = {"dead": 1, "agent_down": 2}
    result = run("verify", member, key="app/a")
    assert (result["rc"], result["known"], result["dead"], result["agent_down"]) == (0, 6, 1, 2)
    few = run("verify", member, key="app/a", wait="majority", wait_timeout=0)
    assert few["rc"] == 1 and "Of 6 known members, 1 dead and 2 agent_down." in few["msg"]


def test_info_tells_whether_the_member_is_isolated_and_lists_every_state(member):
    states = ["alive", "suspect", "agent_down", "dead", "left"]
    member.nodes = [node("198.18.0.%d" % last, state=state) for last, state in enumerate(states, 11)]
    member.isolated = True
    found = run("info", member, gather=["nodes"], states=states)
    assert [entry["state"] for entry in found["nodes"]] == states and found["isolated"] is True
    assert [entry["state"] for entry in run("info", member, states=["agent_down"])["nodes"]] == ["agent_down"]


def test_forget_changes_once_and_only_what_is_dead(member):
    member.nodes[2]["state"] = "dead"
    predicted = run("node", member, check=True, forget=["198.18.0.13:8000"])
    assert (predicted["changed"], predicted["forgotten"], len(member.nodes)) == (True, 1, 3)
    first = run("node", member, forget=["198.18.0.13:8000"])
    assert (first["rc"], first["changed"], first["forgotten"], len(member.nodes)) == (0, True, 1, 2)
    second = run("node", member, forget=["198.18.0.13:8000"])
    assert (second["rc"], second["changed"], second["forgotten"]) == (0, False, 0)
    refused = run("node", member, forget=["198.18.0.12:8000"])
    assert refused["rc"] == 1 and "expected dead nodes, 198.18.0.12:8000 is alive" in refused["msg"]
    assert "forget: expected ADDRESS:PORT" in run("node", member, forget=["host2"])["msg"]
