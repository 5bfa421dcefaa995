# SPDX-License-Identifier: MIT
"""Kernels come from where an updated host has them: the release and its security fixes."""

from __future__ import annotations

import pytest

from tests.kernels import distributions

RELEASE = "Packages main bookworm mirror:/debian/"
FIXES = "Packages main bookworm-security mirror:/debian-security/"


@pytest.mark.parametrize(
    ("targets", "suite", "expected"),
    [
        ([RELEASE, FIXES], "trixie", ["mirror:/debian/ trixie main", "mirror:/debian-security/ trixie-security main"]),
        (
            [FIXES, RELEASE],
            "bullseye",
            ["mirror:/debian/ bullseye main", "mirror:/debian-security/ bullseye-security main"],
        ),
        ([RELEASE], "trixie", ["mirror:/debian/ trixie main"]),
        # Backports have no fixes of their own: asking for them would fail.
        ([RELEASE, FIXES], "bookworm-backports", ["mirror:/debian/ bookworm-backports main"]),
    ],
)
def test_security_fixes(monkeypatch: pytest.MonkeyPatch, targets: list[str], suite: str, expected: list[str]) -> None:
    monkeypatch.setattr(distributions, "_run", lambda *words: "\n".join(targets))
    lines = distributions._sources(suite).splitlines()
    assert [line.split("] ", 1)[1] for line in lines] == expected
