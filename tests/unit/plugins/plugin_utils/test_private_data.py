# SPDX-License-Identifier: MIT
"""Private data as JSON and YAML: what comes out, and what is refused because of what it would do."""

from __future__ import annotations

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._private_data import MAX_DEPTH, parse_private_data

BOTH = ["json", "yaml"]


@pytest.mark.parametrize("form", BOTH)
@pytest.mark.parametrize(
    "text, data",
    [
        ('{"zone": "a", "racks": [1, 2.5, true, null]}', {"zone": "a", "racks": [1, 2.5, True, None]}),
        ('"text"', "text"),
        ("7", 7),
        ("", None),
        (" \n", None),
        ("null", None),
        ('{"a": "\\u00e9"}', {"a": "é"}),
        ("{}", {}),
        ('{"": ""}', {"": ""}),
    ],
)
def test_data(form, text, data):
    assert parse_private_data(text, form) == data


@pytest.mark.parametrize(
    "text, data",
    [
        ("zone: a\nracks:\n  - 1\n  - x", {"zone": "a", "racks": [1, "x"]}),
        ("just text", "just text"),
        ("since: 2026-01-01", {"since": "2026-01-01"}),
        ("since: 2026-01-01T00:00:00Z", {"since": "2026-01-01T00:00:00Z"}),
        ("on: yes", None),  # YAML 1.1: the key is a boolean
        ("---\nzone: a\n", {"zone": "a"}),
        ("base: 0x10", {"base": 16}),
    ],
)
def test_yaml(text, data):
    if data is None:
        with pytest.raises(ValueError, match="expected text as keys, got bool"):
            parse_private_data(text, "yaml")
    else:
        assert parse_private_data(text, "yaml") == data


def test_yaml_reads_what_looks_like_a_template_as_text():
    assert parse_private_data("a: '{{ 1 }}'", "yaml") == {"a": "{{ 1 }}"}


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    "text, said",
    [
        (BOMB, "aliases"),
        ("a: &a 1\nb: *a", "aliases"),
        ("a: &a {x: 1}\nb: {<<: *a}", "aliases"),
        ("&a [*a]", "aliases"),
        ("!!python/object/apply:os.system [id]", "tags"),
        ("!!python/name:os.system x", "tags"),
        ("a: !vault x", "tags"),
        ("a: !unsafe x", "tags"),
        ("!!binary aGk=", "tags"),
        ("!!set {a}", "tags"),
        ("!!str 1", "tags"),
        ("!!map {a: 1}", "tags"),
        ("!!seq [1]", "tags"),
        ("a: 1\n---\nb: 2", "one document"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ("[" * 2000, "nested deeper|nesting depth"),
        ("{a: " * 1000, "nested deeper"),
        ("- " * 2000, "nested deeper"),
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("\ta: 1", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: .inf", "numbers that JSON has"),
        ("a: .nan", "numbers that JSON has"),
        ("a: " + "9" * 4000, "digits"),
        ("a: -" + "9" * 41, "digits"),
        ("a: 0x" + "f" * 4000, "digits"),
        ("1: a", "expected text as keys, got int"),
        ("null: a", "as keys"),
        ("1.5: a", "as keys"),
        ("[a]: b", "unhashable"),
        ("{a: b}: c", "unhashable"),
        ("__class__: a", "two underscores"),
        ("a: {__ansible_unsafe: b}", "two underscores"),
        ("a: [{__ansible_vault: b}]", "two underscores"),
    ],
)
def test_yaml_that_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parse_private_data(text, "yaml")


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "line 1"),
        ("zone: a", "line 1"),
        ("{'a': 1}", "line 1"),
        ("[1,]", "line 1"),
        ("{} {}", "Extra data"),
        ("NaN", "NaN"),
        ("[Infinity]", "Infinity"),
        ("1e999", "range"),
        ("9" * 4000, "digits"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ("[" * 4000, "line 1|nested deeper"),
        ('{"__class__": 1}', "two underscores"),
        ('{"a": [{"__ansible_type": "x"}]}', "two underscores"),
        ('"\\ud800"', "valid Unicode"),
        ('{"\\udfff": 1}', "valid Unicode"),
        ('{"a": ["\\ud800x"]}', "valid Unicode"),
    ],
)
def test_json_that_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parse_private_data(text, "json")


@pytest.mark.parametrize("form", BOTH)
def test_the_deepest_that_is_allowed(form):
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert str(parse_private_data(text, form)) == text


def test_messages_are_fit_for_a_terminal():
    for text in ("a: [\x1b[2J" + "x" * 3000, "!<\x1b[2J> a", "__" + "x" * 3000 + ": 1"):
        with pytest.raises(ValueError) as caught:
            parse_private_data(text, "yaml")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 400
