# SPDX-License-Identifier: MIT
"""Lays out the screen of ``top``: rows with problems come first, and a line counts the rows that do not fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import tables
from .liveview import View
from .nodes import summary
from .text import escaped, middle

#: The states of nodes with problems.
URGENT = ("suspect", "agent_down", "dead")
#: ``_HEAD``: fields of the status that are always shown. ``_FINE``: fields that are shown only if they have another
#: value than the one given here.
_HEAD = ("plane", "kernel", "members", "documents")
_FINE = {"storage": "ok", "state": "running"}
#: Columns of the table of nodes. If the terminal is too narrow, the rightmost column is dropped first.
_NODES = ("name", "state", "heard", "address", "zone", "in sync", "plane", "agent", "private data")
_DOCUMENTS = ("document", "held by", "applied by", "published", "size", "author")
_FILES = ("rendered file", "state", "error", "path")
#: A terminal with at least this many lines gets empty lines between the tables.
_ROOMY = 20


@dataclass
class _Section:
    """One table of the screen.

    ``urgent`` is the number of entries with problems; their rows come first. ``total`` is the number of all entries;
    ``rows`` may contain fewer entries.
    """

    what: str
    columns: Sequence[str]
    rows: list[list[Any]]
    urgent: int
    total: int

    def lines(self, shown: int, columns: int) -> list[str]:
        """Return the lines of the table with its first ``shown`` rows, for a terminal of ``columns`` columns."""
        lines = tables.drawn(self.columns, self.rows[:shown], columns, drop=True) if shown else []
        left = self.total - shown
        if left > 0:
            text = f"… {left:,} more {self.what}" if shown else f"{left:,} {self.what}"
            lines.append(tables.styled(middle(text, columns), "2"))
        return lines


def screen(view: View, columns: int, lines: int) -> list[str]:
    """Lay out ``view`` for a terminal of this size: at most ``lines`` lines, each at most ``columns`` wide."""
    gap = [""] if lines >= _ROOMY else []
    head = _head(view, columns)[: max(1, lines - 2)]
    if view.publish is not None and lines >= _ROOMY:
        head += [*gap, *(middle(escaped(line), columns) for line in view.publish.lines())]
    sections = [section for section in (_nodes(view), _files(view), _documents(view)) if section.total]
    shown = _shares(sections, lines - 1 - len(head), len(gap))
    body: list[str] = []
    for section, count in zip(sections, shown):
        body += [*gap, *section.lines(count, columns)]
    return [*[*head, *body][: lines - 1], tables.styled(middle("q quits", columns), "2")]


def _shares(sections: Sequence[_Section], room: int, gap: int) -> list[int]:
    """Return for each table how many of its rows the screen shows.

    Rows with problems get space first; then each table gets one more row in turn.
    """
    shown = [0] * len(sections)

    def needed() -> int:
        # Besides its rows, each table needs a line for the heading and a line that counts the hidden rows.
        return sum(gap + (count > 0) + count + (count < section.total) for section, count in zip(sections, shown))

    for limit in (lambda section: section.urgent, lambda section: len(section.rows)):
        growing = True
        while growing:
            growing = False
            for index, section in enumerate(sections):
                if shown[index] < min(limit(section), len(section.rows)):
                    shown[index] += 1
                    if needed() > room:
                        shown[index] -= 1
                    else:
                        growing = True
    return shown


def _head(view: View, columns: int) -> list[str]:
    found = summary(view.status)
    now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    who = middle(escaped(str(found["node"])), max(1, columns - len(now) - 2))
    lines = [tables.styled(middle(f"{who}  {now}", columns), tables.BOLD)]
    if view.away:
        lines.append(tables.styled(middle(escaped(f"the agent does not answer: {view.away}"), columns), "31"))
    if trouble := _trouble(view):
        lines.append(tables.styled(middle(f"wrong: {trouble}", columns), "31"))
    for name in ("isolated", "waiting for", "catch-up", "storage", "state", *_HEAD):
        if name in found and found[name] != _FINE.get(name):
            lines.append(middle(f"{name + ':':<11}{escaped(str(found[name]))}", columns))
    return lines


def _trouble(view: View) -> str:
    """Return the number of problems of each kind in the fleet, such as "2 dead nodes, 1 failed file"."""
    members = view.status["members"]
    counts = [(f"{state} node", members.get(state, 0)) for state in URGENT]
    counts += [
        ("failed file", sum(one["state"] == "failed" for one in view.files)),
        ("drifted file", sum(bool(one.get("drift")) for one in view.files)),
        ("internal error", sum(one["count"] for one in view.status.get("internal_errors", ()))),
    ]
    return ", ".join(f"{count:,} {what}{'s' * (count != 1)}" for what, count in counts if count)


def _nodes(view: View) -> _Section:
    columns, rows = tables.node_table(view.nodes, view.status["digest"], _NODES)
    urgent = sum(node["state"] in URGENT for node in view.nodes)
    members = view.status["members"]
    return _Section("nodes", columns, rows, urgent, max(len(rows), sum(members.values()) - members.get("left", 0)))


def _documents(view: View) -> _Section:
    rows = [[key, held, applied, when, size, author] for key, size, when, author, held, applied in view.rows()]
    return _Section("documents", _DOCUMENTS, rows, 0, max(len(rows), view.status["documents"]))


def _files(view: View) -> _Section:
    def state(one: dict[str, Any]) -> str:
        return "drifted" if one.get("drift") and one["state"] != "failed" else str(one["state"])

    order = {"failed": 0, "drifted": 1}
    files = sorted(view.files, key=lambda one: order.get(state(one), 2))
    rows = [[one["name"], state(one), one["error"] or one.get("drift"), one["path"]] for one in files]
    return _Section("rendered files", _FILES, rows, sum(state(one) in order for one in files), len(rows))
