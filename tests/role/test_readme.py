# SPDX-License-Identifier: MIT
"""The tables of variables in the roles' READMEs are those of the specification, and a difference is told."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "role_readme"


def load() -> ModuleType:
    """The script, which has no suffix, as a module."""
    loader = importlib.machinery.SourceFileLoader("role_readme", str(SCRIPT))
    spec = importlib.util.spec_from_loader("role_readme", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


role_readme = load()


def test_the_tables_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_stale_table_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    role = tmp_path / "roles" / "example"
    (role / "meta").mkdir(parents=True)
    (role / "defaults").mkdir()
    option = {"description": ["What O(example_a) is. See V(x)."], "choices": ["x", "y"]}
    specification = {"argument_specs": {"main": {"options": {"example_a": option}}}}
    (role / "meta/argument_specs.yml").write_text(yaml.safe_dump(specification))
    (role / "defaults/main.yml").write_text("example_a: x\n")
    readme = role / "README.md"
    readme.write_text(f"before\n{role_readme.BEGIN}\nold\n{role_readme.END}\nafter\n")
    monkeypatch.setattr(role_readme, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["role_readme", "--check"])
    assert role_readme.main() == 1
    assert "roles/example/README.md: its variables are out of date" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["role_readme"])
    assert role_readme.main() == 0
    row = "| `example_a` | `x` | What `example_a` is. See `x`. One of `x`, `y`. |"
    assert f"|---|---|---|\n{row}\n{role_readme.END}\nafter\n" in readme.read_text()
    readme.write_text("no place\n")
    assert role_readme.main() == 1
    assert "expected the lines" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["agent", "lab"])
def test_every_default_has_a_specification_and_the_other_way_round(role: str) -> None:
    options = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text())
    described = options["argument_specs"]["main"]["options"]
    assert set(described) == set(defaults)
    for name, option in described.items():
        if "default" in option:
            assert option["default"] == defaults[name], name


def test_variables_without_a_partner_are_named() -> None:
    with pytest.raises(role_readme.ReadmeError, match="differ: b, c"):
        role_readme.rows({"a": {"description": "A."}, "b": {"description": "B."}}, {"a": 1, "c": 2})


@pytest.mark.parametrize(
    ("default", "shown"),
    [("", ""), (True, "`true`"), (0, "`0`"), ([], "`[]`"), ({}, "`{}`"), (["a", 1], "`[a, 1]`"), ("x" * 61, "see")],
)
def test_defaults_as_markdown(default: Any, shown: str) -> None:
    assert role_readme.value(default).startswith(shown)


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
