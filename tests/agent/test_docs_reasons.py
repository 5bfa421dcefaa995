# SPDX-License-Identifier: MIT
"""The table of reasons on the page of the command line has every reason for which a member does not count."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from xdp_gossip.node import convergence

ROOT = Path(__file__).resolve().parents[2]
#: What stands for a value in a reason, in the code and on the page.
_VALUE = re.compile(r"\{[^}]*\}|\b(?:V|DIGEST)\b")


def _plain(text: str) -> str:
    return _VALUE.sub("*", text)


def _in_code() -> set[str]:
    """Reasons as texts of ``convergence``: the constants, what ``missed_by`` returns, and what is assigned."""
    found = {convergence._NO_ANSWER, convergence._NOT_STORED}
    for node in ast.walk(ast.parse(inspect.getsource(convergence))):
        if isinstance(node, ast.FunctionDef) and node.name == "missed_by":
            values = [made.value for made in ast.walk(node) if isinstance(made, ast.Return) and made.value is not None]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("reason", "result['reason']"):
            values = [node.value]
        else:
            continue
        for value in values:
            for made in ast.walk(value):
                if isinstance(made, ast.JoinedStr):
                    found.add(ast.unparse(made)[2:-1])
                elif isinstance(made, ast.Constant) and isinstance(made.value, str) and " " in made.value:
                    found.add(made.value)
    # A text that ends in a space is the constant part of a reason with a value, which is there as a whole, too.
    return {_plain(text) for text in found if not text.endswith(" ")}


def _on_the_page() -> set[str]:
    rows = (ROOT / "docs" / "cli.md").read_text().split("| reason | meaning, and what to do |\n|---|---|\n")[1]
    table = rows.split("\n\n")[0].splitlines()
    return {_plain(re.findall(r"^\| `([^`]+)`", row)[0]) for row in table}


def test_the_page_has_every_reason() -> None:
    assert len(_in_code()) > 5
    assert _on_the_page() == _in_code()
