# SPDX-License-Identifier: MIT
"""docs/toolkit.md tells every parameter and every call of the library, as they are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from xdp_gossip import AsyncNodeList, Limits, NodeList

_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "toolkit.md").read_text(encoding="utf-8")
#: Defaults that the page has words for.
_WORDS: dict[str, tuple[Any, ...]] = {
    "none": ("", None, ()),
    "`Limits()`": (Limits(),),
}


def _tables(header: str) -> list[list[list[str]]]:
    """The rows of each table with that first line."""
    found = []
    for rest in _PAGE.split(f"\n{header}\n")[1:]:
        lines = rest.split("\n\n")[0].splitlines()[1:]
        found.append([[cell.strip() for cell in line.strip("|").split("|")] for line in lines])
    return found


def test_the_page_has_every_parameter() -> None:
    parameters = list(inspect.signature(AsyncNodeList.__init__).parameters.values())[1:]
    by_position, by_keyword = _tables("| parameter | default | range | |")
    assert [row[0] for row in by_position] == [f"`{p.name}`" for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert [row[0] for row in by_keyword] == [f"`{p.name}`" for p in parameters if p.kind is p.KEYWORD_ONLY]
    for (name, default, _range, _words), parameter in zip([*by_position, *by_keyword], parameters):
        told = _WORDS.get(default)
        assert parameter.default in told if told else _shown(parameter.default) == default.strip("`"), name


def _shown(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def test_the_page_has_every_call() -> None:
    (rows,) = _tables("| call | `AsyncNodeList` | `NodeList` | |")
    told = {}
    for calls, kind, blocking, _words in rows:
        for call, parameters in re.findall(r"`(\w+)(?:\(([^)]*)\))?`", calls):
            told[call] = (kind, blocking, [each for each in parameters.split(", ") if each])
    public = {name: value for name, value in vars(AsyncNodeList).items() if not name.startswith("_")}
    assert set(told) == set(public)
    for name, call in public.items():
        kind, blocking, parameters = told[name]
        assert blocking == ("yes" if hasattr(NodeList, name) else "no"), name
        if isinstance(call, property):
            assert (kind, parameters) == ("property", []), name
        else:
            assert kind == ("coroutine" if inspect.iscoroutinefunction(call) else "plain"), name
            assert parameters == list(inspect.signature(call).parameters)[1:], name


def test_the_limits_are_told() -> None:
    limits = Limits()
    (row,) = [row for table in _tables("| parameter | default | range | |") for row in table if row[0] == "`limits`"]
    for name, told in {
        "document": f"{limits.document >> 20} MiB",
        "nodes": f"{limits.nodes:,} nodes",
        "documents": f"{limits.documents:,} documents",
        "store": f"{limits.store >> 30} GiB",
    }.items():
        assert re.search(rf"`{name}`: [a-z ]+ \({told}\)", row[3]), name
