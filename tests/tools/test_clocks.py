# SPDX-License-Identifier: MIT
"""No test judges by the clock of the machine that it runs on: a busy or a slow one would fail it.

What may be asserted: order, events, counters, virtual time, and that something did *not* come before its time (a busy
machine is late, never early). A bound on a wait is a net against hanging, so it stands in the loop that waits or is a
``timeout`` argument, and is generous. How fast something is, the bench tells.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Where tests are; the simulator's time is virtual.
PLACES = ("tests", "molecule")
VIRTUAL = ("tests/sim/",)
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "time", "time_ns"}
#: What waits and tells how long it took, and what results call it.
WAITS = {"eventually", "until", "wait_for_hosts"}
ELAPSED = {"elapsed"}
#: What a file must contain to be worth a look.
SIGNS = re.compile(rf"\b({'|'.join(sorted(CLOCKS | WAITS | ELAPSED))})\b")


def judgements(source: str) -> Iterator[int]:
    """The lines of asserts that want an elapsed time to be below something."""
    found = set()
    for scope in _scopes(ast.parse(source)):
        spans: set[str] = set()
        for node in scope:
            if isinstance(node, ast.Assign) and _is_span(node.value, spans):
                spans |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for node in scope:
            if isinstance(node, ast.Assert):
                compares = [each for each in ast.walk(node.test) if isinstance(each, ast.Compare)]
                if any(_bounded_above(each, spans) for each in compares):
                    found.add(node.lineno)
    return iter(sorted(found))


def _scopes(tree: ast.Module) -> list[list[ast.stmt]]:
    """The statements of the module and of each function, with those of the functions inside, but no loops that wait."""
    scopes: list[list[ast.stmt]] = []

    def visit(statement: ast.AST, around: list[list[ast.stmt]]) -> None:
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, (ast.expr, ast.While)):
                continue
            inside = around
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                scopes.append([])
                inside = [*around, scopes[-1]]
            elif isinstance(child, ast.stmt):
                for scope in around:
                    scope.append(child)
            visit(child, inside)

    scopes.append([])
    visit(tree, [scopes[0]])
    return scopes


def _bounded_above(compare: ast.Compare, spans: set[str]) -> bool:
    sides = [compare.left, *compare.comparators]
    for left, operator, right in zip(sides, compare.ops, sides[1:]):
        if isinstance(operator, (ast.Lt, ast.LtE)) and _is_span(left, spans):
            return True
        if isinstance(operator, (ast.Gt, ast.GtE)) and _is_span(right, spans):
            return True
    return False


def _is_span(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression is the difference of a clock and something, or what a wait took."""
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value in ELAPSED
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Sub):
            return any(_calls(side, CLOCKS) for side in (node.left, node.right))
        return _is_span(node.left, names) or _is_span(node.right, names)
    if isinstance(node, ast.Call):
        if _calls(node, WAITS):
            return True
        inner = isinstance(node.func, ast.Name) and node.func.id in ("abs", "float", "int", "max", "round", "sum")
        return inner and any(_is_span(argument, names) for argument in node.args)
    return False


def _calls(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.Await):
        node = node.value
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in names


@pytest.mark.parametrize(
    "wrong",
    [
        "began = time.monotonic()\nassert time.monotonic() - began < 2",
        "took = time.perf_counter() - began\nassert took < 2",
        "took = eventually(done, 9)\nassert 1 <= took <= 3, 'late'",
        "def test():\n    took = max(took, loop.time() - began)\n    assert done and 2 > took",
        "assert answer['passed'] and answer['elapsed'] < 5",
    ],
)
def test_a_bound_on_an_elapsed_time_is_seen(wrong: str) -> None:
    assert len(list(judgements(wrong))) == 1


@pytest.mark.parametrize(
    "right",
    [
        "while not done():\n    assert time.monotonic() < deadline, 'never'",
        "while not done():\n    assert time.monotonic() - began < 60, 'never'",
        "took = eventually(done, 60)\nassert took > TIMEOUT - CYCLE, 'too early'",
        "assert answer['elapsed'] == 1.235",
        "assert abs(found.clock - expected.clock) < late",
    ],
)
def test_a_wait_and_what_must_not_come_early_are_no_bounds(right: str) -> None:
    assert not list(judgements(right))


def test_no_test_asserts_that_time_was_short() -> None:
    found = []
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            text = path.read_text(encoding="utf-8")
            if not name.startswith(VIRTUAL) and SIGNS.search(text):
                found += [f"{name}:{line}" for line in judgements(text)]
    assert not found, "asserted on the machine's clock (see this file's docstring):\n" + "\n".join(found)


def test_examples_of_hypothesis_have_no_deadline() -> None:
    assert hypothesis.settings().deadline is None
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path != Path(__file__).resolve():
            assert not re.search(r"\bdeadline=(?!None\b)", path.read_text(encoding="utf-8")), path
