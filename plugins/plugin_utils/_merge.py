# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: one NodeList out of the answers of several members."""

from __future__ import annotations

import collections
import collections.abc as c
import functools
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Answer

#: In a tie between members: a node's own leave first, then the more cautious judgement.
_RANK = {"left": 3, "dead": 2, "suspect": 1, "alive": 0}

#: A node as one member sees it.
View = dict[str, t.Any]


def merge(answers: c.Sequence[Answer]) -> list[View]:
    """The nodes that any of ``answers`` lists, each once.

    Of what members say of one node only the views with the latest incarnation count: a node raises it when it
    starts, and to contradict that it is gone. Among these the state that most members see is taken. A member that is
    cut off holds everybody else for dead, so neither "dead wins" nor "alive wins" would do. Sequence numbers, by
    which members tell whose news is later, are no help here: those of an answer that was only confirmed are old.

    Raises ``ValueError`` when the members are not of one cluster.
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
    """The later of two incarnations: serial numbers of 32 bits (RFC 1982), 0 when no run is known."""
    if not one or not other:
        return one or other
    return one if 0 <= (one - other) % 2**32 < 2**31 else other


def _agree(views: c.Sequence[View]) -> View:
    newest = functools.reduce(_later, sorted({view["incarnation"] for view in views}))
    views = [view for view in views if view["incarnation"] == newest]
    votes = collections.Counter(view["state"] for view in views)
    state = max(votes, key=lambda name: (votes[name], _RANK[name]))
    # The rest comes from one view: one that has the node's record, the node's own rather than others'.
    best = max(views, key=lambda view: (view["record_known"], view["local"], view["state"] == state, view["sequence"]))
    return dict(best, state=state)
