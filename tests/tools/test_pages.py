# SPDX-License-Identifier: MIT
"""The records of decisions are complete."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from tests.pages import ROOT

RECORDS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


@pytest.mark.parametrize("path", RECORDS, ids=[path.stem for path in RECORDS])
def test_a_record_has_a_date_and_three_parts(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    number, title = re.findall(r"^# (\d+)\. (.+)$", lines[0])[0]
    assert path.name.startswith(f"{int(number):04d}-")
    date = datetime.date.fromisoformat(lines[2].removeprefix("Date: "))
    assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Decision", "## Consequences"]
    assert len(lines) <= 50, "a record is short"
    row = f"| [{number}]({path.name}) | {date} | {title} |"
    assert row in (path.parent / "README.md").read_text(encoding="utf-8")


def test_records_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    assert (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8").count("\n| [") == len(RECORDS)
