# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: reports the loss of a whole zone as one event. No I/O, no clock."""

from __future__ import annotations

import typing as t

#: Types of events about nodes that the loss of their zone replaces.
_ABSENCE = ("suspect", "agent_down", "dead")
_PRESENT = ("alive", "suspect")
_GONE = ("agent_down", "dead")

#: Seconds for which an event about an absent node waits for the other nodes of its zone. The members of a zone that
#: fails are removed within about two seconds of each other.
ZONE_WAIT = 2.0
#: While at least half of the nodes of a zone are not alive, the events wait for this many seconds at most. In a network
#: that is cut into two, members may need ten seconds to agree on a removal.
LONGEST_ZONE_WAIT = 30.0

Node = t.Mapping[str, t.Any]
Event = dict[str, t.Any]


class ZoneView:
    """Replaces the events about the nodes of a lost zone by one event."""

    def __init__(self) -> None:
        self._lost: set[str] = set()
        # Zone -> events that wait, each with the monotonic time at which it was created.
        self._waiting: dict[str, list[tuple[float, Event]]] = {}
        self._due: float | None = None

    def sift(self, events: t.Iterable[Event], nodes: t.Iterable[Node], now: float) -> list[Event]:
        """Return the events to report now: those of ``events`` and earlier ones that need not wait, and zone events.

        ``events``: new events about nodes. ``nodes``: the NodeList that they are from. ``now``: monotonic seconds.
        """
        zones = _by_zone(nodes)
        told: list[Event] = []
        for event in events:
            zone = event["node"]["zone"]
            if event["type"] in _ABSENCE and not event["initial"] and len(zones.get(zone, ())) > 1:
                self._waiting.setdefault(zone, []).append((now, event))
            else:
                # An event about a node never overtakes an earlier one about the same node.
                told += self._earlier(zone, event["node"])
                told.append(event)
        # A zone whose nodes were all forgotten, or have left, is neither lost any more nor back.
        self._lost &= zones.keys()
        for zone in sorted(self._lost):
            if any(node["state"] in _PRESENT for node in zones[zone]):
                self._lost.discard(zone)
                told.insert(0, _event("zone_returned", zone, zones[zone]))
        self._due = None
        for zone in sorted(self._waiting):
            told += self._decide(zone, zones.get(zone, ()), now)
        return told

    def due(self) -> float | None:
        """Return the monotonic time at which to call :meth:`sift` again even without a new event; ``None``: never."""
        return self._due

    def _decide(self, zone: str, nodes: t.Sequence[Node], now: float) -> list[Event]:
        waiting = self._waiting[zone]
        if len(nodes) > 1 and not any(node["state"] in _PRESENT for node in nodes):
            del self._waiting[zone]
            if zone in self._lost:
                return []  # a node of a lost zone changed between dead and agent_down
            self._lost.add(zone)
            return [_event("zone_lost", zone, nodes)]
        alive = sum(node["state"] == "alive" for node in nodes)
        longest = LONGEST_ZONE_WAIT if 2 * alive <= len(nodes) else ZONE_WAIT
        kept = [(since, event) for since, event in waiting if now - since < longest]
        told = [event for since, event in waiting if now - since >= longest]
        if kept:
            self._waiting[zone] = kept
            soon = kept[0][0] + (ZONE_WAIT if now - kept[0][0] < ZONE_WAIT else longest)
            self._due = soon if self._due is None else min(self._due, soon)
        else:
            del self._waiting[zone]
        return told

    def _earlier(self, zone: str, node: Node) -> list[Event]:
        identity = (node["addr"], node["port"])
        waiting = self._waiting.pop(zone, [])
        kept = [
            (since, event) for since, event in waiting if (event["node"]["addr"], event["node"]["port"]) != identity
        ]
        if kept:
            self._waiting[zone] = kept
        return [event for _since, event in waiting if (event["node"]["addr"], event["node"]["port"]) == identity]


def _by_zone(nodes: t.Iterable[Node]) -> dict[str, list[Node]]:
    """Return the nodes that have not left, by their zone; nodes without a zone are left out."""
    zones: dict[str, list[Node]] = {}
    for node in nodes:
        if node["zone"] and node["state"] != "left":
            zones.setdefault(node["zone"], []).append(node)
    return zones


def _event(kind: str, zone: str, nodes: t.Sequence[Node]) -> Event:
    gone = [node for node in nodes if node["state"] in _GONE]
    named = [{name: node[name] for name in ("addr", "port", "name", "state")} for node in gone]
    return {"type": kind, "zone": zone, "members": len(gone), "nodes": named, "initial": False}
