# SPDX-License-Identifier: MIT
"""What .ci/tables writes into the READMEs of roles; tests/tools/test_settings.py asks whether it is up to date."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "tables"


def load() -> ModuleType:
    """The script, which has no suffix, as a module."""
    loader = importlib.machinery.SourceFileLoader("tables", str(SCRIPT))
    spec = importlib.util.spec_from_loader("tables", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


tables = load()


def example(directory: Path, options: dict[str, Any], defaults: str) -> Path:
    """A role with this specification and these defaults."""
    role = directory / "roles" / "example"
    (role / "meta").mkdir(parents=True)
    (role / "defaults").mkdir()
    specification = {"argument_specs": {"main": {"options": options}}}
    (role / "meta/argument_specs.yml").write_text(yaml.safe_dump(specification))
    (role / "defaults/main.yml").write_text(defaults)
    return role


def test_a_table_has_default_meaning_and_choices(tmp_path: Path) -> None:
    option = {"description": ["What O(example_a) is. See V(x) and P(a.b.c#filter)."], "choices": ["x", "y"]}
    _head, row = tables.variables(example(tmp_path, {"example_a": option}, "example_a: x\n"))
    assert row == "| `example_a` | `x` | What `example_a` is. See `x` and `a.b.c`. One of `x`, `y`. |"


@pytest.mark.parametrize("role", ["agent", "lab"])
def test_every_default_has_a_specification_and_the_other_way_round(role: str) -> None:
    options = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text())
    described = options["argument_specs"]["main"]["options"]
    assert set(described) == set(defaults)
    for name, option in described.items():
        if "default" in option:
            assert option["default"] == defaults[name], name


def test_variables_without_a_partner_are_named(tmp_path: Path) -> None:
    options = {"a": {"description": "A."}, "b": {"description": "B."}}
    with pytest.raises(ValueError, match="differ: b, c"):
        list(tables.variables(example(tmp_path, options, "a: 1\nc: 2\n")))


@pytest.mark.parametrize(
    ("default", "shown"),
    [("", ""), (True, "`true`"), (0, "`0`"), ([], "`[]`"), ({}, "`{}`"), (["a", 1], "`[a, 1]`"), ("x" * 61, "see")],
)
def test_defaults_as_markdown(default: Any, shown: str) -> None:
    assert tables.role_default(default).startswith(shown)


def test_every_secret_is_marked() -> None:
    """What takes a secret itself, not the name of a file, must not be shown."""
    options = yaml.safe_load((ROOT / "roles/agent/meta/argument_specs.yml").read_text())
    described = options["argument_specs"]["main"]["options"]
    secret = [
        described["xdp_gossip_agent_secret_key"],
        described["xdp_gossip_agent_api_token"],
        described["xdp_gossip_agent_keys"]["options"]["key"],
    ]
    assert [option.get("no_log") for option in secret] == [True, True, True]
