# SPDX-License-Identifier: MIT
"""The role ``agent`` without a host: its variables are stated alike everywhere, and all are used."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles" / "agent"


def test_every_variable_is_described_and_has_a_default() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    rows = re.findall(r"^\| `(xdp_gossip_agent_\w+)` \|", (ROLE / "README.md").read_text(), re.MULTILINE)
    assert list(options) == rows
    # A bare agent_ would meet the variables of other roles in a play; facts and registered ones are set with it too.
    assert all(name.startswith("xdp_gossip_agent_") for name in options)
    assert set(options) == set(defaults)
    for name, option in options.items():
        literal = not (isinstance(defaults[name], str) and "{{" in defaults[name])
        assert ("default" in option) == literal, (
            f"{name}: a default that is no template belongs into the specification too"
        )
        if literal:
            assert option["default"] == defaults[name], name


def test_every_variable_is_used() -> None:
    texts = [path for part in ("tasks", "templates", "vars") for path in (ROLE / part).iterdir()]
    used = "\n".join(path.read_text() for path in texts)
    defaults = (ROLE / "defaults/main.yml").read_text()
    for name in yaml.safe_load(defaults):
        # One that other defaults are made of is used by them.
        assert re.search(rf"(?<!_)\b{name}\b", used) or defaults.count(name) > 1, f"{name}: expected a use, found none"
