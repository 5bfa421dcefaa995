# SPDX-License-Identifier: MIT
"""How members that do not hold what was asked for are told apart."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import KINDS, Convergence, Question, enough
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import BadAnswer

OLD, MIDDLE, NEW = ("%016x@198.18.0.11:8000" % clock for clock in (1, 2, 3))
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def member(name: str, version: str | None, digest: str | None, holds: bool = False) -> dict[str, t.Any]:
    return {"name": name, "version": version, "digest": digest, "holds": holds}


def kinds(question: Question, *results: dict[str, t.Any]) -> dict[str, list[str]]:
    answer = {"members": len(results), "confirmed": 0, "digest": "", "results": list(results)}
    found = Convergence(answer).kinds(question)
    assert sorted(found) == sorted(KINDS)
    assert sum(len(names) for names in found.values()) == sum(not result["holds"] for result in results)
    return {kind: [result["name"] for result in found[kind]] for kind in found}


def test_by_version():
    found = kinds(
        Question("k", MIDDLE),
        member("holds", MIDDLE, A, True),
        member("none", None, None),
        member("old", OLD, B),
        member("deleted before", OLD, None),
        member("new", NEW, B),
        member("deleted since", NEW, None),
        member("odd", "nonsense", A),
    )
    assert found == {
        "missing": ["none"],
        "stale": ["old", "deleted before"],
        "mismatched": ["new", "deleted since", "odd"],
    }


def test_by_content_the_newest_version_with_it_is_the_measure():
    others = [member("old", OLD, B), member("new", NEW, B), member("none", None, None)]
    holders = [member("h1", OLD, A, True), member("h2", MIDDLE, A, True)]
    assert kinds(Question("k", None, A), *(others + holders)) == {
        "missing": ["none"],
        "stale": ["old"],
        "mismatched": ["new"],
    }
    # Nobody has it: nothing is known to be older than it.
    assert kinds(Question("k", None, A), *others) == {"missing": ["none"], "stale": [], "mismatched": ["old", "new"]}


def test_of_a_deletion():
    found = kinds(
        Question("k", MIDDLE, absent=True),
        member("gone", MIDDLE, None, True),
        member("never heard", None, None),
        member("deleted before", OLD, None),
        member("still there", OLD, A),
        member("published again", NEW, A),
    )
    assert found == {
        "missing": ["never heard"],
        "stale": ["deleted before", "still there"],
        "mismatched": ["published again"],
    }


def test_of_the_whole_state_nothing_is_older():
    found = kinds(Question(), member("same", None, "00", True), member("other", None, "11"), member("mute", None, None))
    assert found == {"missing": ["mute"], "stale": [], "mismatched": ["other"]}


@pytest.mark.parametrize(
    "wait, confirmed, members, holds",
    [
        ("all", 3, 3, True),
        ("all", 2, 3, False),
        ("all", 0, 0, True),
        ("majority", 2, 3, True),
        ("majority", 2, 4, False),
        ("majority", 0, 0, False),
        ("2", 2, 9, True),
        ("2", 1, 9, False),
    ],
)
def test_enough(wait, confirmed, members, holds):
    assert enough(wait, confirmed, members, members) is holds
    if wait == "majority":  # those who are gone count
        assert not enough(wait, confirmed, members, 2 * confirmed)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"members": True, "confirmed": 1, "digest": "", "results": []},
        {"members": 1, "confirmed": "1", "digest": "", "results": []},
        {"members": 1, "confirmed": 1, "digest": None, "results": []},
        {"members": 1, "confirmed": 1, "digest": "", "results": {}},
        {"members": 1, "confirmed": 1, "digest": "", "results": ["all is well"]},
    ],
)
def test_an_answer_that_makes_no_sense(answer):
    with pytest.raises(BadAnswer):
        Convergence(answer)
