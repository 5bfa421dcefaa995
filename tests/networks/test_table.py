# SPDX-License-Identifier: MIT
"""docs/networks.md says what the rows assert, row by row."""

from __future__ import annotations

from tests.networks.rows import ROWS
from tests.support.process import ROOT


def test_the_documented_table_is_the_tested_one() -> None:
    text = (ROOT / "docs" / "networks.md").read_text()
    section = text.partition("## Rows\n")[2].partition("\n## ")[0]
    documented = [
        tuple(cell.strip() for cell in line.split("|")[1:3])
        for line in section.splitlines()
        if line.startswith("| ") and not line.startswith("| row |")
    ]
    assert documented == [(row.name, row.mode) for row in ROWS]
