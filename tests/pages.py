# SPDX-License-Identifier: MIT
"""Reading pages of the documentation: their tables, and the names of the code that they speak of."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import xdp_gossip

ROOT = Path(__file__).resolve().parents[1]


def page(name: str) -> str:
    """The text of a page below docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the table that begins with ``head``, without its first two lines. Raises ValueError."""
    table = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def found(name: str) -> object:
    """What a dotted name such as ``core.detector.Detector._move`` means below the package.

    A field of a dataclass means its default. Raises AttributeError or ImportError if there is no such name, and
    AssertionError if another module or a base class defines it: a reader looks for the name in the file that is named.
    """
    parts = name.split(".")
    value: object = xdp_gossip
    for place, part in enumerate(parts):
        if isinstance(value, ModuleType) and not hasattr(value, part):
            importlib.import_module(".".join([xdp_gossip.__name__, *parts[: place + 1]]))
        defaults = {field.name: field.default for field in fields(value)} if is_dataclass(value) else {}
        owner, value = value, defaults[part] if part in defaults else inspect.getattr_static(value, part)
        assert isinstance(value, ModuleType) or part in defined(owner), f"{name}: {part} is defined elsewhere"
    return value


def defined(owner: object) -> set[str]:
    """The names that the body of a module or class itself assigns, declares or defines, not those that it imports."""
    source = textwrap.dedent(inspect.getsource(owner))  # type: ignore[arg-type]
    body = ast.parse(source).body
    if isinstance(owner, type):
        (definition,) = body
        assert isinstance(definition, ast.ClassDef)
        body = definition.body
    names: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return names
