# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: decides from the NodeList of one member whether a rotation of the cluster key may go on.

Each node shows the fingerprints and the states of its keys in its record, which every member has, also for nodes that
are dead. So one member can answer for the whole fleet, including nodes that are not in the inventory. The functions are
pure. Python 3.8 or later.
"""

from __future__ import annotations

import typing as t

#: The steps of a rotation, and what each node must show before the rotation goes on.
START, STAGE, ACTIVATE, RETIRE = STEPS = ("start", "stage", "activate", "retire")
EXPECTED = {
    START: "only the key %(current)s, active",
    STAGE: "the key %(next)s, staged",
    ACTIVATE: "the key %(next)s, active, and packets signed with it",
    RETIRE: "only the key %(next)s, active",
}
#: Fewer nodes than this are named in a message; of the others only the number is told.
NAMED = 20


class Keys(t.NamedTuple):
    """The keys of a rotation, as fingerprints: the key before the rotation, the key after it, and all keys that the
    controller knows.
    """

    current: str
    next: str
    known: t.FrozenSet[str]


def where(node: t.Mapping[str, t.Any]) -> str:
    """Return the address of a node as ``addr:port``, with an IPv6 address in brackets."""
    addr = str(node["addr"])
    return "%s:%s" % ("[%s]" % addr if ":" in addr else addr, node["port"])


def unmet(
    nodes: t.Iterable[t.Mapping[str, t.Any]], step: str, keys: Keys, gone: t.Collection[str], lost_next: bool = False
) -> list[str]:
    """Return one sentence for each node for which the rotation must not go on after ``step``.

    ``nodes``: the nodes of ``GET /v1/nodes?state=all``. ``gone``: addresses (``addr:port``) or names of dead nodes that
    the operator has given up. ``lost_next``: a key that is only staged, and which the controller does not know, does
    not stop the step ``start``. Raises ``ValueError`` for entries of another form.
    """
    told = []
    for node in nodes:
        try:
            name, state = "%s (%s)" % (node["name"] or "a node", where(node)), node["state"]
            # Both are missing for a node of which the member has no record, or has received no packet.
            signs = node.get("key_id")
            shown = {str(key["fingerprint"]): str(key["state"]) for key in node.get("keys", ())}
            given_up = where(node) in gone or node["name"] in gone
        except (AttributeError, KeyError, TypeError):
            raise ValueError("expected nodes with addr, port, name, state and keys") from None
        if state == "left" or (given_up and state == "dead"):
            continue
        why = _why(step, keys, shown, signs if state == "alive" else None, lost_next)
        if why:
            told.append("%s, %s, %s%s" % (name, state, why, _not_gone(state) if given_up else ""))
    return told


def _not_gone(state: str) -> str:
    return "; it is listed in xdp_gossip_gone, but expected to be dead, and it is %s" % state


def _why(step: str, keys: Keys, shown: dict[str, str], signs: t.Any, lost_next: bool) -> str:
    """Return why a node with the keys ``shown`` stops the rotation; "" if it does not."""
    if not shown:
        return "shows no keys"
    foreign = [one for one in shown if one not in keys.known and not (lost_next and shown[one] == "staged")]
    if foreign:
        return "has the key %s, which this controller does not know" % ", ".join(_words(shown, foreign))
    if step == START:
        held = {one: state for one, state in shown.items() if one in keys.known}
        fine = held == {keys.current: "active"}
    elif step == STAGE:
        fine = shown.get(keys.next) in ("staged", "active")
    elif step == ACTIVATE:
        fine = shown.get(keys.next) == "active"
        if fine and signs is not None and signs != int(keys.next[:2], 16):
            return "has activated the key %s, but its packets are still signed with the key id %s" % (keys.next, signs)
    else:
        fine = shown == {keys.next: "active"}
    return "" if fine else "shows %s" % ", ".join(_words(shown, sorted(shown)))


def _words(shown: dict[str, str], which: t.Iterable[str]) -> list[str]:
    return ["%s (%s)" % (one, shown[one]) for one in which]


def expectation(step: str, keys: Keys) -> str:
    """Return what each node must show before the rotation goes on after ``step``."""
    return EXPECTED[step] % {"current": keys.current, "next": keys.next}


def shortened(told: list[str]) -> list[str]:
    """Return the first sentences, and how many more there are."""
    more = len(told) - NAMED
    return told if more <= 0 else told[:NAMED] + ["and %d more" % more]
