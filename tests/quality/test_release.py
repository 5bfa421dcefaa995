# SPDX-License-Identifier: MIT
"""A dry run of a release: versions, tags, the change log, what the artifact holds, the agent's archive and its SBOM.

`make release-check` runs this and what Galaxy's importer says of the artifact (test_importer.py). Nothing is changed in
the checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from quality_tools import ROOT, Tools

from tests.shipping import ships

#: All that the artifact may have at its top. What is new there has to be meant for the machines of users.
TOP = {
    *("CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "LICENSES", "MANIFEST.json", "README.md"),
    *("SECURITY.md", "agent", "bpf", "changelogs", "docs", "examples", "extensions", "meta", "playbooks", "plugins"),
    "roles",
}
#: What stays in the checkout, found at any depth.
WORKSHOP = re.compile(r"(?:^|/)(?:\.[^/]+|Makefile|bench|lab|molecule|tests|demo\.yml|__pycache__)(?:/|$)|\.pyc$")
RELEASE = re.compile(r"roles/agent/files/xdp-gossip-[^/]+\.tar\.gz")
DATE = "2026-01-01"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


VERSION: str = load(ROOT / "galaxy.yml")["version"]


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def names(artifact: Path) -> set[str]:
    with tarfile.open(artifact) as archive:
        return {member.name for member in archive if not member.isdir()}


def build_archive(root: Path, output: Path) -> tuple[str, bytes]:
    """The name and the bytes of the agent's release archive, built from a checkout."""
    words = ["/usr/bin/python3", "-I", root / "agent" / "build_release.py", "--output", output]
    done = subprocess.run(words, check=True, capture_output=True, timeout=60)
    path = Path(json.loads(done.stdout)["path"])
    return path.name, path.read_bytes()


def test_every_place_states_the_same_version(artifact: Path) -> None:
    text = (ROOT / "agent" / "xdp_gossip" / "__init__.py").read_text()
    assert re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE) == [VERSION]
    assert max(load(ROOT / "changelogs" / "changelog.yaml")["releases"], key=number) == VERSION
    assert artifact.name == f"xdp_gossip-fleet-{VERSION}.tar.gz"
    (release,) = filter(RELEASE.fullmatch, names(artifact))
    assert Path(release).name.startswith(f"xdp-gossip-{VERSION}")


def test_tags_and_the_version_agree() -> None:
    tags = git("tag", "--list", "v*")
    assert not [tag for tag in tags if not re.fullmatch(r"v[0-9]+\.[0-9]+\.[0-9]+", tag)], (
        "expected tags such as v1.2.3"
    )
    assert not [tag for tag in tags if number(tag[1:]) > number(VERSION)], "a newer version was released already"
    # Whoever checks out a tag gets what it says.
    assert set(git("tag", "--points-at", "HEAD", "--list", "v*")) <= {f"v{VERSION}"}


def test_the_change_log_of_a_dry_run_has_every_fragment_and_every_plugin(tools: Tools, checkout: Path) -> None:
    for role in (checkout / "roles").iterdir():
        if not ships(f"roles/{role.name}"):
            shutil.rmtree(role)
    fragments = {path.name: load(path) for path in (checkout / "changelogs" / "fragments").glob("*.yml")}
    tools.directory = checkout
    assert "ERROR" not in tools.check("antsibull-changelog", "lint")
    tools.check("antsibull-changelog", "release", "--update-existing", "--reload-plugins", "--date", DATE)
    release = load(checkout / "changelogs" / "changelog.yaml")["releases"][VERSION]
    assert str(release["release_date"]) == DATE
    assert set(fragments) <= set(release["fragments"])
    assert not list((checkout / "changelogs" / "fragments").glob("*.yml")), "fragments were left over"
    listed = {entry for entries in release["changes"].values() for entry in entries}
    # Trivial is what no operator notices: the tool drops it.
    changes = [(kind, entries) for fragment in fragments.values() for kind, entries in fragment.items()]
    assert not [entry for kind, entries in changes for entry in entries if kind != "trivial" and entry not in listed]
    if number(VERSION) == (0, 1, 0):
        # All of a first release is new.
        modules = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
        assert {entry["name"] for entry in release["modules"]} == modules
        assert {entry["name"] for entry in release["objects"]["role"]} == {"agent", "monitoring"}


def test_the_artifact_holds_what_users_need_and_nothing_of_the_workshop(artifact: Path) -> None:
    shipped = names(artifact)
    assert sorted({name.split("/")[0] for name in shipped} - TOP) == []
    assert not [name for name in shipped if WORKSHOP.search(name)]
    made = {name for name in shipped if RELEASE.fullmatch(name)} | {"FILES.json", "MANIFEST.json"}
    assert len(made) == 3
    tracked = git("ls-files", "--cached", "--others", "--exclude-standard")
    assert shipped - made == {name for name in tracked if ships(name) and (ROOT / name).is_file()} - {"galaxy.yml"}


def test_the_agents_archive_is_the_same_whoever_builds_it_and_when(
    artifact: Path, checkout: Path, tmp_path: Path
) -> None:
    name, built = build_archive(ROOT, tmp_path / "one")
    for path in checkout.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & 0o700)
    assert build_archive(checkout, tmp_path / "other") == (name, built)
    with tarfile.open(artifact) as archive:
        inside = archive.extractfile(f"roles/agent/files/{name}")
        assert inside is not None
        assert hashlib.sha256(inside.read()).hexdigest() == hashlib.sha256(built).hexdigest()


def test_the_sbom_describes_the_archive_and_is_the_same_whoever_writes_it(checkout: Path, tmp_path: Path) -> None:
    written = []
    for root, output in ((ROOT, tmp_path / "one"), (checkout, tmp_path / "other")):
        archive = output / build_archive(root, output)[0]
        script = ["/usr/bin/python3", "-I", root / "agent" / "build_sbom.py"]
        subprocess.run([*script, archive], check=True, capture_output=True, timeout=60)
        subprocess.run([*script, "--check", archive], check=True, capture_output=True, timeout=60)
        written.append((output / f"xdp-gossip-{VERSION}.cdx.json").read_text())
    assert written[0] == written[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written[0]) is None
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    assert subprocess.run([*script, "--check", archive], capture_output=True, timeout=60, check=False).returncode == 1


@pytest.mark.parametrize("name", ["tests/conftest.py", "docs/.cache/x", "roles/lab/files/lab.py", "playbooks/demo.yml"])
def test_what_must_not_ship_would_be_noticed(name: str) -> None:
    assert WORKSHOP.search(name)
    assert not WORKSHOP.search("plugins/modules/xdp_gossip_info.py")
