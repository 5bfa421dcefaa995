# SPDX-License-Identifier: MIT
"""Ordered include and exclude rules: what is accepted, which one decides, and what a failing one does."""

from __future__ import annotations

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._filters import chosen, parse_filters


def decide(rules, true_ones):
    return chosen(parse_filters(rules), lambda condition: condition in true_ones)


@pytest.mark.parametrize(
    "rules, true_ones, taken",
    [
        ([], "", True),
        (None, "", True),
        ([{"include": "a"}], "a", True),
        ([{"include": "a"}], "", True),  # no rule holds: taken
        ([{"exclude": "a"}], "a", False),
        ([{"exclude": "a"}], "", True),
        ([{"include": "a"}, {"exclude": "b"}], "ab", True),  # the first that holds decides
        ([{"exclude": "b"}, {"include": "a"}], "ab", False),
        ([{"include": "a"}, {"exclude": "b"}], "b", False),
        ([{"include": "a"}, {"exclude": True}], [True], False),
    ],
)
def test_the_first_rule_that_holds_decides(rules, true_ones, taken):
    assert decide(rules, true_ones) is taken


def test_later_rules_are_not_asked():
    asked = []
    chosen(parse_filters([{"include": "a"}, {"exclude": "b"}]), lambda condition: asked.append(condition) or True)
    assert asked == ["a"]


def test_a_condition_that_fails_is_no_answer():
    def holds(condition):
        raise KeyError(condition)

    with pytest.raises(ValueError, match=r"filters, entry 1, exclude: secret_zone: .*secret_zone"):
        chosen(parse_filters([{"exclude": "secret_zone"}, {"include": "a"}]), holds)


@pytest.mark.parametrize(
    "rules, said",
    [
        ("a", "filters: expected a list, got str"),
        ({"include": "a"}, "filters: expected a list, got dict"),
        (["a"], "entry 1: expected a dictionary with one key, include or exclude, got str"),
        ([{"include": "a"}, {}], "entry 2: expected a dictionary with one key, include or exclude, got none"),
        ([{"include": "a", "exclude": "b"}], "got include, exclude"),
        ([{"includes": "a"}], "got includes"),
        ([{1: "a"}], "got 1"),
        ([{"include": ""}], "include: expected a Jinja condition, got ''"),
        ([{"include": " "}], "include: expected a Jinja condition"),
        ([{"exclude": None}], "exclude: expected a Jinja condition, got None"),
        ([{"exclude": ["a"]}], "exclude: expected a Jinja condition"),
        ([{"exclude": 1}], "exclude: expected a Jinja condition"),
        ([{"exclude": "{{ a }}"}], "without braces"),
        ([{"exclude": "{% if a %}"}], "without braces"),
    ],
)
def test_malformed_rules_are_named(rules, said):
    with pytest.raises(ValueError, match="filters") as caught:
        parse_filters(rules)
    assert said in str(caught.value)
