# SPDX-License-Identifier: MIT
"""The README's table of systems, compared with what a run of ``make test`` did on each of them.

Tests say what they ran, and on which system, by properties of their JUnit reports: the name is in :data:`RUNS`, the
value ``SYSTEM`` or ``SYSTEM: LIBRARIES``, as in ``Debian 13: Python 3.13, aiohttp 3.11, cryptography 43``.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
HEAD = "| system | libraries | in each run of `make test` | also in `make long` |"

#: What can be run on a system, and what a machine needs for it (see ``tests.claims.NEEDS``).
RUNS: Mapping[str, str] = {"role on hosts": "lab", "unit tests": "", "choice of packages": "ansible"}


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    system: str
    #: As in ``Python 3.13, aiohttp 3.11, cryptography 43``.
    libraries: str
    test: frozenset[str]
    long: frozenset[str]


def system(distribution: str, version: str) -> str:
    """The row of a system, by Ansible's facts ``distribution`` and ``distribution_version``."""
    if distribution == "Ubuntu":
        return f"Ubuntu {'.'.join(version.split('.')[:2])}"
    family = distribution if distribution == "Debian" else "Red Hat family"
    return f"{family} {version.split('.', maxsplit=1)[0]}"


def libraries(python: str, aiohttp: str, cryptography: str) -> str:
    """The cell of these versions: two numbers of the first two, one of cryptography's, whose first one counts."""
    short = [".".join(version.split(".")[:2]) for version in (python, aiohttp)]
    return f"Python {short[0]}, aiohttp {short[1]}, cryptography {cryptography.split('.', maxsplit=1)[0]}"


def table(text: str) -> dict[str, Row]:
    """The rows of the README by system. Raises ``ValueError`` naming a line that is not as expected."""
    lines = text.splitlines()
    if HEAD not in lines:
        raise ValueError(f"README.md: expected a table with the head {HEAD!r}, found none")
    rows: dict[str, Row] = {}
    for line in lines[lines.index(HEAD) + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4:
            raise ValueError(f"README.md: expected four cells, got {line!r}")
        test, long = (frozenset(cell.split(", ")) - {"-"} for cell in cells[2:])
        if unknown := test - set(RUNS):
            raise ValueError(f"README.md, {cells[0]}: expected {', '.join(RUNS)}, got {', '.join(sorted(unknown))}")
        rows[cells[0]] = Row(cells[0], cells[1], test, long)
    return rows


def evidence(reports: Path) -> dict[str, dict[str, set[str]]]:
    """What the passed tests of a run tell: name in :data:`RUNS` -> system -> libraries, "" where none were told."""
    found: dict[str, dict[str, set[str]]] = {name: {} for name in RUNS}
    for file in sorted(reports.glob("*/**/*.xml")):
        for case in ET.parse(file).getroot().iter("testcase"):
            if any(child.tag in ("failure", "error", "skipped") for child in case):
                continue
            for entry in case.iter("property"):
                if (name := entry.get("name", "")) in RUNS:
                    where, _, told = entry.get("value", "").partition(": ")
                    found[name].setdefault(where, set()).add(told)
    return found


def problems(text: str, reports: Path, absent: Collection[str] = ()) -> list[str]:
    """What the README says and the run did not do, and the other way round.

    What needs something that is ``absent`` is left out.
    """
    rows, ran = table(text), evidence(reports)
    found = []
    for name, need in RUNS.items():
        if need in absent:
            continue
        promised = {row.system for row in rows.values() if name in row.test}
        found += [f"README.md, {each}: {name}: not run" for each in sorted(promised - set(ran[name]))]
        found += [f"README.md, {each}: {name}: run, and not in the table" for each in sorted(set(ran[name]) - promised)]
        for each in sorted(promised & set(ran[name])):
            for told in sorted(ran[name][each] - {"", rows[each].libraries}):
                found.append(f"README.md, {each}: {name}: expected {told}, got {rows[each].libraries}")
    return found


def own() -> tuple[str, str]:
    """The row of this machine, and the libraries of this process."""
    import platform

    import aiohttp
    import cryptography

    release = dict(re.findall(r'(?m)^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(encoding="utf-8")))
    where = system(release.get("ID", "").capitalize(), release.get("VERSION_ID", ""))
    return where, libraries(platform.python_version(), aiohttp.__version__, cryptography.__version__)
