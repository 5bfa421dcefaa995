# SPDX-License-Identifier: MIT
"""One fleet for each plane, shared by the tests, each of which leaves it settled."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.planes.fleet import PLANES, Fleet

CYCLE, TIMEOUT = 0.3, 2.5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need root."""
    for item in items:
        item.add_marker(pytest.mark.root)
        if os.geteuid():
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="module", params=PLANES)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Four agents that agree, on one of the planes."""
    with Fleet(request.param, 4, cycle=CYCLE, timeout=TIMEOUT) as made:
        made.start()
        made.settled()
        yield made


@pytest.fixture(autouse=True)
def logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """The agents' logs in the report of a test that fails; the next one finds all agents running and agreed."""
    yield
    if "fleet" not in request.fixturenames:
        return
    made: Fleet = request.getfixturevalue("fleet")
    print(made.show())
    absent = [host for host in made if not host.running]
    made.start(absent)
    made.settled(30)
