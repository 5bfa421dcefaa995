# SPDX-License-Identifier: MIT
"""The role ``agent`` without a host: its variables are stated alike everywhere, and all are used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
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


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"tokens": [{"name": "ci"}]}, 0),
        ({"tokens": [{"name": "ci"}], "socket_rights": [{"user": "bob"}], "audit_file": "/var/lib/x"}, 0),
        ({"token_file": ""}, 0),
        ({"tokens": [{"name": "ci"}], "ui": True}, 1),
        ({"listen": "198.18.0.11:8002"}, 1),
    ],
)
def test_a_change_of_tokens_alone_is_a_reload(changed: dict[str, object], status: int) -> None:
    """The module ``xdp_gossip_host`` restarts the agent if its script ends with 1."""
    source = (ROLE.parents[1] / "plugins/module_utils/_host_files.py").read_text()
    script = source.partition('_COMPARE = """')[2].partition('"""')[0]
    reloadable = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__xdp_gossip_reloadable"]
    former = {"cluster": "default", "api": {"socket": "/run/s", "listen": "", "token_file": "/etc/api.token"}}
    new = {**former, "api": {**former["api"], **changed}}  # type: ignore[dict-item]
    question = json.dumps([yaml.safe_dump(former), yaml.safe_dump(new), reloadable])
    done = subprocess.run([sys.executable, "-c", script], input=question.encode(), timeout=60, check=False)
    assert done.returncode == status
