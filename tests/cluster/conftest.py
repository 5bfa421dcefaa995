# SPDX-License-Identifier: MIT
"""What all acceptance tests share: a place for measured figures, shown at the end of the run."""

from __future__ import annotations

from typing import Any, Callable

import pytest

_FIGURES: list[str] = []


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """``figure(what, value)`` notes a measurement, for the terminal and for the report file."""

    def note(what: str, value: str) -> None:
        record_property(what, value)
        _FIGURES.append(f"{what}: {value}")

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured."""
    if _FIGURES:
        terminalreporter.section("measured")
        for line in _FIGURES:
            terminalreporter.line(line)
