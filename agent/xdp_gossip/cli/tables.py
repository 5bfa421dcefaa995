# SPDX-License-Identifier: MIT
"""Tables for people: drawn with rich on a terminal, plain aligned columns that lose nothing anywhere else."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

STATE_STYLES = {"alive": "green", "suspect": "yellow", "dead": "red", "left": "dim"}


def printable(value: object) -> str:
    """Text for a terminal: what other nodes say of themselves must not move the cursor or colour anything."""
    text = "yes" if value is True else "no" if value is False else "-" if value in (None, "") else str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _width(text: str) -> int:
    """Columns that ``text`` takes (UAX #11: wide characters take two, combining ones none)."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def plain(columns: Sequence[str], rows: Sequence[Sequence[object]], stream: TextIO) -> None:
    """Aligned columns with a heading; values are never cut."""
    cells = [[column.upper() for column in columns], *([printable(value) for value in row] for row in rows)]
    widths = [max(_width(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths)]
        stream.write("  ".join(padded).rstrip() + "\n")


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
    """The same as a rich table; long values are folded, not cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(value), style=STATE_STYLES.get(str(value), "")) for value in row))
    return table


def show(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout."""
    if not sys.stdout.isatty():
        plain(columns, rows, sys.stdout)
        return
    from rich.console import Console

    Console().print(rich_table(columns, rows))


def show_pairs(pairs: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        print(f"{name + ':':<{width + 1}} {printable(value)}")


def address(node: Mapping[str, Any]) -> str:
    """``addr:port`` of a NODE, an IPv6 address in brackets."""
    addr = str(node["addr"])
    return f"[{addr}]:{node['port']}" if ":" in addr else f"{addr}:{node['port']}"


def ago(seconds: float) -> str:
    """How long ago, in a few characters."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


NODE_COLUMNS = ("name", "address", "state", "heard", "agent", "plane", "in sync", "private data")


def node_rows(nodes: Sequence[Mapping[str, Any]], digest: str) -> list[list[object]]:
    """A row for each NODE, first that of the member asked; ``digest`` is its state digest."""
    return [
        [
            node["name"],
            address(node),
            node["state"],
            "here" if node["local"] else ago(node["last_heard"]),
            node["version"],
            node["protocol"],
            node["digest"] == digest if node["state"] in ("alive", "suspect") else None,
            node["private_data"],
        ]
        for node in sorted(nodes, key=lambda node: not node["local"])
    ]
