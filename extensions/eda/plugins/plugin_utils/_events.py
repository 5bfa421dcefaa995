# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: what leaves the event source, made harmless for what comes after it."""

from __future__ import annotations

import typing as t

#: ansible-rulebook hands the whole event to playbooks as an extra variable, and Ansible takes every string of an extra
#: variable for a template. So text that would be one may not get there at all.
_TEMPLATE_MARKS = ("{{", "{%", "{#", "#jinja2:")


def runs_as_template(text: str) -> bool:
    """Whether Ansible might take ``text`` for a template."""
    return any(mark in text for mark in _TEMPLATE_MARKS)


def withhold_templates(event: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A copy of ``event`` in which text that might be a template is empty.

    ``withheld`` of the copy lists where such text was (``node.name``, say), so that a rule can tell.
    """
    withheld: list[str] = []
    copy = {name: _harmless(value, name, withheld) for name, value in event.items()}
    return dict(copy, withheld=withheld)


def _harmless(value: t.Any, path: str, withheld: list[str]) -> t.Any:
    if isinstance(value, str) and runs_as_template(value):
        withheld.append(path)
        return ""
    if isinstance(value, dict):
        # Names of members are our own, never text of others.
        return {name: _harmless(inner, f"{path}.{name}", withheld) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_harmless(inner, f"{path}[{place}]", withheld) for place, inner in enumerate(value)]
    return value
