# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: prevents Ansible from evaluating data from members as templates.

Up to ansible-core 2.18, every string in a variable is a template unless it is wrapped as unsafe. From ansible-core 2.19
on, a string is a template only if it is marked as trusted. In all versions of ansible-core, data from members must
never be evaluated as a template. A condition receives data from members only as values of variables.
"""

from __future__ import annotations

import collections.abc as c
import typing as t

try:
    from ansible.template import trust_as_template as _trust
except ImportError:  # ansible-core 2.18
    _trust = None

_HOLD_TEXT = (str, dict, list)


def untrusted(node: c.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return a copy of ``node`` in which Ansible evaluates no string as a template, at any depth of nesting.

    The keys of ``node`` must come from this collection, because the function protects only values.
    """
    if _trust is not None:
        return dict(node)  # Ansible does not evaluate plain strings, because they are not marked as trusted
    from ansible.utils.unsafe_proxy import wrap_var

    return {field: wrap_var(value) if isinstance(value, _HOLD_TEXT) else value for field, value in node.items()}


def condition_holds(templar: t.Any, condition: str | bool, variables: c.Mapping[str, t.Any]) -> bool:
    """Return whether a Jinja condition that the operator wrote is true for ``variables``.

    Raises any exception that the condition's filters and tests raise, and ``AnsibleError`` for a syntax error or an
    undefined variable.
    """
    if isinstance(condition, bool):
        return condition
    templar.available_variables = variables
    if _trust is not None:
        return bool(templar.evaluate_conditional(condition))
    # ansible-core 2.18 itself uses this template to evaluate the conditions of the option ``groups``. The template is
    # safe, because the condition comes from the operator's own file.
    return bool(templar.template("{%% if %s %%}yes{%% else %%}no{%% endif %%}" % condition) == "yes")
