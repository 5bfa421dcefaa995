# SPDX-License-Identifier: MIT
"""The index of docs/architecture.md leads somewhere, and the records of decisions are complete."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from tests.pages import ROOT, page, rows

INDEX = rows(page("architecture.md"), "| question | start at | then |")
RECORDS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


@pytest.mark.parametrize("row", INDEX, ids=[row[0] for row in INDEX])
def test_what_the_index_names_exists(row: list[str]) -> None:
    question, start, then = row
    named = re.findall(r"`([\w./]+\.(?:py|h|yml))(?:: ([\w.]+))?`", f"{start} {then}")
    links = re.findall(r"\]\(([^)]+)\)", f"{start} {then}")
    assert named or links, question
    for path, symbol in named:
        file = file_of(path)
        for part in symbol.split(".") if symbol else ():
            assert re.search(rf"(?m)^ *(?:class|(?:async )?def) {part}\b", file.read_text()), f"{path}: no {part}"
    for link in links:
        target, _, anchor = link.partition("#")
        path = ROOT / "docs" / (target or "architecture.md")
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def file_of(path: str) -> Path:
    """The file of a path from the root of the checkout, or below the package. Raises StopIteration without one."""
    return next(file for file in (ROOT / path, ROOT / "agent" / "xdp_gossip" / path) if file.exists())


def test_the_files_of_the_walks_exist() -> None:
    section = page("architecture.md").split("\n## Three walks\n")[1].split("\n## ")[0]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", section)
    assert len(named) > 15
    for path in named:
        file_of(path)


def anchors(path: Path) -> set[str]:
    """The headings of a page as a link names them."""
    titles = re.findall(r"(?m)^#+ (.+)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_is_short() -> None:
    assert len(INDEX) == 12


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
