# SPDX-License-Identifier: MIT
"""The table of verdicts, packet by packet, on stock kernels: with their distribution's compiler, in their own guest."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.kernels.distributions import BOOKWORM, TRIXIE, Distribution, kernel, root
from tests.kernels.guest import booted
from tests.kernels.matrix import BOOT_SECONDS
from tests.kernels.product import lay_out, lay_out_tests

COMMAND = """
cd product
PYTHONPATH=/run/share/pytest python3 -m pytest -q -rs --junitxml=/run/share/report.xml \\
    tests/bpf/test_verdicts.py
"""


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [BOOKWORM, TRIXIE], ids=lambda each: each.suite)
def test_every_verdict(distribution: Distribution, tmp_path: Path) -> None:
    """The verdicts are those of this machine's kernel, and no test is skipped."""
    share = tmp_path / "guest"
    lay_out(share)
    lay_out_tests(share, ["bpf", "kernel_model.py"])
    with booted(kernel(distribution), root(distribution), share, COMMAND, memory=2048) as guest:
        print(guest.wait(BOOT_SECONDS))
    counted = ET.parse(share / "report.xml").getroot().find("testsuite")
    assert counted is not None
    assert int(counted.attrib["tests"]) > 300
    assert [counted.attrib[name] for name in ("failures", "errors", "skipped")] == ["0", "0", "0"]
