# SPDX-License-Identifier: MIT
"""The programs, compiled once for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.harness import Plane
from tests.bpf.loader_world import here, incumbent, light  # noqa: F401
from tests.bpf.wire import Wire, wire


@pytest.fixture(scope="session")
def plane() -> Plane:
    """The compiled programs. Tests reset what is in the maps."""
    return Plane()


@pytest.fixture(scope="session")
def link() -> Iterator[Wire]:
    """A wire to send into."""
    with wire() as made:
        yield made
