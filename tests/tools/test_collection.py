# SPDX-License-Identifier: MIT
"""The collection's parts know of each other: metadata, documentation and README name every plugin, and only those."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

from ansible_env import CORES  # noqa: E402

from tests.shipping import ships  # noqa: E402

NAME = "xdp_gossip.fleet"
#: Directories of plugins that users name in their playbooks; the others serve these.
KINDS = ("modules", "inventory", "lookup")
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
#: Parts of the role `agent`: they have no options of a connection, which the action group would give them.
PARTS = tuple(
    f"xdp_gossip_{name}"
    for name in ("gate", "host", "key_gate", "preflight", "release", "rotation", "sealing_key", "secrets", "signers")
)
CLIENTS = [name for name in MODULES if name not in PARTS]
PLUGINS = sorted(path for kind in KINDS for path in (ROOT / "plugins" / kind).glob("*.py"))
EVENT_SOURCES = sorted((ROOT / "extensions" / "eda" / "plugins" / "event_source").glob("*.py"))


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def block(path: Path, name: str) -> Any:
    """What is in a variable such as DOCUMENTATION of a plugin; of several YAML documents, the first."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [name]:
            return next(yaml.safe_load_all(ast.literal_eval(node.value)))
    raise AssertionError(f"{path.relative_to(ROOT)}: expected {name}, found none")


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_every_module_with_a_connection_is_in_the_action_group() -> None:
    groups = load("meta/runtime.yml")["action_groups"]
    assert {group: sorted(modules) for group, modules in groups.items()} == {"xdp_gossip": CLIENTS}
    for name in PARTS:
        extended = block(ROOT / "plugins" / "modules" / f"{name}.py", "DOCUMENTATION")["extends_documentation_fragment"]
        assert f"{NAME}.attributes" in extended
        assert not {f"{NAME}.connection", f"{NAME}.attributes.action_group"} & set(extended)


@pytest.mark.parametrize("name", CLIENTS)
def test_every_module_documents_the_action_group(name: str) -> None:
    documentation = block(ROOT / "plugins" / "modules" / f"{name}.py", "DOCUMENTATION")
    fragments = {f"{NAME}.{name}" for name in ("attributes", "attributes.action_group", "connection")}
    assert fragments <= set(documentation["extends_documentation_fragment"])
    assert "action_group" not in documentation.get("attributes", {})


def test_the_documented_action_group_is_the_one_there_is() -> None:
    text = (ROOT / "plugins" / "doc_fragments" / "attributes.py").read_text()
    (documented,) = re.findall(r"  action_group:\n(?:    .*\n)*?    membership:\n((?:      - .*\n)+)", text)
    assert yaml.safe_load(documented) == [f"{NAME}.{group}" for group in load("meta/runtime.yml")["action_groups"]]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_plugin_says_since_when_and_how(path: Path) -> None:
    documentation = block(path, "DOCUMENTATION")
    current = version(load("galaxy.yml")["version"])
    assert version(documentation["version_added"]) <= current
    for name, option in documentation.get("options", {}).items():
        added = option.get("version_added", documentation["version_added"])
        assert version(documentation["version_added"]) <= version(added) <= current, name
    # Tasks, or what an inventory file holds.
    assert block(path, "EXAMPLES")
    if path.parent.name != "inventory":
        assert block(path, "RETURN")


def test_readme_lists_all_that_users_name_and_nothing_else() -> None:
    text = (ROOT / "README.md").read_text()
    table = text.split("## Included content", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    names = [name for row in rows for name in re.findall(r"`([a-z_.]+)`", row.split("|")[1])]
    # Only the first of several names in a row is a full one.
    listed = {name.removeprefix(f"{NAME}.") for name in names}
    expected = {path.stem for path in PLUGINS}
    expected |= {path.parent.name for path in (ROOT / "roles").glob("*/meta") if ships(f"roles/{path.parent.name}")}
    expected |= {path.stem for path in (ROOT / "playbooks").glob("*.yml") if ships(f"playbooks/{path.name}")}
    expected |= {path.stem for path in EVENT_SOURCES}
    assert listed == expected


def test_what_ships_names_nothing_that_stays_in_the_checkout() -> None:
    """The role and the playbook of the demo, by their names or in a link."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    ).stdout.split("\0")
    named = re.compile(rf"{re.escape(NAME)}\.(?:lab|demo)\b|\broles/lab\b|\bplaybooks/demo\b")
    texts = {name: ROOT / name for name in listed if name and ships(name) and (ROOT / name).is_file()}
    naming = [name for name, path in texts.items() if named.search(path.read_text(encoding="utf-8", errors="ignore"))]
    assert "README.md" in texts and "roles/lab/README.md" not in texts
    assert set(naming) <= {"galaxy.yml"}


def test_requirement_and_tested_versions_are_the_same() -> None:
    (requirement,) = re.findall(r"^>=([0-9]+\.[0-9]+)\.0$", load("meta/runtime.yml")["requires_ansible"])
    fixed = [core for core in CORES if re.fullmatch(r"[0-9.]+", core.name)]
    assert min((core.name for core in fixed), key=version) == requirement
    for core in fixed:
        assert core.requirement == f"ansible-core~={core.name}.0"


def steps() -> set[str]:
    """The targets that `make test` runs."""
    shown = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    (stages,) = re.findall(r"^/usr/bin/python3 \.ci/steps\.py (.*)$", shown, re.MULTILINE)
    return set(re.split(r"[ ,/]", stages))


def test_make_test_has_all_its_parts() -> None:
    makefile = (ROOT / "Makefile").read_text()
    section = makefile.split("##@ Parts of `make test`", 1)[1].split("##@ ", 1)[0]
    parts = set(re.findall(r"^([a-z-]+):.*## ", section, re.MULTILINE))
    # These are single pieces of the steps below.
    parts -= {"ansible-units", "sanity", "molecule"}
    parts |= {f"ansible-test-{core.name}" for core in CORES}
    parts |= {f"molecule-{path.parent.name}" for path in (ROOT / "molecule").glob("*/molecule.yml")}
    assert steps() == parts


def test_nothing_is_exempt_from_a_rule() -> None:
    assert list((ROOT / "tests").glob("sanity/ignore*")) == []
    settings = load(".ansible-lint")
    assert settings["profile"] == "production"
    # The rule wants the role's name alone before a variable; ours carry the collection's too.
    assert settings["skip_list"] == ["var-naming[no-role-prefix]"] and settings["warn_list"] == []
    # What has no tasks in it, or none of ours.
    assert settings["exclude_paths"] == [".cache/", ".ci/", "agent/", "changelogs/", "docs/"]


def test_event_sources_are_announced() -> None:
    announced = [entry["args"]["ext_dir"] for entry in load("meta/extensions.yml")["extensions"]]
    assert announced == sorted({str(path.parent.relative_to(ROOT / "extensions")) for path in EVENT_SOURCES})


def test_every_role_has_a_readme_and_its_variables_described() -> None:
    for role in (ROOT / "roles").glob("*/tasks"):
        assert (role.parent / "README.md").is_file(), role.parent
        assert (role.parent / "meta" / "argument_specs.yml").is_file(), role.parent
