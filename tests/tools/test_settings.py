# SPDX-License-Identifier: MIT
"""A setting is declared once (``core/settings.py``); readers, documentation and role agree with the declaration."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import importlib.util
import inspect
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from xdp_gossip import AsyncNodeList
from xdp_gossip.config.agent import NODE, AgentConfig, ConfigError, parse
from xdp_gossip.config.settings import NodeSettings, rules
from xdp_gossip.core.settings import Knob, file_keys, knobs
from xdp_gossip.store.statefile import HISTORY

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "tables"
ROLE = ROOT / "roles" / "agent"
BASE = {"node": {"addr": "198.18.0.11"}, "allow_insecure": True}


def load() -> ModuleType:
    """The script, which has no suffix, as a module."""
    loader = importlib.machinery.SourceFileLoader("tables", str(SCRIPT))
    spec = importlib.util.spec_from_loader("tables", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def declared() -> Iterator[tuple[str, Knob]]:
    """Every setting of ``agent.yml`` as ``limits.document``, and its declaration."""
    yield from ((f"node.{name}", knob) for name, knob in NODE.items())
    for key, name in file_keys(AgentConfig).items():
        knob = knobs(AgentConfig)[name]
        if dataclasses.is_dataclass(knob.default):
            inner = knobs(type(knob.default))
            yield from ((f"{key}.{name}", inner[field]) for name, field in file_keys(type(knob.default)).items())
        else:
            yield key, knob


SETTINGS = dict(declared())
NUMBERS = {
    key: knob for key, knob in SETTINGS.items() if knob.kind in (int, float) and not knob.words and not knob.choices
}


def agent_yml(key: str, value: object) -> AgentConfig:
    """A configuration with this one setting."""
    section, _, name = key.rpartition(".")
    inner: dict[str, Any] = {**BASE.get(section, {}), name: value} if section else {}  # type: ignore[dict-item]
    return parse(yaml.safe_dump({**BASE, **({section: inner} if section else {key: value})}), "agent.yml")


def held(config: AgentConfig, key: str) -> Any:
    """What a configuration says."""
    section, _, name = key.rpartition(".")
    return getattr(getattr(config, section) if section else config, name)


# -- the declarations --------------------------------------------------------------------------------------------


def test_every_field_of_a_node_is_declared_and_its_default_is_allowed() -> None:
    assert list(knobs(NodeSettings)) == [field.name for field in dataclasses.fields(NodeSettings)]
    for wire in ("native", "pekonode"):
        for name, knob in rules(NodeSettings, wire, "TCP").items():
            if not knob.words:
                assert knob.check(name, knob.default) == knob.default, name
    for key, knob in SETTINGS.items():
        assert knob.doc and not knob.doc.endswith("."), key


def test_a_range_in_agent_yml_is_within_that_of_the_library() -> None:
    for key, knob in NUMBERS.items():
        least, most = knob.agent_range
        assert knob.least <= least < most <= knob.most, key
        assert least <= knob.agent_default <= most or (knob.auto and knob.agent_default == 0), key


def test_numbers_carry_their_unit() -> None:
    assert not [key for key, knob in NUMBERS.items() if not knob.unit and key != "node.port"]


# -- who reads them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", NUMBERS)
def test_agent_yml_takes_the_declared_range(key: str) -> None:
    knob = NUMBERS[key]
    step = 1 if knob.kind is int else 1e-6
    least, most = (knob.kind(edge) for edge in knob.agent_range)
    for value in (least, most):
        if (key, value) == ("timeout", least):
            continue  # it has to be above the cycle, too
        assert held(agent_yml(key, value), key) == value
    wrong = [least - step, most * 1.01 if knob.kind is float else most + 1, math.nan, "1", True, [least]]
    for value in [*wrong, *([] if knob.auto else ["auto"]), *([] if knob.never else ["never"])]:
        with pytest.raises(ConfigError, match=rf"^agent\.yml: {re.escape(key)}: expected "):
            agent_yml(key, value)
    if knob.auto:
        assert held(agent_yml(key, "auto"), key) == 0
    if knob.never:
        assert held(agent_yml(key, "never"), key) == math.inf


def test_agent_yml_has_the_declared_defaults() -> None:
    config = parse(yaml.safe_dump(BASE), "agent.yml")
    for key, knob in SETTINGS.items():
        if not (knob.words or knob.secret) and key not in ("allow_insecure", "node.name"):
            assert held(config, key) == knob.agent_default, key
    assert config.timeout_cycles == knobs(NodeSettings)["timeout_cycles"].agent_default


def test_the_library_takes_every_setting() -> None:
    parameters = dict(inspect.signature(AsyncNodeList).parameters)
    section = {"dataplane": NodeSettings.dataplane.directory, "allow": NodeSettings.dataplane.allow}
    assert set(parameters) == set(knobs(NodeSettings)) | {"allow", "rng"}
    for name, parameter in parameters.items():
        assert f"``{name}``" in inspect.getdoc(AsyncNodeList), name
        if name not in ("rng", "state_dir"):  # None for none
            expected = section[name] if name in section else knobs(NodeSettings)[name].default
            assert parameter.default == expected, name


def test_a_store_that_was_told_nothing_keeps_as_many_versions() -> None:
    assert knobs(NodeSettings)["history"].default == HISTORY


# -- what tells of them ------------------------------------------------------------------------------------------


def test_the_tables_of_the_documentation_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "-B", str(SCRIPT), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_stale_table_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    script = load()
    pages = script.pages()
    for name in pages:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text().replace("| `amount` |", "| `amuont` |"))
    monkeypatch.setattr(script, "pages", lambda: pages)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    assert script.main() == 1
    assert "docs/operations.md: its tables are out of date: run .ci/tables" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["tables"])
    assert script.main() == 0
    assert all((tmp_path / name).read_text() == (ROOT / name).read_text() for name in pages)
    (tmp_path / "docs/toolkit.md").write_text("no place")
    assert script.main() == 1


#: What the example has to fill in, or writes in another form: the defaults of these are no values to write down.
_EXAMPLE = {"node.addr", "node.name", "secret_key_file", "keys", "seeds", "api.tls.cert", "api.tls.key"}


def test_the_example_of_the_documentation_has_every_key_and_its_default() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    example = re.search(r"```yaml\n(cluster: default.*?)```", text, re.S)
    assert example is not None
    given = yaml.safe_load(example[1])
    for key, knob in SETTINGS.items():
        if key in _EXAMPLE:
            continue
        section, _, name = key.rpartition(".")
        value = (given[section] if section else given)[name]
        default = "auto" if knob.auto and not knob.agent_default else knob.agent_default
        assert value == (list(default) if isinstance(default, tuple) else "" if default is None else default), key


# -- the role ----------------------------------------------------------------------------------------------------

PREFIX = "xdp_gossip_agent_"
#: Variables that are the role's own although a setting has their name: it makes the setting from them.
_OWN = {
    *("addr", "name", "listen_addr", "private_data", "seeds", "secret_key_file", "keys"),
    *("api_token_file", "api_tls_cert", "api_tls_key"),
}
_TYPES = {bool: {"bool"}, int: {"int"}, float: {"int", "float"}, str: {"str"}, tuple: {"list"}}


def variables() -> dict[str, tuple[Knob, dict[str, Any]]]:
    """Of the role, what sets a setting: its declaration and the variable's."""
    specification = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())
    options = specification["argument_specs"]["main"]["options"]
    found = {}
    for key, knob in SETTINGS.items():
        name = key.removeprefix("node.").replace(".", "_")
        if PREFIX + name in options:
            found[name] = (knob, options[PREFIX + name])
    return found


