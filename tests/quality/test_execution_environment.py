# SPDX-License-Identifier: MIT
"""What the collection asks of an execution environment, read by ansible-builder as when it makes an image.

No image is made: that takes a registry. Everything before it is: the build context, and in it the very script that the
image's build runs over the installed collections.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from quality_tools import ROOT, Tools

DEFINITION = """\
version: 3
images:
  base_image:
    name: registry.example.org/base:latest
additional_build_files:
  - src: {artifact}
    dest: artifacts
dependencies:
  ansible_core:
    package_pip: ansible-core>=2.18
  ansible_runner:
    package_pip: ansible-runner
  galaxy:
    collections:
      - name: {artifact}
        type: file
"""


def needs(text: str) -> list[str]:
    """The requirements of a file, without the comments that say where they come from."""
    return sorted(line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip())


def test_what_the_image_build_finds_is_what_the_collection_states(
    tools: Tools, artifact: Path, collections: Path, tmp_path: Path
) -> None:
    (tmp_path / "definition.yml").write_text(DEFINITION.format(artifact=artifact))
    context = tmp_path / "context"
    tools.check("ansible-builder", "create", "--file", "definition.yml", "--context", context)
    assert (context / "_build" / "artifacts" / artifact.name).is_file()
    requirements = yaml.safe_load((context / "_build" / "requirements.yml").read_text())
    assert requirements == {"collections": [{"name": str(artifact), "type": "file"}]}

    introspect = context / "_build" / "scripts" / "introspect.py"
    options = ("--write-bindep=bindep.txt", "--write-pip=requirements.txt")
    output = tools.check("python", introspect, "introspect", collections, *options)
    declared = yaml.safe_load((ROOT / "meta" / "execution-environment.yml").read_text())
    assert list(declared["dependencies"]) == ["system"], "a kind of dependency that this test does not compare"
    system = needs((ROOT / declared["dependencies"]["system"]).read_text())
    assert system
    assert needs((tmp_path / "bindep.txt").read_text()) == system
    # Nothing of Python: plugins and modules use ansible-core alone.
    assert not (tmp_path / "requirements.txt").exists()
    assert yaml.safe_load(output)["python"] == []


def test_a_declared_file_that_is_missing_is_noticed(tools: Tools, checkout: Path) -> None:
    (checkout / "meta" / "ee-bindep.txt").unlink()
    done = tools.run("ansible-builder", "introspect", checkout.parents[2])
    assert done.returncode != 0
    assert "ee-bindep.txt" in done.stdout


@pytest.mark.parametrize(
    ("profile", "package"), [("platform:dpkg", "openssh-client"), ("platform:rpm", "openssh-clients")]
)
def test_system_packages_are_what_each_family_calls_them(profile: str, package: str) -> None:
    lines = needs((ROOT / "meta" / "ee-bindep.txt").read_text())
    assert [line.split()[0] for line in lines if profile in line] == [package]


def test_bindep_reads_the_system_packages(tools: Tools) -> None:
    assert tools.check("bindep", "--list_all", "newline", "--file", ROOT / "meta" / "ee-bindep.txt").split() == [
        "openssh-client"
    ]
