# SPDX-License-Identifier: MIT
"""Asking one member, or most of them."""

from __future__ import annotations

import threading
import time

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import BadAnswer
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError, ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Source, majority_of
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port, node


@pytest.fixture(name="members")
def fixture_members():
    with FakeMember() as first, FakeMember() as second, FakeMember() as third:
        for member in (first, second, third):
            member.nodes = [node("198.18.0.11", "one"), node("198.18.0.12", "two", state="dead")]
        yield first, second, third


def source(*urls, warn=lambda text: None, **options):
    options = dict({"timeout": 2, "retries": 0}, endpoints=list(urls), **options)
    return Source(options, ["alive"], lambda text: None, warn)


def dead():
    return "http://127.0.0.1:%d" % free_port()


@pytest.mark.parametrize("endpoints, needed", [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_is_more_than_half(endpoints, needed):
    assert majority_of(endpoints) == needed


def test_one_takes_the_first_that_answers(members):
    (answer,) = source(dead(), members[1].url, members[2].url).one({})
    assert answer.endpoint == members[1].url and [each["name"] for each in answer.nodes] == ["one"]
    assert answer.etag.startswith('W/"') and not members[2].requests


@pytest.mark.parametrize("ask", ["one", "majority"])
def test_who_has_answered_before_may_say_that_nothing_has_changed(members, ask):
    asked = source(*[member.url for member in members])
    before = {answer.endpoint: answer for answer in getattr(asked, ask)({})}
    again = getattr(asked, ask)(before)
    assert all(before[answer.endpoint] is answer for answer in again)
    for member in members:
        member.nodes[0]["name"] = "new"
    changed = getattr(asked, ask)(before)
    assert not any(before[answer.endpoint] is answer for answer in changed)
    assert all(answer.nodes[0]["name"] == "new" for answer in changed)


def test_a_majority_is_asked_for_every_state(members):
    answers = source(*[member.url for member in members]).majority({})
    assert [answer.endpoint for answer in answers] == [member.url for member in members]
    assert all([each["state"] for each in answer.nodes] == ["alive", "dead"] for answer in answers)


def test_most_are_enough(members):
    answers = source(members[0].url, dead(), members[2].url).majority({})
    assert [answer.endpoint for answer in answers] == [members[0].url, members[2].url]


def test_too_few_are_an_error_that_names_each_and_why(members):
    members[1].misbehave = lambda handler: handler.error(503, "starting")
    members[2].misbehave = lambda handler: handler.reply(200, b"{}")
    gone = dead()
    with pytest.raises(ClientError) as caught:
        source(members[0].url, members[1].url, members[2].url, gone).majority({})
    text = str(caught.value)
    assert "1 of 4 endpoints answered, expected at least 3" in text
    assert members[1].url + ": answered 503 starting" in text and gone + ": Connection refused" in text
    assert members[2].url + ": expected a NodeList" in text


def test_half_is_no_majority(members):
    with pytest.raises(ClientError, match="2 of 4 endpoints answered, expected at least 3"):
        source(members[0].url, members[1].url, dead(), dead()).majority({})


def test_an_endpoint_named_twice_has_one_voice(members):
    """However it is spelt."""
    with pytest.raises(ClientError, match="1 of 3 endpoints answered, expected at least 2"):
        source(members[0].url, members[0].url + "/", dead(), dead()).majority({})


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _each in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def test_slow_members_are_named(members):
    members[0].misbehave = members[1].misbehave = drip
    with pytest.raises(ClientError, match=r"no complete answer within 1 s.*no complete answer within 1 s"):
        source(*[member.url for member in members], timeout=1).majority({})


def test_members_are_asked_at_the_same_time(members):
    """Two that answer only once both were asked: who asks one after the other never hears the first."""
    both = threading.Barrier(2)

    def together(handler):
        both.wait(30)
        handler.reply(200, {"nodes": members[2].nodes, "revision": 1, "digest": "0" * 16})

    members[0].misbehave = members[1].misbehave = together
    answers = source(*[member.url for member in members], timeout=20).majority({})
    assert {answer.endpoint for answer in answers} >= {members[0].url, members[1].url}


def test_a_bad_option_is_told_as_such(members):
    for ask in ("one", "majority"):
        with pytest.raises(ConfigError, match="timeout"):
            getattr(source(members[0].url, timeout=-1), ask)({})


def test_an_answer_that_is_no_node_list(members):
    members[0].misbehave = lambda handler: handler.reply(200, {"nodes": 7})
    with pytest.raises(BadAnswer, match="expected a NodeList: nodes: expected a list, got int"):
        source(members[0].url).one({})


def test_an_isolated_member_is_passed_over_with_a_warning(members):
    members[0].isolated = True
    warnings: list[str] = []
    (answer,) = source(members[0].url, dead(), members[2].url, warn=warnings.append).one({})
    assert answer.endpoint == members[2].url and not answer.isolated
    assert len(warnings) == 1 and members[0].url + " is isolated" in warnings[0] and "next endpoint" in warnings[0]


@pytest.mark.parametrize("behind", [0, 1])
def test_the_last_isolated_member_is_used_with_a_warning(members, behind):
    members[0].isolated = members[1].isolated = True
    warnings: list[str] = []
    urls = [members[0].url, members[1].url, *[dead()] * behind]
    (answer,) = source(*urls, warn=warnings.append).one({})
    assert answer.endpoint == members[1].url and answer.isolated
    assert "there is no better answer" in warnings[-1] and members[1].url in warnings[-1]


def test_an_isolated_member_has_no_say_in_a_majority(members):
    members[0].isolated = True
    warnings: list[str] = []
    asked = source(*[member.url for member in members], warn=warnings.append)
    assert [answer.endpoint for answer in asked.majority({})] == [members[1].url, members[2].url]
    assert len(warnings) == 1 and members[0].url + " is isolated" in warnings[0]
    members[1].isolated = True
    with pytest.raises(ClientError, match=r"1 of 3 endpoints answered, expected at least 2.*isolated"):
        asked.majority({})


def test_a_state_that_older_agents_do_not_know_is_not_named_to_them(members):
    options = {"timeout": 2, "retries": 0, "endpoints": [members[0].url]}
    for states, said in ((["alive", "agent_down"], "all"), (["alive", "dead"], "alive,dead")):
        Source(options, states, lambda text: None, lambda text: None).one({})
        assert members[0].requests[-1][2] == {"state": said}
