# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks that each group whose name comes from members' data has a prefix that the operator
chose.
"""

from __future__ import annotations

import collections.abc as c
import typing as t

DEFAULT_PREFIX = "xdp_gossip"
#: Group of the hosts whose agent does not run although the host answers.
AGENT_DOWN = "xdp_gossip_agent_down"


def check_keyed_groups(entries: t.Any) -> list[dict[str, t.Any]]:
    """Return the option ``keyed_groups`` with a prefix in each entry.

    Raises ``ValueError`` for an entry without ``key``, and for an entry that would let a node choose any group.
    """
    if entries is not None and not isinstance(entries, list):
        raise ValueError("keyed_groups: expected a list, got %s" % type(entries).__name__)
    return [_check(position, entry) for position, entry in enumerate(entries or [], 1)]


def _check(position: int, entry: t.Any) -> dict[str, t.Any]:
    where = "keyed_groups, entry %d" % position
    if not isinstance(entry, dict):
        raise ValueError("%s: expected a dictionary, got %s" % (where, type(entry).__name__))
    entry = dict(entry)
    if not isinstance(entry.get("key"), str) or not entry["key"].strip():
        raise ValueError("%s: key: expected a Jinja expression, got %r" % (where, entry.get("key")))
    entry.setdefault("prefix", DEFAULT_PREFIX)
    if not isinstance(entry["prefix"], str) or not entry["prefix"].strip(" _"):
        raise ValueError(
            "%s: prefix: expected text that is not empty, got %r. A node could join any group"
            % (where, entry["prefix"])
        )
    parent = entry.get("parent_group")
    if parent and ("{{" in str(parent) or "{%" in str(parent)):
        raise ValueError("%s: parent_group: expected a plain name, got %r" % (where, parent))
    return t.cast("dict[str, t.Any]", entry)


def group_names(
    existing: c.Iterable[str],
    configured: c.Mapping[str, t.Any] | None,
    keyed: c.Iterable[c.Mapping[str, t.Any]],
    sanitize: c.Callable[[str], str],
) -> tuple[list[str], set[str]]:
    """Return two collections in lower case: prefixes of groups that Ansible will create, which no host name may begin
    with, and names of groups, which no host name may have.

    ``sanitize`` is the function with which Ansible converts a text to a valid name of a group.
    """
    groups = {AGENT_DOWN, *(str(group).lower() for group in existing)}
    for group in configured or {}:
        groups.update((str(group).lower(), sanitize(str(group)).lower()))
    prefixes = []
    for entry in keyed:
        prefixes.append(sanitize(entry["prefix"] + str(entry.get("separator", "_"))).lower())
        if entry.get("parent_group"):
            groups.update((str(entry["parent_group"]).lower(), sanitize(str(entry["parent_group"])).lower()))
    return prefixes, groups
