# SPDX-License-Identifier: MIT
"""The threat model of docs/security.md: what each attacker cannot do, and the tests that prove it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Heads of the two tables of each attacker.
CANNOT, CAN = ("cannot", "proof"), ("can", "what to do")

_LINK = re.compile(r"\[`([^`\]]+)`\]\(([^)]+)\)")


@dataclass(frozen=True)
class Line:
    """One line of a table.

    ``proof``: the tests, as ``FILE::FUNCTION`` or as a file of a Molecule scenario; empty for what an attacker can do.
    """

    attacker: str
    text: str
    proof: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """The tables: what the attackers ``cannot`` do, and what they ``can`` do, by attacker in the order of the page."""

    cannot: dict[str, list[Line]]
    can: dict[str, list[Line]]


def read_model(text: str | None = None) -> Model:
    """Read the tables below the heading ``## Attackers`` of docs/security.md, or of ``text``.

    Raises ``ValueError`` naming the line of the page that is not as it should be.
    """
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8") if text is None else text
    section = re.search(r"(?ms)^## Attackers\n(.*?)(?=^## |\Z)", text)
    if section is None:
        raise ValueError("expected the heading '## Attackers'")
    model = Model({}, {})
    for part in re.split(r"(?m)^### ", section[1])[1:]:
        attacker, _newline, body = part.partition("\n")
        model.cannot[attacker], model.can[attacker] = [], []
        for head, cells in _rows(body):
            if len(cells) != 2 or not all(cells):
                raise ValueError(f"{attacker}: expected two cells with text, got {cells}")
            if head == CANNOT:
                model.cannot[attacker].append(Line(attacker, cells[0], _tests(attacker, cells[1])))
            elif head == CAN:
                model.can[attacker].append(Line(attacker, cells[0]))
            else:
                raise ValueError(f"{attacker}: expected the head {CANNOT} or {CAN} of a table, got {head}")
    return model


def _rows(body: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The rows of all tables, each with the head of its table."""
    for table in re.findall(r"(?m)(?:^\|.*\n?)+", body):
        head, _line, *rows = [
            [cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()
        ]
        yield from ((tuple(head), row) for row in rows)


def _tests(attacker: str, cell: str) -> tuple[str, ...]:
    """The tests that a cell links to. Raises ``ValueError`` if there is none, or other text between them."""
    links = _LINK.findall(cell)
    if not links or _LINK.sub("", cell).strip(" ,"):
        raise ValueError(f"{attacker}: expected links to tests, separated by commas, got {cell!r}")
    found = []
    for name, target in links:
        file, colons, function = name.partition("::")
        path = target.removeprefix("../")
        if target == path or not path.endswith(f"/{file}"):
            raise ValueError(f"{attacker}: expected the link of {name} to lead to this file, got {target}")
        found.append(f"{path}{colons}{function}")
    return tuple(found)


def disabled(test: str) -> str | None:
    """Why ``test``, a function of a Python file, proves nothing: it is empty, or has the mark ``skip`` or ``xfail``."""
    file, _colons, function = test.partition("::")
    if not file.endswith(".py"):
        return None
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    marks = [
        node.value for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    owner, _colons, name = function.rpartition("::")
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == owner:
            marks += node.decorator_list
            body = node.body
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            marks += node.decorator_list
            if all(isinstance(one, ast.Pass) or _is_text(one) for one in node.body):
                return f"{test} does nothing"
    named = {each.attr for mark in marks for each in ast.walk(mark) if isinstance(each, ast.Attribute)}
    found = sorted(named & {"skip", "xfail"})
    return f"{test} has the mark {found[0]}" if found else None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
