# SPDX-License-Identifier: MIT
"""One world for the tests that leave it as it was."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest

from tests.recovery.world import NATIVE, PATIENCE, World
from tests.support.fleet import eventually


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need root."""
    for item in items:
        item.add_marker(pytest.mark.root)
        if os.geteuid():
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Three agents that agree, on native XDP."""
    with World() as made:
        made.start()
        made.settled()
        yield made


@pytest.fixture(scope="module")
def at_tc() -> Iterator[World]:
    """Three agents that agree, at TC."""
    with World("TC", protocol="TC") as made:
        made.start()
        made.settled()
        yield made


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Logs in the report of a failure; the next test finds all agents in their best mode."""
    yield
    for name, mode in (("world", NATIVE), ("at_tc", "TC")):
        if name in request.fixturenames:
            made: World = request.getfixturevalue(name)
            print(made.show())
            for host in made:
                eventually(functools.partial(made.in_mode, host, mode), PATIENCE)
            made.settled(30)
