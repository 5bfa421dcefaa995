# SPDX-License-Identifier: MIT
"""Text of others that Ansible would run does not get into an event."""

from __future__ import annotations

import json

import pytest
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._events import withhold_templates


@pytest.mark.parametrize(
    "text",
    [
        "{{ lookup('pipe', 'id') }}",
        "web{{1}}",
        "{% for x in y %}",
        "{# comment #}",
        "#jinja2: variable_start_string:'<'\n< lookup('pipe', 'id') >",
        "  {{-x}}",
        "{" * 3,
    ],
)
def test_templates_are_withheld_wherever_they_are(text: str) -> None:
    event = withhold_templates(
        {"type": "dead", "node": {"name": text, "port": 8000}, "previous": None, "attempts": [{"reason": text}]}
    )
    assert event == {
        "type": "dead",
        "node": {"name": "", "port": 8000},
        "previous": None,
        "attempts": [{"reason": ""}],
        "withheld": ["node.name", "attempts[0].reason"],
    }


@pytest.mark.parametrize("text", ["web1", json.dumps({"zone": {"rack": {"row": 1}}}), "100 % {x}", "#1", "a } } b"])
def test_other_text_is_left_alone(text: str) -> None:
    assert withhold_templates({"private_data": text}) == {"private_data": text, "withheld": []}


def test_the_original_is_not_changed() -> None:
    event = {"node": {"name": "{{ x }}"}}
    withhold_templates(event)
    assert event == {"node": {"name": "{{ x }}"}}
