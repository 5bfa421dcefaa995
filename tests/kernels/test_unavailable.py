# SPDX-License-Identifier: MIT
"""A machine without the packages of other distributions skips, and says why; CI does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels import distributions
from tests.kernels.conftest import skipped_where_unavailable
from tests.kernels.distributions import Distribution, Unavailable, kernel


def test_a_suite_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distributions, "CACHE", tmp_path)
    monkeypatch.setattr(distributions, "_mirror", lambda fixes=False: f"file://{tmp_path}/nothing")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"stock kernels: apt-get .* status"):
        with skipped_where_unavailable():
            kernel(Distribution("nosuch", "0"))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(Unavailable), skipped_where_unavailable():
        kernel(Distribution("nosuch", "0"))
    # What was begun is not taken for a kernel the next time.
    assert not [path for path in tmp_path.glob("kernel-nosuch*") if path.is_dir()]
