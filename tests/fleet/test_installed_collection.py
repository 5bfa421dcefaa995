# SPDX-License-Identifier: MIT
"""The built collection, installed, and stripped of all that Ansible's rules do not let it rely on.

"What is called by its FQCN may use only meta/, plugins/, roles/ and playbooks/, and works when every other directory is
deleted": Ansible's collection requirements, "Other directories".
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shipping import ships

ROOT = Path(__file__).resolve().parents[2]
KEPT = {"meta", "plugins", "roles", "playbooks"}
#: Plugin directory -> what ansible-doc calls that kind.
KINDS = {"inventory": "inventory", "lookup": "lookup", "modules": "module"}

pytestmark = pytest.mark.timeout(300)


def playbooks() -> list[str]:
    return sorted(file.stem for file in (ROOT / "playbooks").glob("*.yml") if ships(f"playbooks/{file.name}"))


def plugins() -> list[tuple[str, str]]:
    return sorted(
        (kind, file.stem)
        for folder, kind in KINDS.items()
        for file in (ROOT / "plugins" / folder).glob("*.py")
        if not file.stem.startswith("_")
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact, as `make collection` builds it."""
    output = tmp_path_factory.mktemp("artifact")
    subprocess.run([ROOT / ".ci/collection", output], check=True, timeout=120)
    (built,) = output.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def home(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose only collection is the stripped one."""
    home = tmp_path_factory.mktemp("controller")
    ansible(home, "ansible-galaxy", "collection", "install", "--no-deps", "--offline", str(artifact))
    for entry in collection(home).iterdir():
        if entry.is_dir() and entry.name not in KEPT:
            shutil.rmtree(entry)
    assert {entry.name for entry in collection(home).iterdir() if entry.is_dir()} == KEPT
    return home


def collection(home: Path) -> Path:
    return home / "collections/ansible_collections/xdp_gossip/fleet"


def ansible(home: Path, *command: str) -> str:
    """Run an Ansible command that sees nothing but the collections of ``home``; returns its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
    environment |= {
        "ANSIBLE_COLLECTIONS_PATH": str(home / "collections"),
        "ANSIBLE_HOME": str(home / "home"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
    }
    done = subprocess.run(
        [str(ROOT / ".cache/venv/ansible/bin" / command[0]), *command[1:]],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_there_is_something_to_test() -> None:
    assert {"deploy", "publish", "verify", "remove"} <= set(playbooks())
    assert {kind for kind, _ in plugins()} == set(KINDS.values())


def test_the_release_inside_is_the_one_that_is_deployed(artifact: Path, tmp_path: Path) -> None:
    """The builder, which comes along with the agent's sources, is not run on the controller."""
    ansible(tmp_path, "ansible-galaxy", "collection", "install", "--no-deps", "--offline", str(artifact))
    builder = collection(tmp_path) / "agent/build_release.py"
    assert builder.exists()
    builder.write_text("raise SystemExit('built anew')\n")
    (carried,) = (collection(tmp_path) / "roles/agent/files").glob("xdp-gossip-*.tar.gz")
    module = "xdp_gossip.fleet.xdp_gossip_release"
    shown = ansible(tmp_path, "ansible", "localhost", "--connection", "local", "--module-name", module)
    assert f'"path": "{carried}"' in shown


def test_the_artifact_says_what_galaxy_yml_says(home: Path) -> None:
    said = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    manifest = json.loads((collection(home) / "MANIFEST.json").read_text())["collection_info"]
    for key in ("namespace", "name", "version", "license", "tags", "authors"):
        assert manifest[key] == said[key]


@pytest.mark.parametrize("playbook", playbooks())
def test_playbooks_are_found_by_their_fqcn(home: Path, playbook: str) -> None:
    inventory = home / "hosts.yml"
    inventory.write_text("fleet: {hosts: {a: {ansible_host: 198.18.9.1}, b: {ansible_host: 198.18.9.2}}}\n")
    ansible(home, "ansible-playbook", "-i", str(inventory), f"xdp_gossip.fleet.{playbook}", "--syntax-check")


@pytest.mark.parametrize("kind", sorted(KINDS.values()))
def test_ansible_doc_lists_every_plugin(home: Path, kind: str) -> None:
    listed = json.loads(ansible(home, "ansible-doc", "--type", kind, "--list", "--json", "xdp_gossip.fleet"))
    assert set(listed) == {f"xdp_gossip.fleet.{name}" for its_kind, name in plugins() if its_kind == kind}


@pytest.mark.parametrize(("kind", "name"), plugins())
def test_every_plugin_is_documented(home: Path, kind: str, name: str) -> None:
    fqcn = f"xdp_gossip.fleet.{name}"
    page: dict[str, Any] = json.loads(ansible(home, "ansible-doc", "--type", kind, "--json", fqcn))[fqcn]
    assert page["doc"]["description"]
    assert page["examples"].strip()


@pytest.mark.parametrize(
    "role", [path.name for path in sorted((ROOT / "roles").iterdir()) if ships(f"roles/{path.name}")]
)
def test_every_role_is_documented(home: Path, role: str) -> None:
    fqcn = f"xdp_gossip.fleet.{role}"
    page = json.loads(ansible(home, "ansible-doc", "--type", "role", "--json", fqcn))[fqcn]
    assert page["entry_points"]["main"]["options"]
    assert (collection(home) / "roles" / role / "README.md").is_file()
