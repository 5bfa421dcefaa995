# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: compares NodeLists and creates events about nodes. No I/O, no clock."""

from __future__ import annotations

import typing as t

#: _TOLD: fields of a node that events contain. _WATCHED: fields whose change causes an event even if the state stays
#: the same.
_TOLD = (
    "addr",
    "port",
    "name",
    "private_data",
    "state",
    "incarnation",
    "sequence",
    "version",
    "protocol",
    "zone",
    "last_heard",
    "record_known",
)
_WATCHED = ("name", "private_data", "incarnation", "version", "protocol", "zone")

#: Rank of each state. A change to a lower rank requires a newer heartbeat, see ``_Known.refutes``. A host without a
#: running agent sends no heartbeats, so a change between dead and agent_down requires none.
_GONE = {"alive": 0, "suspect": 1, "agent_down": 2, "dead": 2, "left": 3}
#: States of nodes that are gone for good, unless they send a heartbeat again.
_LOST = ("dead", "left")

#: Seconds to wait for the name of a new node. After this time, the join event is reported without a name.
NAME_WAIT = 3.0
#: If a node is missing from the list for this many seconds, the source reports the node as dead. A member that just
#: started does not list all nodes yet.
UNLISTED_WAIT = 60.0

#: Type of the event about a node that enters a state; "alive" stands for a new node.
_TYPES = {"alive": "join", "suspect": "suspect", "agent_down": "agent_down", "dead": "dead", "left": "leave"}

Node = t.Mapping[str, t.Any]
Event = dict[str, t.Any]
Identity = tuple[str, int]


class _Known:
    """The last reported state of one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.evidence = _evidence(node)
        self.unlisted_since: float | None = None

    def refutes(self, node: Node) -> bool:
        """Return true if ``node`` must be ignored, because its data is older than the last reported state.

        The data in ``node`` is older than the reported state if the heartbeat in ``node`` has an earlier incarnation
        than the heartbeat of the reported state, or has the same incarnation and a lower sequence number. A change
        towards alive counts only if the heartbeat in ``node`` is newer than the heartbeat of the reported state. A
        change towards suspect, agent_down, dead or left also counts without a newer heartbeat, because a node in one of
        these states may never send a newer heartbeat. Nodes of the PekoNode wire are never ignored: they have no
        incarnation, and each member assigns sequence numbers to these nodes itself, so the data of two members cannot
        be compared.
        """
        if not node["incarnation"] or not self.node["incarnation"]:
            return False
        newer, now, before = _evidence(node), _GONE[node["state"]], _GONE[self.node["state"]]
        return newer < self.evidence if now == before else now < before and newer <= self.evidence

    def take(self, node: Node) -> None:
        self.node = node
        self.evidence = max(self.evidence, _evidence(node))


class NodeView:
    """Compares the NodeList of a member with the nodes that were reported in events so far."""

    def __init__(self) -> None:
        self._known: dict[Identity, _Known] = {}
        self._nameless: dict[Identity, float] = {}  # monotonic time at which a new node without name was first seen
        self._last: float | None = None

    def compare(self, nodes: t.Iterable[Node], now: float, tell_initial: bool = False) -> list[Event]:
        """Return the events for the differences between the reported nodes and ``nodes``. Store ``nodes`` as reported.

        ``now`` is a monotonic time in seconds. Without ``tell_initial``, the first list causes no events.
        """
        first, since = self._last is None, self._last
        self._last = now
        listed = {(node["addr"], node["port"]): node for node in nodes}
        events = []
        for identity, node in listed.items():
            known = self._known.get(identity)
            if known is not None:
                event = self._next(known, node)
            elif not first and self._wait_for_name(identity, node, now):
                continue
            else:
                self._known[identity] = _Known(node)
                silent = not tell_initial if first else _died_before(node, now - (since or now))
                event = None if silent else _event(_first_type(node), node, None)
            if event is not None:
                events.append(dict(event, initial=first))
        for identity in [identity for identity in self._nameless if identity not in listed]:
            del self._nameless[identity]
        return events + self._unlisted(listed, now)

    def due(self) -> float | None:
        """Return the monotonic time at which to compare again even if the feed reports no change.

        The result is ``None`` if no such comparison is needed.
        """
        return min(self._nameless.values()) + NAME_WAIT if self._nameless else None

    def _wait_for_name(self, identity: Identity, node: Node, now: float) -> bool:
        waits = node["state"] == "alive" and not node["record_known"]
        if waits and now - self._nameless.setdefault(identity, now) < NAME_WAIT:
            return True
        self._nameless.pop(identity, None)
        return False

    def _next(self, known: _Known, node: Node) -> Event | None:
        known.unlisted_since = None
        if known.refutes(node):
            return None
        previous = known.node
        known.take(node)
        changed = [name for name in _WATCHED if node[name] != previous[name]]
        if node["state"] != previous["state"]:
            return _event(_type(previous, node), node, previous, changed)
        return _event("update", node, previous, changed) if changed and _GONE[node["state"]] < 2 else None

    def _unlisted(self, listed: t.Container[Identity], now: float) -> list[Event]:
        events = []
        for identity, known in list(self._known.items()):
            if identity in listed:
                continue
            if known.unlisted_since is None:
                known.unlisted_since = now
            elif now - known.unlisted_since >= UNLISTED_WAIT:
                del self._known[identity]
                if known.node["state"] not in _LOST:
                    gone = dict(known.node, state="dead")
                    events.append(dict(_event("dead", gone, known.node), initial=False))
        return events


def _evidence(node: Node) -> tuple[int, int]:
    return (node["incarnation"], node["sequence"])


def _died_before(node: Node, seconds: float) -> bool:
    """Return whether the node had already died or left ``seconds`` ago. If so, the node needs no event."""
    heard = node["last_heard"]
    return node["state"] in _LOST and (heard is None or heard > seconds)


def _first_type(node: Node) -> str:
    return _TYPES[node["state"]]


def _type(previous: Node, node: Node) -> str:
    if node["state"] != "alive":
        return _first_type(node)
    # The agent lists a configured seed as suspect until the seed answers. The source reports the first answer of a seed
    # as a join.
    heard_before = previous["incarnation"] or previous["record_known"]
    return "recover" if previous["state"] in ("suspect", "agent_down") and heard_before else "join"


def _event(kind: str, node: Node, previous: Node | None, changed: t.Sequence[str] = ()) -> Event:
    told = {name: node[name] for name in _TOLD}
    before = None if previous is None else {name: previous[name] for name in _TOLD}
    return {"type": kind, "node": told, "previous": before, "changed": list(changed)}
