# SPDX-License-Identifier: MIT
"""What is told of nodes, from one NodeList to the next."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._nodes import (
    NAME_WAIT,
    UNLISTED_WAIT,
    NodeView,
)


def node(state: str = "alive", sequence: int = 10, incarnation: int = 1, **fields: Any) -> dict[str, Any]:
    """A node as the collection's own checks hand it on."""
    return {
        "addr": "198.18.0.11",
        "port": 8000,
        "name": "web1",
        "private_data": "",
        "state": state,
        "incarnation": incarnation,
        "sequence": sequence,
        "version": "0.1.0",
        "protocol": "UDP",
        "zone": "",
        "digest": "0011223344556677",
        "last_heard": 0.5,
        "local": False,
        "record_known": True,
        **fields,
    }


class Story:
    """A view, and what it tells of one NodeList after the other, one second apart."""

    def __init__(self, *start: dict[str, Any]) -> None:
        self.view = NodeView()
        self.now = 1000.0
        assert self.view.compare(start, self.now) == []

    def then(self, *nodes: dict[str, Any], after: float = 1.0) -> list[str]:
        """Types of what is told of this list."""
        return [event["type"] for event in self.events(*nodes, after=after)]

    def events(self, *nodes: dict[str, Any], after: float = 1.0) -> list[dict[str, Any]]:
        """What is told of this list."""
        self.now += after
        return self.view.compare(nodes, self.now)


def test_a_life() -> None:
    story = Story()
    assert story.then(node()) == ["join"]
    assert story.then(node(sequence=11)) == []
    assert story.then(node("suspect", 11)) == ["suspect"]
    assert story.then(node(sequence=12)) == ["recover"]
    assert story.then(node("suspect", 12)) == ["suspect"]
    assert story.then(node("dead", 12)) == ["dead"]
    assert story.then(node("dead", 12)) == []
    assert story.then(node(sequence=1, incarnation=2)) == ["join"]
    assert story.then(node("left", 2, 2)) == ["leave"]


def test_the_first_list_is_told_only_when_asked_for() -> None:
    nodes = [node(), node("dead", addr="198.18.0.12")]
    assert NodeView().compare(nodes, 0.0) == []
    events = NodeView().compare(nodes, 0.0, tell_initial=True)
    assert [(event["type"], event["initial"]) for event in events] == [("join", True), ("dead", True)]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("alive", "dead", "dead"),
        ("suspect", "left", "leave"),
        ("dead", "left", "leave"),
        ("dead", "suspect", "suspect"),
        ("left", "alive", "join"),
        ("dead", "alive", "join"),
    ],
)
def test_states_that_were_passed_by_do_not_matter(before: str, after: str, told: str) -> None:
    assert Story(node(before)).then(node(after, sequence=20)) == [told]


def test_a_change_of_what_a_node_says_names_the_fields_and_both_values() -> None:
    story = Story(node(private_data="rack 1"))
    (event,) = story.events(node(sequence=11, private_data="rack 2", name="web9"))
    assert event["type"] == "update"
    assert event["changed"] == ["name", "private_data"]
    assert (event["previous"]["private_data"], event["node"]["private_data"]) == ("rack 1", "rack 2")


def test_heartbeats_are_no_news() -> None:
    assert Story(node()).then(node(sequence=99, last_heard=0.1, digest="ff" * 8)) == []


def test_a_new_run_of_an_agent_is_told_though_nobody_saw_it_away() -> None:
    (event,) = Story(node(sequence=500)).events(node(sequence=1, incarnation=2))
    assert (event["type"], event["changed"]) == ("update", ["incarnation"])


def test_a_member_with_older_news_brings_nobody_back() -> None:
    story = Story(node(sequence=10))
    assert story.then(node("dead", 10)) == ["dead"]
    # Another member is asked now, which has not given it up yet.
    assert story.then(node("suspect", 10)) == []
    assert story.then(node("alive", 9)) == []
    assert story.then(node("dead", 10)) == []
    assert story.then(node("alive", 11)) == ["join"]


