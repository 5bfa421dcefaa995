# SPDX-License-Identifier: MIT
"""The loss of a zone is one event, and no event about a node gets lost or overtakes another."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._nodes import NodeView
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._zones import (
    LONGEST_ZONE_WAIT,
    ZONE_WAIT,
    ZoneView,
)

from .test_nodes import node


class Fleet:
    """Four hosts in zone east, two in zone west, one alone in zone north, one without a zone."""

    def __init__(self) -> None:
        zones = [*["east"] * 4, *["west"] * 2, "north", ""]
        self.nodes = {
            number: node(addr=f"198.18.0.{number}", name=f"host{number}", zone=zone)
            for number, zone in enumerate(zones, start=1)
        }
        self.view, self.zones = NodeView(), ZoneView()
        self.now = 1000.0
        assert self.look(after=0.0) == []

    def set(self, numbers: list[int], state: str, newer: bool = False) -> None:
        for number in numbers:
            self.nodes[number] = dict(self.nodes[number], state=state)
            self.nodes[number]["sequence"] += newer

    def events(self, after: float = 0.5) -> list[dict[str, Any]]:
        self.now += after
        nodes = list(self.nodes.values())
        return self.zones.sift(self.view.compare(nodes, self.now), nodes, self.now)

    def look(self, after: float = 0.5) -> list[str]:
        return [
            f"{event['type']} {event['zone'] if 'zone' in event else event['node']['name']}"
            for event in self.events(after)
        ]


@pytest.mark.parametrize("end", ["dead", "agent_down"])
def test_a_zone_that_is_lost_bit_by_bit_is_one_event(end: str) -> None:
    fleet = Fleet()
    fleet.set([1], "suspect")
    assert fleet.look() == []
    fleet.set([2, 3], "suspect")
    assert fleet.look() == []
    fleet.set([1, 2], end)
    assert fleet.look(after=ZONE_WAIT) == []
    fleet.set([3], end)
    assert fleet.look(after=ZONE_WAIT) == []
    fleet.set([4], end)
    (event,) = fleet.events()
    assert (event["type"], event["zone"], event["members"], event["initial"]) == ("zone_lost", "east", 4, False)
    assert [(one["addr"], one["port"], one["state"]) for one in event["nodes"]] == [
        (f"198.18.0.{number}", 8000, end) for number in (1, 2, 3, 4)
    ]
    assert fleet.zones.due() is None
    assert fleet.look(after=100.0) == []


def test_a_lost_zone_returns_and_its_hosts_too() -> None:
    fleet = Fleet()
    fleet.set([1, 2, 3, 4], "dead")
    assert fleet.look() == ["zone_lost east"]
    fleet.set([3], "agent_down")
    assert fleet.look() == []
    fleet.set([1, 2], "alive", newer=True)
    assert fleet.look() == ["zone_returned east", "join host1", "join host2"]
    fleet.set([1], "dead")
    assert fleet.look() == []
    fleet.set([2], "dead")
    assert fleet.look() == ["zone_lost east"]


def test_one_host_that_dies_is_told_a_moment_later() -> None:
    fleet = Fleet()
    fleet.set([1], "suspect")
    assert fleet.look() == []
    due = fleet.zones.due()
    assert due == fleet.now + ZONE_WAIT
    assert fleet.look(after=ZONE_WAIT) == ["suspect host1"]
    fleet.set([1], "dead")
    assert fleet.look() == []
    assert fleet.look(after=ZONE_WAIT) == ["dead host1"]
    assert fleet.zones.due() is None


def test_half_a_zone_waits_longer_and_is_told_host_by_host() -> None:
    fleet = Fleet()
    fleet.set([1, 2], "dead")
    assert fleet.look() == []
    assert fleet.look(after=ZONE_WAIT) == []
    assert fleet.zones.due() is not None
    assert fleet.look(after=LONGEST_ZONE_WAIT) == ["dead host1", "dead host2"]
    assert fleet.zones.due() is None


def test_a_recovery_does_not_overtake_the_suspicion() -> None:
    fleet = Fleet()
    fleet.set([1, 2], "suspect")
    assert fleet.look() == []
    fleet.set([1], "alive", newer=True)
    assert fleet.look() == ["suspect host1", "recover host1"]
    assert fleet.look(after=ZONE_WAIT) == ["suspect host2"]


def test_who_has_no_zone_or_is_alone_in_it_is_told_at_once() -> None:
    fleet = Fleet()
    fleet.set([7, 8], "dead")
    assert fleet.look() == ["dead host7", "dead host8"]


def test_two_zones_are_two_events_and_a_zone_that_leaves_is_none() -> None:
    fleet = Fleet()
    fleet.set([1, 2, 3, 4, 5, 6], "dead")
    assert fleet.look() == ["zone_lost east", "zone_lost west"]
    fleet = Fleet()
    fleet.set([5, 6], "left")
    assert fleet.look() == ["leave host5", "leave host6"]
    fleet.set([1, 2], "left")
    assert fleet.look() == ["leave host1", "leave host2"]
    fleet.set([3, 4], "dead")
    (event,) = fleet.events()
    assert (event["type"], event["members"]) == ("zone_lost", 2)


@pytest.mark.parametrize("how", ["forgotten", "left"])
def test_a_lost_zone_that_is_given_up_has_not_returned(how: str) -> None:
    fleet = Fleet()
    fleet.set([5, 6], "dead")
    assert fleet.look() == ["zone_lost west"]
    if how == "left":
        fleet.set([5, 6], "left")
        assert fleet.look() == ["leave host5", "leave host6"]
    else:
        del fleet.nodes[5], fleet.nodes[6]
        assert fleet.look() == []
    assert fleet.look(after=10.0) == []


def test_what_was_lost_before_the_first_look_is_no_loss() -> None:
    fleet = Fleet()
    fleet.view, fleet.zones = NodeView(), ZoneView()
    fleet.set([1, 2, 3, 4], "dead")
    assert fleet.look() == []
    assert fleet.look(after=100.0) == []
