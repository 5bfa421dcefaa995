# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: what changed among the nodes, from one NodeList to the next. No I/O, no clock."""

from __future__ import annotations

import typing as t

#: Fields of a node that are told, and those whose change alone is told.
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
    "last_heard",
    "record_known",
)
_WATCHED = ("name", "private_data", "incarnation", "version", "protocol")

#: How far gone a node is. To be held for less gone takes newer evidence, see ``_Known.refutes``.
_GONE = {"alive": 0, "suspect": 1, "dead": 2, "left": 3}

#: Seconds for which a newcomer's name may take to arrive before its join is told without.
NAME_WAIT = 3.0
#: Seconds after which a node that is not listed any more counts as dead: a member that starts lists nobody at first.
UNLISTED_WAIT = 60.0

Node = t.Mapping[str, t.Any]
Event = dict[str, t.Any]
Identity = tuple[str, int]


class _Known:
    """What was told last of one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.evidence = _evidence(node)
        self.unlisted_since: float | None = None

    def refutes(self, node: Node) -> bool:
        """Whether what is known is better than ``node``, which a member with older news may list.

        The newest heartbeat that a member heard of a node, by incarnation and sequence, is evidence that it lived
        then. A node is less gone than was told only when there is newer evidence. That it is further gone is always
        believed: the member asked now may be the one that heard of it last. Nodes of the PekoNode wire have
        no incarnation, and their sequences are each member's own; there is nothing to compare.
        """
        if not node["incarnation"] or not self.node["incarnation"]:
            return False
        newer, now, before = _evidence(node), _GONE[node["state"]], _GONE[self.node["state"]]
        return newer < self.evidence if now == before else now < before and newer <= self.evidence

    def take(self, node: Node) -> None:
        self.node = node
        self.evidence = max(self.evidence, _evidence(node))


class NodeView:
    """The nodes as they were told, held against NodeLists of whichever member answers."""

    def __init__(self) -> None:
        self._known: dict[Identity, _Known] = {}
        self._nameless: dict[Identity, float] = {}  # when a newcomer without a name was seen first
        self._last: float | None = None

    def compare(self, nodes: t.Iterable[Node], now: float, tell_initial: bool = False) -> list[Event]:
        """The events that lead from what is known to ``nodes``, which are known from then on.

        ``now`` is a monotonic time in seconds. The first list is told only with ``tell_initial``.
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
        """When to compare again even if nothing is heard of a change, as a monotonic time."""
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
                if _GONE[known.node["state"]] < 2:
                    gone = dict(known.node, state="dead")
                    events.append(dict(_event("dead", gone, known.node), initial=False))
        return events


def _evidence(node: Node) -> tuple[int, int]:
    return (node["incarnation"], node["sequence"])


def _died_before(node: Node, seconds: float) -> bool:
    """Whether a node that is gone was gone already ``seconds`` ago, and so is no news."""
    heard = node["last_heard"]
    return _GONE[node["state"]] >= 2 and (heard is None or heard > seconds)


def _first_type(node: Node) -> str:
    return {"alive": "join", "suspect": "suspect", "dead": "dead", "left": "leave"}[node["state"]]


def _type(previous: Node, node: Node) -> str:
    if node["state"] != "alive":
        return _first_type(node)
    # A node that a member was only told to contact counts as suspect until it answers; then it joins.
    heard_before = previous["incarnation"] or previous["record_known"]
    return "recover" if previous["state"] == "suspect" and heard_before else "join"


def _event(kind: str, node: Node, previous: Node | None, changed: t.Sequence[str] = ()) -> Event:
    told = {name: node[name] for name in _TOLD}
    before = None if previous is None else {name: previous[name] for name in _TOLD}
    return {"type": kind, "node": told, "previous": before, "changed": list(changed)}