def test_a_member_with_older_news_does_not_undo_an_update() -> None:
    story = Story(node(sequence=10, private_data="old"))
    assert story.then(node(sequence=12, private_data="new")) == ["update"]
    assert story.then(node(sequence=11, private_data="old")) == []
    assert story.then(node(sequence=13, private_data="new")) == []


def test_a_leave_is_not_undone_by_a_member_that_did_not_hear_of_it() -> None:
    story = Story(node(sequence=10))
    assert story.then(node("left", 10)) == ["leave"]
    assert story.then(node("dead", 10)) == []


def test_a_death_is_believed_also_from_a_member_that_heard_less() -> None:
    # The member asked before, which had heard more, may have died together with the node.
    story = Story(node(sequence=50))
    assert story.then(node("dead", 49)) == ["dead"]
    assert story.then(node("alive", 50)) == []
    assert story.then(node("alive", 51)) == ["join"]


def test_nodes_without_incarnations_are_taken_as_they_are_listed() -> None:
    # On the PekoNode wire sequences are each member's own count.
    story = Story(node("dead", 90, 0))
    assert story.then(node("alive", 3, 0)) == ["join"]


def test_what_came_and_went_between_two_lists_is_told_as_gone() -> None:
    story = Story()
    assert story.then(node("dead", last_heard=30.0), after=60.0) == ["dead"]


def test_who_was_gone_before_is_no_news() -> None:
    # A member that is asked for the first time still lists the dead of yesterday.
    story = Story()
    assert story.then(node("dead", last_heard=3600.0), after=60.0) == []
    assert story.then(node("alive", 11)) == ["join"]


def test_a_member_that_has_just_started_lists_nobody_and_nobody_dies_of_it() -> None:
    story = Story(node())
    assert story.then() == []
    assert story.then(after=UNLISTED_WAIT / 2) == []
    assert story.then(node(sequence=30)) == []
    assert story.then(after=UNLISTED_WAIT) == []  # the wait starts anew


def test_who_is_not_listed_any_more_is_told_as_dead_in_the_end() -> None:
    story = Story(node())
    assert story.then() == []
    (event,) = story.events(after=UNLISTED_WAIT)
    assert (event["type"], event["node"]["state"]) == ("dead", "dead")
    assert story.then(after=UNLISTED_WAIT) == []


def test_the_dead_are_forgotten_silently() -> None:
    story = Story(node("dead"))
    assert story.then() == []
    assert story.then(after=UNLISTED_WAIT) == []


def test_a_join_waits_a_moment_for_the_name() -> None:
    story = Story()
    assert story.then(node(name="", record_known=False)) == []
    assert story.view.due() == story.now + NAME_WAIT
    (event,) = story.events(node(sequence=11))
    assert (event["type"], event["node"]["name"]) == ("join", "web1")
    assert story.view.due() is None


def test_a_join_waits_no_longer_than_that() -> None:
    story = Story()
    assert story.then(node(name="", record_known=False)) == []
    assert story.then(node(name="", record_known=False), after=NAME_WAIT) == ["join"]
    assert story.then(node(sequence=20)) == ["update"]


def test_a_node_that_was_only_to_be_contacted_joins_when_it_answers() -> None:
    story = Story()
    assert story.then(node("suspect", 0, 0, record_known=False)) == ["suspect"]
    assert story.then(node(sequence=1)) == ["join"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("alive", "agent_down", "agent_down"),
        ("suspect", "agent_down", "agent_down"),
        ("agent_down", "dead", "dead"),
        ("dead", "agent_down", "agent_down"),  # another member's view: no heartbeat can decide between the two
        ("agent_down", "left", "leave"),
        ("agent_down", "alive", "recover"),
    ],
)
def test_a_host_without_agent_is_told_as_such(before: str, after: str, told: str) -> None:
    sequence = 11 if after == "alive" else 10
    assert Story(node(before)).then(node(after, sequence)) == [told]


def test_a_heartbeat_that_is_not_newer_brings_no_agent_back() -> None:
    assert Story(node("agent_down")).then(node("alive")) == []
