# SPDX-License-Identifier: MIT
"""Formats tables as text.

On a terminal, tables are cut to the terminal's width; any other output gets complete tables.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .text import middle, padded, printable, width

#: SGR parameters for each state: green, yellow, magenta, red or faint; "1" is bold.
STYLES = {
    "alive": "32",
    "applied": "32",
    "suspect": "33",
    "pending": "33",
    "drifted": "33",
    "agent_down": "35",
    "dead": "31",
    "failed": "31",
    "left": "2",
}
BOLD = "1"
_GAP = "  "
#: Minimum width of a cut column: room for the beginning of a value, an ellipsis and the end of the value.
_LEAST = 7

Rows = Sequence[Sequence[object]]


def author(document: Mapping[str, Any]) -> str:
    """The author of a version of a document; for a signed version, who signed it."""
    by = document.get("signed_by")
    if by is None:
        return str(document["author"])
    return f"signed by {by['signer'] or by['key']}{' (withdrawn)' if by['withdrawn'] else ''}"


def styled(text: str, style: str) -> str:
    """Return ``text`` with the escape codes of ``style``; without escape codes if NO_COLOR is set or the terminal is
    dumb.
    """
    plain_one = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return f"\x1b[{style}m{text}\x1b[0m" if style and not plain_one else text


def aligned(columns: Sequence[str], rows: Rows, most: int | None = None, rigid: bool = False) -> list[list[str]] | None:
    """Return the heading and the rows as lists of fields; all fields of a column have the same width.

    If ``most`` is given, the widest columns are cut until the table fits into ``most`` terminal columns; with ``rigid``
    only the first column is cut. Returns None if the table does not fit even if these columns are cut to their minimum
    width.
    """
    cells = [[column.upper() for column in columns], *([printable(value) for value in row] for row in rows)]
    widths = [max(width(row[index]) for row in cells) for index in range(len(columns))]
    if most is not None:
        room = most - len(_GAP) * (len(columns) - 1)
        least = [min(found, max(_LEAST, len(column))) for found, column in zip(widths, columns)]
        if rigid:
            least[1:] = widths[1:]
        if sum(least) > room:
            return None
        widths = _shrunk(widths, least, room)
    return [[padded(middle(cell, found), found) for cell, found in zip(row, widths)] for row in cells]


def _shrunk(widths: list[int], least: list[int], room: int) -> list[int]:
    """Reduce column widths until they fit into ``room``.

    All columns wider than a common width are cut to this width, which is the largest for which the table fits. No
    column becomes narrower than its minimum in ``least``.
    """
    low, high = 0, max(widths, default=0)
    while low < high:
        bound = (low + high + 1) // 2
        fits = sum(max(fewest, min(found, bound)) for found, fewest in zip(widths, least)) <= room
        low, high = (bound, high) if fits else (low, bound - 1)
    return [max(fewest, min(found, low)) for found, fewest in zip(widths, least)]


def plain(columns: Sequence[str], rows: Rows, stream: TextIO) -> None:
    """Write aligned columns with a heading to ``stream``; values are never cut."""
    for row in aligned(columns, rows) or []:
        stream.write(_GAP.join(row).rstrip() + "\n")


def drawn(columns: Sequence[str], rows: Rows, most: int, drop: bool = False) -> list[str]:
    """Return the lines of a table, with colours, for a terminal of ``most`` columns.

    If the table does not fit, print each row as a block of names and values; with ``drop``, omit columns instead,
    beginning with the rightmost column.
    """
    shown = len(columns)
    table = aligned(columns, rows, most, drop)
    while table is None and drop and shown > 1:
        shown -= 1
        table = aligned(columns[:shown], [row[:shown] for row in rows], most, drop)
    if table is None and drop:
        return [middle(text, most) for text in (columns[0].upper(), *(printable(row[0]) for row in rows))]
    if table is None:
        return [line for row in rows for line in (*_block(columns, row, most), "")][:-1]
    lines = [styled(_GAP.join(table[0]).rstrip(), BOLD)]
    for row, values in zip(table[1:], rows):
        styles = [STYLES.get(str(value), "") if column == "state" else "" for column, value in zip(columns, values)]
        cells = [styled(cell, style) for cell, style in zip(row, styles)]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _block(columns: Sequence[str], row: Sequence[object], most: int) -> list[str]:
    names = max(map(len, columns)) + 2
    return [
        styled(f"{column}:".ljust(names), BOLD) + middle(printable(value), max(1, most - names))
        for column, value in zip(columns, row)
    ]


def show(columns: Sequence[str], rows: Rows, args: argparse.Namespace | None = None) -> None:
    """Print a table on stdout. On a terminal, the table is cut to the terminal's width unless ``args`` has --wide."""
    if not sys.stdout.isatty() or getattr(args, "wide", False):
        plain(columns, rows, sys.stdout)
        return
    print("\n".join(drawn(columns, rows, terminal_columns())))


def terminal_columns() -> int:
    """Return the number of columns of the terminal on stdout; 80 if the number is unknown."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def show_pairs(pairs: Mapping[str, object]) -> None:
    """Print each name and its value on one line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        print(f"{name + ':':<{width + 1}} {printable(value)}")


def address(node: Mapping[str, Any]) -> str:
    """Format the address of a NODE object as ``addr:port``, with an IPv6 address in brackets."""
    addr = str(node["addr"])
    return f"[{addr}]:{node['port']}" if ":" in addr else f"{addr}:{node['port']}"


def ago(seconds: float) -> str:
    """Format an age in seconds in a few characters, such as "5 min"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


#: Columns of the node table.
NODE_COLUMNS = ("name", "address", "zone", "state", "heard", "agent", "plane", "in sync", "private data")


def node_table(
    nodes: Sequence[Mapping[str, Any]], digest: str, columns: Sequence[str] = NODE_COLUMNS
) -> tuple[list[str], list[list[object]]]:
    """Return the columns and the rows of a table of ``nodes``, in the order of ``nodes``.

    ``digest`` is the documents digest of the queried member. If no node has a zone, the table has no column "zone".
    """
    zoned = any(node.get("zone") for node in nodes)
    shown = [column for column in columns if column != "zone" or zoned]
    rows = [_node_cells(node, digest) for node in nodes]
    return shown, [[cells[column] for column in shown] for cells in rows]


def local_first(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return ``nodes`` with the queried member at the beginning."""
    return sorted(nodes, key=lambda node: not node["local"])


def _node_cells(node: Mapping[str, Any], digest: str) -> dict[str, object]:
    return {
        "name": node["name"],
        "address": address(node),
        "zone": node.get("zone"),  # an agent of an older release tells none
        "state": node["state"],
        "heard": "here" if node["local"] else ago(node["last_heard"]),
        "agent": node["version"],
        "plane": node["protocol"],
        "in sync": node["digest"] == digest if node["state"] in ("alive", "suspect") else None,
        "private data": node["private_data"],
    }
