# SPDX-License-Identifier: MIT
"""The checkout as an installed collection, in a directory of this run: for ansible-rulebook, and for these tests."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Made when pytest reads this file, because the test modules import the collection at their tops.
_DIRECTORY = tempfile.TemporaryDirectory(prefix="xdp-gossip-eda-")
COLLECTIONS = Path(_DIRECTORY.name)
(COLLECTIONS / "ansible_collections" / "xdp_gossip").mkdir(parents=True)
(COLLECTIONS / "ansible_collections" / "xdp_gossip" / "fleet").symlink_to(ROOT)
sys.path.insert(0, str(COLLECTIONS))


@pytest.fixture(scope="session")
def collections() -> Iterator[Path]:
    """The directory to name in ANSIBLE_COLLECTIONS_PATH."""
    yield COLLECTIONS


def pytest_unconfigure() -> None:
    """Remove it."""
    _DIRECTORY.cleanup()
