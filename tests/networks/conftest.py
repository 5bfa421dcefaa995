# SPDX-License-Identifier: MIT
"""One fleet for each row of the table, shared by what is asserted of the row."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.networks.rows import ROWS
from tests.networks.world import Row, World, missing_types, params


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need root."""
    for item in items:
        item.add_marker(pytest.mark.root)
        if os.geteuid():
            item.add_marker(pytest.mark.skip(reason="needs root"))


#: Names of rows with ";" between them; all if empty.
_ASKED = os.environ.get("XDP_GOSSIP_NETWORK_ROWS", "")


@pytest.fixture(scope="module", params=params([row for row in ROWS if not _ASKED or row.name in _ASKED.split(";")]))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The hosts of the row that agree."""
    row: Row = request.param
    lacking = missing_types(row.needs)
    if lacking:
        pytest.skip(f"{row.name}: this kernel has no {', '.join(lacking)} interfaces")
    with World(row) as made:
        made.start()
        try:
            made.settled(30)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{made.show()}") from error
        yield made
