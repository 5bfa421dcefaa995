# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: removes from events all text that Ansible could evaluate as a template."""

from __future__ import annotations

import typing as t

#: ansible-rulebook passes the whole event to playbooks as an extra variable, and Ansible evaluates every string of an
#: extra variable as a template. Texts with one of these marks are therefore removed from events.
_TEMPLATE_MARKS = ("{{", "{%", "{#", "#jinja2:")


def runs_as_template(text: str) -> bool:
    """Return whether Ansible might evaluate ``text`` as a template."""
    return any(mark in text for mark in _TEMPLATE_MARKS)


def withhold_templates(event: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return a copy of ``event`` in which text that might be a template is replaced by an empty text.

    The field ``withheld`` of the copy lists the paths of such texts, for example ``node.name``, so that rules can
    detect a removed text.
    """
    withheld: list[str] = []
    copy = {name: _harmless(value, name, withheld) for name, value in event.items()}
    return dict(copy, withheld=withheld)


def _harmless(value: t.Any, path: str, withheld: list[str]) -> t.Any:
    if isinstance(value, str) and runs_as_template(value):
        withheld.append(path)
        return ""
    if isinstance(value, dict):
        # Dictionary keys need no check, because they come from this collection and never from other machines.
        return {name: _harmless(inner, f"{path}.{name}", withheld) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_harmless(inner, f"{path}[{place}]", withheld) for place, inner in enumerate(value)]
    return value