VARIABLES = variables()


def words_of(option: dict[str, Any]) -> str:
    """A variable's description."""
    text = option["description"]
    return text if isinstance(text, str) else " ".join(text)


def test_the_role_has_the_settings_that_an_operator_changes() -> None:
    assert len(VARIABLES) >= 25 and _OWN <= set(VARIABLES)
    assert {"amount", "cycle", "history", "log_level", "dataplane_allow", "tombstone_grace"} <= set(VARIABLES)


@pytest.mark.parametrize("name", sorted(set(VARIABLES) - _OWN))
def test_a_variable_of_the_role_is_as_declared(name: str) -> None:
    knob, option = VARIABLES[name]
    automatic = bool(knob.auto and not knob.agent_default)
    assert option["type"] in ({"raw"} if automatic else _TYPES[knob.kind])
    default = option["default"]
    assert default == ("auto" if automatic else list(knob.agent_default) if knob.kind is tuple else knob.agent_default)
    if knob.choices:
        assert option["choices"] == list(knob.agent_choices)
    assert ("choices" in option) == bool(knob.choices)
    words = words_of(option)
    if knob.auto:
        assert f"({load().agent_auto(knob)})" in words
    if knob.unit == "seconds":
        assert words.startswith("Seconds ")


@pytest.mark.parametrize("name", VARIABLES)
def test_a_bound_that_a_description_names_is_the_declared_one(name: str) -> None:
    knob, option = VARIABLES[name]
    words = words_of(option)
    if found := re.search(r"(\d+) or more", words):
        assert int(found[1]) == knob.agent_range[0]
    if (found := re.search(r"(\d+) at most|at most (\d+) bytes", words)) and not knob.words:
        assert int(found[1] or found[2]) == knob.agent_range[1]


def test_a_bound_that_the_role_checks_is_the_declared_one() -> None:
    """In ``vars/main.yml``, with the text that it fails with; also what a reload is for, and defaults not written."""
    text = (ROLE / "vars" / "main.yml").read_text()
    checked = set()
    for name, rule in re.findall(rf"\{{'name': '{PREFIX}(\w+)',(.*?)\}}", text, re.S):
        if name not in VARIABLES or VARIABLES[name][0].words or name not in rule:
            continue
        least, most = VARIABLES[name][0].agent_range
        expected = rule.partition("'expected':")[2]
        if found := re.search(r">= (\d+), ", rule):
            assert int(found[1]) == least and f"'{least:g} " in expected, name
            checked.add(name)
        if found := re.search(r"in range\((\d+), (\d+)\)", rule):
            assert (int(found[1]), int(found[2]) - 1) == (least, most) and f"from {least} to {most}" in expected, name
            checked.add(name)
    assert checked == {"port", "history", "tombstone_grace"}
    assert f"length <= {NODE['private_data'].agent_range[1]}" in text
    reloadable = yaml.safe_load(text)["__xdp_gossip_reloadable"]
    blanked = {f"{key}.{inner}" if inner else key for key in reloadable for inner in (reloadable[key] or [""])}
    assert blanked == {key for key, knob in SETTINGS.items() if knob.agent.reload and not key.startswith("log.")} | {
        "log"
    }
    left_out = dict(re.findall(rf"\{{\}} if {PREFIX}(\w+) \| int == (\d+) else", text))
    assert left_out == {name: f"{VARIABLES[name][0].agent_default:g}" for name in ("history", "tombstone_grace")}
