# SPDX-License-Identifier: MIT
"""When convergence is told to be reached or lost."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._agreement import (
    MAX_LAGGARDS,
    Agreement,
    Finding,
)

SETTLE = 5.0


def finding(converged: bool, digest: str = "aa") -> Finding:
    """An answer of three members, one of which differs unless ``converged``."""
    results = [
        {"addr": f"198.18.0.1{number}", "name": f"n{number}", "holds": converged or number < 3, "reason": "behind"}
        for number in (1, 2, 3)
    ]
    return Finding({"converged": converged, "digest": digest, "results": results})


class Story:
    """An agreement that was told of ``start``."""

    def __init__(self, start: Finding, **options: Any) -> None:
        self.agreement = Agreement(SETTLE)
        self.now = 100.0
        self.first = self.agreement.observe(start, self.now, **options)

    def then(self, found: Finding, after: float = 0.5) -> list[str]:
        """Types of what is told."""
        self.now += after
        return [event["type"] for event in self.agreement.observe(found, self.now)]


def test_a_publish_is_told_once_it_is_everywhere_and_its_way_is_no_loss() -> None:
    story = Story(finding(True, "aa"))
    assert story.then(finding(False, "bb")) == []
    assert story.then(finding(False, "bb"), after=SETTLE - 1) == []
    assert story.then(finding(True, "bb")) == ["convergence_reached"]
    assert story.then(finding(True, "bb")) == []


def test_a_disagreement_that_lasts_is_told_once_and_its_end_too() -> None:
    story = Story(finding(True))
    assert story.then(finding(False)) == []
    assert story.agreement.due() == story.now + SETTLE
    assert story.then(finding(False), after=SETTLE) == ["convergence_lost"]
    assert story.agreement.due() is None
    assert story.then(finding(False), after=SETTLE) == []
    assert story.then(finding(True)) == ["convergence_reached"]


def test_short_disagreements_do_not_add_up() -> None:
    story = Story(finding(True))
    for _ in range(4):
        assert story.then(finding(False), after=SETTLE / 2) == []
        assert story.then(finding(True), after=SETTLE / 2) == []


def test_the_state_at_the_start_is_told_only_when_asked_for() -> None:
    assert Story(finding(True)).first == []
    (event,) = Story(finding(True), tell_initial=True).first
    assert (event["type"], event["initial"]) == ("convergence_reached", True)


def test_who_starts_in_a_disagreement_hears_of_its_end() -> None:
    story = Story(finding(False))
    assert story.then(finding(False), after=SETTLE) == []
    assert story.then(finding(True)) == ["convergence_reached"]


def test_the_event_names_who_lags_behind() -> None:
    told = finding(False).told()
    assert (told["members"], told["confirmed"]) == (3, 2)
    assert told["laggards"] == [{"addr": "198.18.0.13", "name": "n3", "reason": "behind"}]


def test_a_large_fleet_does_not_make_a_large_event() -> None:
    result = {"addr": "198.18.0.11", "name": "n", "holds": False, "reason": ""}
    told = Finding({"converged": False, "digest": "aa", "results": [result] * 5000}).told()
    assert (told["members"], told["confirmed"], len(told["laggards"])) == (5000, 0, MAX_LAGGARDS)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"results": None, "digest": "aa"},
        {"results": ["x"], "digest": "aa"},
        {"results": [], "digest": None},
        {"results": [{"addr": 7, "name": "", "reason": ""}], "digest": "aa"},
        {"results": [{"addr": "a", "name": "n" * 300, "reason": ""}], "digest": "aa"},
    ],
)
def test_a_malformed_answer_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Finding(answer)
