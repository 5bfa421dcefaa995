# SPDX-License-Identifier: MIT
"""The tree as a whole: licence headers, links between the documents, scripts that can be run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

GPL = ("plugins/", "extensions/", "roles/", "playbooks/", "molecule/")
CODE = (".py", ".yml", ".yaml", ".j2", ".c", ".h", ".sh", ".toml", ".mk")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def tracked() -> list[str]:
    """What git knows or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    return sorted(name for name in listing.decode().split("\0") if name and (ROOT / name).is_file())


def code_files() -> Iterator[str]:
    for name in tracked():
        # The change log tool writes its own state file.
        if name == "changelogs/changelog.yaml":
            continue
        text = (ROOT / name).read_bytes()
        if text and (name.endswith(CODE) or name == "Makefile" or text.startswith(b"#!")):
            yield name


def test_every_code_file_names_its_licence() -> None:
    wrong = []
    for name in code_files():
        head = (ROOT / name).read_text(encoding="utf-8")[:1500]
        expected = "GPL-3.0-or-later" if name.startswith(GPL) else "MIT"
        also = {"GPL-3.0-or-later"} if name.startswith(("galaxy.yml", "meta/", "changelogs/", ".config/")) else set()
        found = re.search(r"SPDX-License-Identifier: (\S+)", head)
        if found is None:
            wrong.append(f"{name}: no SPDX-License-Identifier in its first lines")
        elif found[1] not in {expected, *also}:
            wrong.append(f"{name}: expected {expected}, got {found[1]}")
    assert not wrong, "\n".join(wrong)


def test_every_licence_has_its_text() -> None:
    used = set()
    for name in code_files():
        used |= set(re.findall(r"SPDX-License-Identifier: (\S+)", (ROOT / name).read_text(encoding="utf-8")[:1500]))
    assert used == {file.stem for file in (ROOT / "LICENSES").iterdir()}


def test_scripts_can_be_run() -> None:
    # Ansible sets the mode of what it sends to a host itself.
    wrong = [
        name
        for name in tracked()
        if (ROOT / name).read_bytes().startswith(b"#!")
        and not name.startswith(("plugins/", "roles/"))
        and not os.access(ROOT / name, os.X_OK)
    ]
    assert not wrong, f"a first line for the kernel, but not executable: {wrong}"


def test_ruff_reads_every_script_in_python() -> None:
    scripts = {
        name
        for name in tracked()
        if not name.endswith(".py") and re.match(rb"#!.*\bpython3?\b", (ROOT / name).read_bytes()[:80])
    }
    settings = (ROOT / "pyproject.toml").read_text()
    assert not [name for name in sorted(scripts) if f'"{name}"' not in settings]


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith(".md")])
def test_links_between_documents_hold(name: str) -> None:
    broken = []
    for target in LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        path = target.split("#")[0]
        if path and not re.match(r"[a-z]+:", path) and not ((ROOT / name).parent / path).exists():
            broken.append(target)
    assert not broken
