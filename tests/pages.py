# SPDX-License-Identifier: MIT
"""Reading pages of the documentation: their tables, and the names of the code that they speak of."""

from __future__ import annotations

import importlib
import inspect
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

    A field of a dataclass means its default. Raises AttributeError or ImportError when there is no such name.
    """
    parts = name.split(".")
    value: object = xdp_gossip
    for place, part in enumerate(parts):
        if isinstance(value, ModuleType) and not hasattr(value, part):
            importlib.import_module(".".join([xdp_gossip.__name__, *parts[: place + 1]]))
        defaults = {field.name: field.default for field in fields(value)} if is_dataclass(value) else {}
        value = defaults[part] if part in defaults else inspect.getattr_static(value, part)
    return value
