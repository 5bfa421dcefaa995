# SPDX-License-Identifier: MIT
"""Imports of the agent point down: from each module to the floors below its own (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "agent" / "xdp_gossip"
#: The entrances: they load what was asked for, by name.
ENTRANCES = {"", "__main__"}


def floors() -> dict[str, int]:
    """Module or package, relative to the agent's package -> its floor, as the table in the documentation has it."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\d+) \| (.+) \|$", text.partition("| floor | modules |")[2].partition("\n\n")[0])
    return {name: int(number) for number, names in rows for name in re.findall(r"`([a-z_.]+)`", names)}


def modules() -> dict[str, Path]:
    """Every module, relative to the agent's package -> its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """(line, module) of each import from the agent's package, also below functions and for type checkers only."""
    package = ("xdp_gossip." + name).rstrip(".").split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [(each.name, "") for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            targets = [(origin, each.name) for each in node.names]
        else:
            continue
        for origin, what in targets:
            if origin.partition(".")[0] == "xdp_gossip":
                inner = origin.partition(".")[2]
                whole = f"{inner}.{what}".lstrip(".")
                yield node.lineno, whole if whole in known else inner


def place(name: str, table: dict[str, int]) -> str:
    """The row's name that covers a module; "" where none does."""
    while name and name not in table:
        name = name.rpartition(".")[0]
    return name


def test_every_module_has_a_floor_and_every_floor_a_module() -> None:
    table, known = floors(), modules()
    assert len(table) > 20
    assert not [name for name in known if name not in ENTRANCES and not place(name, table)]
    assert not table.keys() - known.keys()


def test_imports_point_down() -> None:
    table, known = floors(), modules()
    wrong = []
    for name, path in known.items():
        if name in ENTRANCES:
            continue
        here = place(name, table)
        for line, target in imported(name, path, known):
            there = place(target, table)
            if target not in ENTRANCES and there != here and table[there] >= table[here]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} ({table[here]}) -> {there} ({table[there]})")
    assert not wrong


#: What gives a module a clock, a socket, a file or a thread of its own.
IO = set("asyncio os pathlib secrets select selectors socket subprocess threading time".split())


def test_the_core_has_no_clock_socket_file_thread_or_randomness_of_its_own() -> None:
    found = []
    for path in (PACKAGE / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
                # The shell hands the engine its generator; only the generator's type is used.
                names = [] if node.attr == "Random" else ["random." + node.attr]
            found += [(path.name, name) for name in names if name.partition(".")[0] in IO or name.startswith("random.")]
    assert not found
