# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: merges the NodeLists of several members into one."""

from __future__ import annotations

import collections
import collections.abc as c
import functools
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Answer

#: Rank of the states if several states are equally frequent: the state with the highest rank is used.
_RANK = {"left": 4, "dead": 3, "agent_down": 2, "suspect": 1, "alive": 0}

#: The entry for a node in one member's NodeList.
View = dict[str, t.Any]


def merge(answers: c.Sequence[Answer]) -> list[View]:
    """Return the nodes of all ``answers``, each node once.

    For each node, the function uses only the entries with the latest incarnation of the node. A node raises its
    incarnation when it starts, and to refute that it is suspect or dead. The state of the node is the most frequent
    state in the entries with the node's latest incarnation. A rule that prefers the state dead would be wrong, because
    a member without connection reports all other members as dead. Sequence numbers cannot decide which entry is newer,
    because an unchanged answer from the cache contains old sequence numbers.

    Raises ``ValueError`` if the members belong to different clusters.
    """
    clusters = {answer.endpoint: answer.cluster for answer in answers}
    if len(set(map(str, clusters.values()))) > 1:
        shown = ", ".join("%s: %s" % (endpoint, clip(str(name), 80)) for endpoint, name in clusters.items())
        raise ValueError("endpoints: expected members of one cluster, got %s" % shown)
    views: dict[tuple[str, int], list[View]] = {}
    for answer in answers:
        for node in answer.nodes:
            views.setdefault((node["addr"], node["port"]), []).append(node)
    return [_agree(of_one) for of_one in views.values()]


def _later(one: int, other: int) -> int:
    """Return the later of two incarnations, which are 32-bit serial numbers (RFC 1982); 0 means unknown."""
    if not one or not other:
        return one or other
    return one if 0 <= (one - other) % 2**32 < 2**31 else other


def _agree(views: c.Sequence[View]) -> View:
    newest = functools.reduce(_later, sorted({view["incarnation"] for view in views}))
    views = [view for view in views if view["incarnation"] == newest]
    votes = collections.Counter(view["state"] for view in views)
    state = max(votes, key=lambda name: (votes[name], _RANK[name]))
    # All fields except the state come from a single entry. Prefer an entry with the node's name and private data, then
    # the entry that the node itself returned.
    best = max(views, key=lambda view: (view["record_known"], view["local"], view["state"] == state, view["sequence"]))
    return dict(best, state=state)
