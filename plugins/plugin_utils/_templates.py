# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: remote values and Ansible's templating, on both sides of ansible-core 2.19.

Up to 2.18 every string of a variable is a template unless it is wrapped; from 2.19 on only strings that carry a mark
of trust are. What members of a fleet wrote must be a template on neither, and expressions get it as variables only.
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
    """``node`` in the form that Ansible will not take for a template, however deep its values are.

    Its keys must be ours.
    """
    if _trust is not None:
        return dict(node)  # plain strings carry no trust
    from ansible.utils.unsafe_proxy import wrap_var

    return {field: wrap_var(value) if isinstance(value, _HOLD_TEXT) else value for field, value in node.items()}


def condition_holds(templar: t.Any, condition: str | bool, variables: c.Mapping[str, t.Any]) -> bool:
    """Whether a Jinja condition of the operator's is true of ``variables``.

    Raises whatever its filters and tests raise, and ``AnsibleError`` for syntax and undefined variables.
    """
    if isinstance(condition, bool):
        return condition
    templar.available_variables = variables
    if _trust is not None:
        return bool(templar.evaluate_conditional(condition))
    # As ansible-core 2.18 does it for the option groups. The condition comes from a file of the operator's.
    return bool(templar.template("{%% if %s %%}yes{%% else %%}no{%% endif %%}" % condition) == "yes")
