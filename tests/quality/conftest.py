# SPDX-License-Identifier: MIT
"""The collection as others get it: built, and installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from quality_tools import ROOT, Tools


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection's artifact, built from this checkout."""
    directory = tmp_path_factory.mktemp("artifact")
    subprocess.run([ROOT / ".ci" / "collection", directory], cwd=ROOT, check=True, timeout=100)
    (built,) = directory.glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def collections(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the artifact installed, for ANSIBLE_COLLECTIONS_PATH."""
    directory = tmp_path_factory.mktemp("collections")
    Tools(directory).check(
        "ansible-galaxy", "collection", "install", "--offline", "--collections-path", directory, artifact
    )
    return directory


@pytest.fixture(scope="session")
def installed(collections: Path) -> Path:
    """The installed collection."""
    return collections / "ansible_collections" / "xdp_gossip" / "fleet"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout to play with, where Ansible finds it as a collection."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    directory = tmp_path / "checkout" / "ansible_collections" / "xdp_gossip" / "fleet"
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory
