# SPDX-License-Identifier: MIT
"""An internal error that nobody expected fails the test in which it happened.

In the test's own process the agent's record tells (``xdp_gossip.common.internal_errors``): a test that causes an
error takes ``RECORD.clear()`` and looks at what it returns. Of agents that are processes their logs tell, below the
test's directory after the test, and below the session's at its end.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE, widen_processes

widen_processes(PATIENCE)

#: How a line of ``internal_errors.Record.add`` begins.
_LINE = b"internal error in "


class _Complaints(logging.Handler):
    """What asyncio says of exceptions that no callback and no task caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line and, if there is one, the exception."""
        error = record.exc_info[1] if record.exc_info else None
        self.texts.append(f"{record.getMessage()}{f': {error!r}' if error else ''}")


@pytest.fixture(autouse=True)
def no_internal_errors(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Fail the test in which the agent recorded an internal error, or asyncio an exception of a callback or task.

    Yields asyncio's complaints: a test that expects one removes it.
    """
    directory = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    _take()  # of a module's fixtures, which fail where they are used
    try:
        yield complaints.texts
    finally:
        logger.removeHandler(complaints)
    _fail([*_take(), *complaints.texts, *(_in_logs(directory) if directory is not None else ())])


@pytest.fixture(autouse=True)
def only_declared_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that counts under a name that is not declared fails the test."""
    module = sys.modules.get("xdp_gossip.core.counters")
    if module is not None:
        monkeypatch.setattr(module.Counters, "strict", True)


@pytest.fixture(autouse=True, scope="session")
def no_internal_errors_in_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same for agents that several tests share."""
    yield
    _fail(_in_logs(tmp_path_factory.getbasetemp()))


def _fail(found: list[str]) -> None:
    if found:
        pytest.fail("internal errors happened:\n" + "\n".join(found), pytrace=False)


def _in_logs(directory: Path) -> list[str]:
    found = []
    for path in [*directory.rglob("log"), *directory.rglob("*.log")]:
        if path.is_file():
            lines = path.read_bytes().splitlines()
            found += [f"{path}: {line.decode(errors='replace')[:300]}" for line in lines if _LINE in line]
    return found


def _take() -> list[str]:
    """The recorded errors, as text; none before the agent was imported (plugins are tested without it)."""
    module = sys.modules.get("xdp_gossip.common.internal_errors")
    if module is None:
        return []
    return [f"{found.task} at {found.place}: {found.error} ({found.count} times)" for found in module.RECORD.clear()]


def pytest_configure(config: pytest.Config) -> None:
    """How long an example of hypothesis takes is the machine's affair.

    CI judges a change, by the same examples each time; new ones are looked for everywhere else.
    """
    if config.pluginmanager.hasplugin("hypothesispytest"):  # ansible-test, which comes by here too, has it not
        import hypothesis

        hypothesis.settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
        hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Widen the time limits of tests, where ``PATIENCE`` says so."""
    if not config.pluginmanager.hasplugin("timeout"):
        return  # of ansible-test, for which nothing but the collection can be imported
    from tests.support.patience import PATIENCE, patient

    if PATIENCE == 1:
        return
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = float(marker.args[0]) if marker is not None else float(config.getini("timeout") or 0)
        if limit:
            item.add_marker(pytest.mark.timeout(patient(limit)), append=False)
