# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: selects nodes by an ordered list of include and exclude conditions."""

from __future__ import annotations

import collections.abc as c
import typing as t

_VERBS = ("include", "exclude")


class Filter(t.NamedTuple):
    """A rule that includes or excludes the nodes for which ``condition`` is true. Messages use ``name``."""

    name: str
    include: bool
    condition: str | bool


def parse_filters(entries: t.Any) -> list[Filter]:
    """Parse the option ``filters`` into rules. Raises ``ValueError`` if an entry is invalid; the message contains the
    entry's number and the expected value.
    """
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ValueError("filters: expected a list, got %s" % type(entries).__name__)
    return [_parse(position, entry) for position, entry in enumerate(entries, 1)]


def _parse(position: int, entry: t.Any) -> Filter:
    where = "filters, entry %d" % position
    expected = "expected a dictionary with one key, include or exclude"
    if not isinstance(entry, dict):
        raise ValueError("%s: %s, got %s" % (where, expected, type(entry).__name__))
    if len(entry) != 1 or next(iter(entry)) not in _VERBS:
        raise ValueError("%s: %s, got %s" % (where, expected, ", ".join(map(str, entry)) or "none"))
    ((verb, condition),) = entry.items()
    if isinstance(condition, bool):
        return Filter("%s, %s: %s" % (where, verb, condition), verb == "include", condition)
    if not isinstance(condition, str) or not condition.strip():
        raise ValueError("%s: %s: expected a Jinja condition, got %r" % (where, verb, condition))
    if "{{" in condition or "{%" in condition:
        raise ValueError("%s: %s: expected a condition without braces, got %r" % (where, verb, condition))
    return Filter("%s, %s: %s" % (where, verb, condition), verb == "include", condition)


def chosen(rules: c.Iterable[Filter], holds: c.Callable[[str | bool], bool]) -> bool:
    """Return whether the rules include a node. The function ``holds`` evaluates a condition for this node.

    The first rule whose condition is true decides whether the node is included. If no condition is true, the node is
    included. Raises ``ValueError`` with the text of the rule if its condition cannot be evaluated. A condition that
    cannot be evaluated does not count as false. If a failed condition counted as false, a node could avoid its
    exclusion by publishing data that makes the condition fail.
    """
    for rule in rules:
        try:
            if holds(rule.condition):
                return rule.include
        except Exception as exc:  # a condition can raise any exception, because its Jinja filters can
            raise ValueError("%s: %s" % (rule.name, exc)) from exc
    return True
