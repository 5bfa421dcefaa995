# SPDX-License-Identifier: MIT
"""What is kept of the NodeList: for how long it counts, and what a forged entry is taken for."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._cache import Entry, decode
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Answer
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import node

URL = "http://198.18.0.11:8001"
ASKED = {"states": ["alive"], "endpoints": [URL, "http://198.18.0.12:8001"], "consistency": "one"}


def entry(**changes):
    body = json.dumps({"nodes": [node("198.18.0.11", "one")]})
    return dict(Entry(ASKED, 1000.0, [Answer(URL, 'W/"a"', body)]).encode(), **changes)


def one(**changes):
    return dict(entry()["answers"][0], **changes)


def test_it_survives_json():
    kept = decode(json.loads(json.dumps(entry())), ASKED, 1, 1)
    assert kept.stored_at == 1000.0 and kept.answers[0].etag == 'W/"a"' and kept.answers[0].endpoint == URL
    assert [each["name"] for each in kept.answers[0].nodes] == ["one"]


@pytest.mark.parametrize(
    "timeout, age, counts",
    [(60, 0, True), (60, 59.9, True), (60, 60, False), (60, -0.1, False), (0, 10**9, True), (0, -1, False)],
)
def test_how_long_it_counts(timeout, age, counts):
    assert Entry(ASKED, 1000.0, []).counts(timeout, 1000.0 + age) is counts


@pytest.mark.parametrize(
    "held",
    [
        None,
        [],
        "x",
        {},
        entry(format=1),
        entry(format=None),
        entry(asked=dict(ASKED, states=["dead"])),
        entry(asked=dict(ASKED, consistency="majority")),
        entry(asked=dict(ASKED, endpoints=[URL])),
        entry(asked=None),
    ],
)
def test_an_entry_that_answers_another_question_is_none(held):
    assert decode(held, ASKED, 1, 1) is None


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"stored_at": "now"}, "stored_at"),
        ({"stored_at": True}, "stored_at"),
        ({"stored_at": None}, "stored_at"),
        ({"stored_at": float("nan")}, "stored_at"),
        ({"stored_at": float("inf")}, "stored_at"),
        ({"answers": None}, "answers: expected a list of 1 to 1"),
        ({"answers": []}, "answers"),
        ({"answers": [one(), one()]}, "answers"),
        ({"answers": ["x"]}, "expected text"),
        ({"answers": [one(body=None)]}, "expected text"),
        ({"answers": [one(etag=7)]}, "expected text"),
        ({"answers": [one(endpoint="http://198.18.0.99:8001")]}, "that was asked"),
        ({"answers": [one(body="[")]}, "line 1"),
        ({"answers": [one(body="[]")]}, "JSON object"),
        ({"answers": [one(body="{}")]}, "nodes"),
        ({"answers": [one(body='{"nodes": ' + "[" * 900 + "]" * 900 + "}")]}, "nested"),
        ({"answers": [one(body="\ud800")]}, "UTF-8"),
    ],
)
def test_an_entry_that_is_broken_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        decode(entry(**changes), ASKED, 1, 1)


def test_one_endpoint_cannot_answer_twice():
    asked = dict(ASKED, consistency="majority")
    held = Entry(asked, time.time(), [Answer(**one()), Answer(**one())]).encode()
    with pytest.raises(ValueError, match="one of each endpoint"):
        decode(held, asked, 2, 2)


@pytest.mark.parametrize("tag", ['"a"\r\nAuthorization: x', "W/a", '"a', '"a b"', '"' + "a" * 201 + '"', "", '"é"'])
def test_an_entity_tag_that_is_none_is_not_sent(tag):
    assert decode(entry(answers=[one(etag=tag)]), ASKED, 1, 1).answers[0].etag == ""
