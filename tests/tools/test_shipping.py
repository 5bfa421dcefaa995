# SPDX-License-Identifier: MIT
"""What tests take for the rule of build_ignore; tests/quality/test_release.py holds the built artifact to it."""

from __future__ import annotations

import pytest

from tests.shipping import ships


@pytest.mark.parametrize("path", ["README.md", "roles/agent", "roles/agent/tasks/main.yml", "plugins/modules/x.py"])
def test_what_users_need_ships(path: str) -> None:
    assert ships(path)


@pytest.mark.parametrize(
    "path",
    [
        *("tests", "tests/conftest.py", ".ci/run", ".github/workflows/ci.yml", "roles/lab/tasks/main.yml"),
        *("playbooks/demo.yml", "agent/x/__pycache__/y.pyc", "changelogs/fragments/.gitkeep"),
    ],
)
def test_what_developers_need_does_not(path: str) -> None:
    assert not ships(path)
