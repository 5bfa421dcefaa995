# SPDX-License-Identifier: MIT
"""One world for the tests that leave it as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.recovery.world import NATIVE, World


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


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Logs in the report of a failure; the next test finds all agents in their best mode."""
    yield
    if "world" not in request.fixturenames:
        return
    made: World = request.getfixturevalue("world")
    print(made.show())
    for host in made:
        made.best(host, NATIVE)
    made.settled(30)
