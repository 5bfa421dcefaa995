# SPDX-License-Identifier: MIT
"""Where guests can be had; where they cannot, these tests say why, and in CI they fail."""

from __future__ import annotations

import os

import pytest

from tests.kernels.distributions import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need root and QEMU. ``long`` ones run with `make kernels` alone."""
    lacking = missing()
    assert not lacking or "CI" not in os.environ, f"stock kernels: {lacking}"
    for item in items:
        item.add_marker(pytest.mark.root)
        # Emulation takes its time, and the first run fetches two distributions.
        item.add_marker(pytest.mark.timeout(3000))
        if lacking:
            item.add_marker(pytest.mark.skip(reason=lacking))
