# SPDX-License-Identifier: MIT
"""One NodeList out of several: which view of a node counts."""

from __future__ import annotations

import itertools
import json

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._merge import merge
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Answer
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import node


def answer(number, *nodes, cluster="default"):
    return Answer("http://m%d:8001" % number, "", json.dumps({"nodes": nodes, "cluster": cluster}))


def seen_as(*states, **fields):
    """The state that a node gets when members see it like that: a state, or a state and an incarnation."""
    views = [view if isinstance(view, tuple) else (view, 1) for view in states]
    found = set()
    for order in itertools.permutations(views):
        answers = [
            answer(number, node("198.18.0.11", state=state, incarnation=incarnation, **fields))
            for number, (state, incarnation) in enumerate(order)
        ]
        (merged,) = merge(answers)
        found.add((merged["state"], merged["incarnation"]))
    assert len(found) == 1, "the order of the answers must not matter: %s" % found
    return found.pop()


@pytest.mark.parametrize(
    "views, state",
    [
        (["alive"], "alive"),
        (["alive", "alive", "dead"], "alive"),  # one member is cut off, and holds the others for dead
        (["dead", "dead", "alive"], "dead"),  # one member lags behind
        (["alive", "suspect"], "suspect"),
        (["alive", "dead"], "dead"),
        (["suspect", "dead"], "dead"),
        (["left", "dead"], "left"),
        (["left", "alive"], "left"),
        (["alive", "suspect", "dead"], "dead"),
        (["alive", "alive", "suspect", "suspect"], "suspect"),
        (["left", "alive", "alive"], "alive"),
    ],
)
def test_of_one_incarnation_most_members_decide_and_then_caution(views, state):
    assert seen_as(*views) == (state, 1)


@pytest.mark.parametrize(
    "views, expected",
    [
        ([("dead", 1), ("dead", 1), ("alive", 2)], ("alive", 2)),  # it has contradicted, two do not know yet
        ([("alive", 1), ("alive", 1), ("left", 2)], ("left", 2)),
        ([("alive", 3), ("dead", 2), ("dead", 2), ("dead", 2)], ("alive", 3)),
        ([("alive", 4), ("dead", 2**32 - 5), ("dead", 2**32 - 5)], ("alive", 4)),  # after the last comes the first
        ([("alive", 1795000000), ("dead", 2**32 - 1)], ("alive", 1795000000)),  # its clock said 2107 once
        ([("dead", 0), ("dead", 0), ("alive", 9)], ("alive", 9)),  # no run of it is known there
    ],
)
def test_a_later_incarnation_counts_more_than_any_number_of_members(views, expected):
    assert seen_as(*views) == expected


def test_sequence_numbers_do_not_count():
    """Those of an answer that a member has only confirmed are as old as that answer."""
    old = [answer(number, node("198.18.0.11", sequence=5)) for number in (1, 2)]
    late = answer(3, node("198.18.0.11", state="dead", sequence=90))
    assert merge([*old, late])[0]["state"] == "alive"


def test_a_node_that_only_some_list_is_there():
    merged = merge([answer(1, node("198.18.0.11")), answer(2, node("198.18.0.12"), node("198.18.0.11"))])
    assert sorted(entry["addr"] for entry in merged) == ["198.18.0.11", "198.18.0.12"]


def test_the_rest_comes_from_a_view_that_has_the_record_and_best_from_the_node_itself():
    unknown = node("198.18.0.11", "", record_known=False, sequence=99)
    known = node("198.18.0.11", "eleven", sequence=5, private_data="a")
    own = node("198.18.0.11", "eleven", sequence=4, private_data="b", local=True)
    assert merge([answer(1, unknown), answer(2, known)])[0]["name"] == "eleven"
    assert merge([answer(1, known), answer(2, own)])[0]["private_data"] == "b"
    assert merge([answer(1, known), answer(2, dict(known, sequence=6))])[0]["sequence"] == 6


def test_members_of_different_clusters_are_not_mixed():
    with pytest.raises(ValueError, match="one cluster, got http://m1:8001: blue, http://m2:8001: green"):
        merge([answer(1, node("198.18.0.11"), cluster="blue"), answer(2, node("198.18.0.11"), cluster="green")])
