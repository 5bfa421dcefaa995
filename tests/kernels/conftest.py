# SPDX-License-Identifier: MIT
"""Where guests can be had; where they cannot, these tests say why, and in CI they fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.kernels.distributions import Unavailable, missing

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need root and QEMU. ``slow`` ones run with `make kernels` alone."""
    # pytest hands over what it collected elsewhere, too.
    here = [item for item in items if HERE in item.path.parents]
    lacking = missing() if here else ""
    assert not lacking or "CI" not in os.environ, f"stock kernels: {lacking}"
    for item in here:
        item.add_marker(pytest.mark.root)
        # Emulation takes its time, and the first run fetches two distributions.
        item.add_marker(pytest.mark.timeout(3000))
        if lacking:
            item.add_marker(pytest.mark.skip(reason=lacking))


@contextlib.contextmanager
def skipped_where_unavailable() -> Iterator[None]:
    """Skip a test whose distribution cannot be fetched, or its guest not be started; in CI, fail."""
    try:
        yield
    except Unavailable as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"stock kernels: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """Fixtures fetch and boot, too."""
    with skipped_where_unavailable():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """See ``skipped_where_unavailable``."""
    with skipped_where_unavailable():
        yield
