# SPDX-License-Identifier: MIT
"""The README's table of systems says what is run on each, and each run is compared with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests import systems

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

from pairs import PAIRS  # noqa: E402

TABLE = f"""Text.

{systems.HEAD}
|---|---|---|---|
| Debian 12 | Python 3.11, aiohttp 3.8, cryptography 38 | role on hosts, unit tests | - |
| Ubuntu 22.04 | Python 3.10, aiohttp 3.8, cryptography 3 | choice of packages | unit tests |

More.
"""


def report(directory: Path, *properties: tuple[str, str], outcome: str = "") -> None:
    """A report of one test with these properties."""
    listed = "".join(f'<property name="{name}" value="{value}"/>' for name, value in properties)
    (directory / "target").mkdir(exist_ok=True)
    number = len(list((directory / "target").iterdir()))
    (directory / "target" / f"{number}.xml").write_text(
        f'<testsuites><testsuite><testcase classname="a" name="b"><properties>{listed}</properties>{outcome}'
        "</testcase></testsuite></testsuites>"
    )


WHOLE = (
    ("role on hosts", "Debian 12: Python 3.11, aiohttp 3.8, cryptography 38"),
    ("unit tests", "Debian 12"),
    ("choice of packages", "Ubuntu 22.04"),
    ("something else", "Debian 11"),
)


def test_a_run_that_does_what_the_table_says(tmp_path: Path) -> None:
    report(tmp_path, *WHOLE)
    assert systems.problems(TABLE, tmp_path) == []


def test_what_was_not_run_failed_or_was_skipped(tmp_path: Path) -> None:
    report(tmp_path, *WHOLE[1:3])
    assert systems.problems(TABLE, tmp_path) == ["README.md, Debian 12: role on hosts: not run"]
    assert systems.problems(TABLE, tmp_path, absent=["lab"]) == []
    for outcome in ("<failure/>", "<skipped/>"):
        report(tmp_path, WHOLE[0], outcome=outcome)
        assert systems.problems(TABLE, tmp_path) == ["README.md, Debian 12: role on hosts: not run"]


def test_what_was_run_and_is_not_in_the_table(tmp_path: Path) -> None:
    report(tmp_path, *WHOLE, ("role on hosts", "Debian 13"), ("unit tests", "Ubuntu 22.04"))
    assert systems.problems(TABLE, tmp_path) == [
        "README.md, Debian 13: role on hosts: run, and not in the table",
        "README.md, Ubuntu 22.04: unit tests: run, and not in the table",
    ]


def test_other_libraries_than_the_table_says(tmp_path: Path) -> None:
    told = "Python 3.13, aiohttp 3.11, cryptography 43"
    report(tmp_path, *WHOLE, ("unit tests", f"Debian 12: {told}"))
    assert systems.problems(TABLE, tmp_path) == [
        f"README.md, Debian 12: unit tests: expected {told}, got Python 3.11, aiohttp 3.8, cryptography 38"
    ]


def test_a_table_that_is_none() -> None:
    with pytest.raises(ValueError, match="expected a table"):
        systems.table("no table")
    with pytest.raises(ValueError, match=r"Debian 12: expected role on hosts, .*, got all"):
        systems.table(TABLE.replace("role on hosts, unit tests", "all"))


@pytest.mark.parametrize(
    ("distribution", "version", "expected"),
    [
        ("Debian", "12.11", "Debian 12"),
        ("Ubuntu", "22.04", "Ubuntu 22.04"),
        ("Rocky", "9.6", "Red Hat family 9"),
        ("CentOS", "9", "Red Hat family 9"),
    ],
)
def test_the_row_of_a_system(distribution: str, version: str, expected: str) -> None:
    assert systems.system(distribution, version) == expected


def test_the_unit_tests_say_where_they_run(record_property: Any) -> None:
    """What `make unit` leaves in its report: this machine, and the libraries of the tests."""
    where, told = systems.own()
    record_property("unit tests", f"{where}: {told}")
    assert told.startswith(f"Python {sys.version_info[0]}.{sys.version_info[1]}, ")


def test_each_pair_has_a_row_with_its_versions() -> None:
    rows = systems.table(systems.README.read_text(encoding="utf-8"))
    assert {row.system for row in rows.values() if "unit tests" in row.long} == {pair.system for pair in PAIRS}
    for pair in PAIRS:
        told = systems.libraries(pair.python, pair.packages["aiohttp"], pair.packages["cryptography"])
        assert rows[pair.system].libraries == told, pair.name
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlong:")[2].partition("\n\n")[0]
    assert "unit-pairs" in recipe and "tests/fleet/test_debian_upgrade.py" in recipe
    assert [row.system for row in rows.values() if "upgrade to Debian 13" in row.long] == ["Debian 12"]
