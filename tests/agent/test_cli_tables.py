# SPDX-License-Identifier: MIT
"""Tables and text on a terminal: aligned, cut in the middle, nothing invisible, nothing that acts."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any

import pytest

from xdp_gossip.cli import tables
from xdp_gossip.cli.text import escaped, middle, printable, width
from xdp_gossip.core.types import Address, Member, Record, State
from xdp_gossip.node import shapes


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("größer 日本", "größer 日本"),
        (None, "-"),
        ("", "-"),
        ("-", '"-"'),
        (" ", '" "'),
        ("name ", '"name "'),
        ("\u3164", "\\u3164"),  # a letter that shows nothing
        ("\u200b", "\\u200b"),
        ("\u2800\u2800", "\\u2800\\u2800"),
        ("a\u00a0b", "a\\xa0b"),
        ("a\u202eb", "a\\u202eb"),
        ("\u0301a", "\\u0301a"),  # would sit on what stands before the field
        ("e\u0301", "e\u0301"),
        ("a\ufe00", "a\\ufe00"),
        ("⚠\ufe0f", "⚠\ufe0f"),
        ("a\ufe0f", "a\\ufe0f"),
        ("\x1b[31m\n\x9b", "\\x1b[31m\\n\\x9b"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        (True, "yes"),
        (0, "0"),
    ],
)
def test_what_is_invisible_can_be_seen(value: object, shown: str) -> None:
    assert printable(value) == shown


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("abc", 3),
        ("日本", 4),
        ("e\u0301", 1),
        ("🎉", 2),
        ("ﾊﾝ", 2),
        ("한국", 4),
        ("⚠\ufe0f", 2),
        ("👍", 2),
    ],
)
def test_columns_of_text(text: str, columns: int) -> None:
    assert width(text) == columns


LONG = ("abcdefghijklmnop" * 9, "日本語の名前です" * 9, "e\u0301" * 99, "a日" * 40 + "e\u0301" * 9)


@pytest.mark.parametrize("text", LONG)
def test_the_middle_is_cut_and_the_width_kept(text: str) -> None:
    for most in range(1, 40):
        cut = middle(text, most)
        # A wide character may leave a column free on either side.
        assert most - 2 <= width(cut) <= most
        assert cut.count("…") == 1
        before, after = cut.split("…")
        assert text.startswith(before) and text.endswith(after)
        assert escaped(cut) == cut  # no mark has lost what it stands on
    assert middle("short", 5) == "short"


ROWS = [["k" * 300, "alive", "日本語" * 30], ["short", "dead", "x"], ["\u200b", "e\u0301", "🎉"]]
COLUMNS = ("key", "state", "data")


@pytest.mark.parametrize("most", [40, 80, 200])
def test_a_long_key_does_not_widen_a_table(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = tables.drawn(COLUMNS, ROWS, most)
    assert len(lines) == 4
    assert max(map(width, lines)) <= most
    assert lines[2].startswith("short ") and lines[3].startswith("\\u200b ")
    starts = {width(line[: line.index(word)]) for line, word in zip(lines, ("STATE", "alive", "dead", "e\u0301"))}
    assert len(starts) == 1
    assert "k…k" in lines[1]


def test_a_terminal_too_narrow_for_the_columns_gets_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    columns = tuple(f"column{number}" for number in range(9))
    lines = tables.drawn(columns, [["value" * 20] * 9, ["x"] * 9], 40)
    assert len(lines) == 19
    assert max(map(width, lines)) <= 40
    assert lines[10] == "column0: x"


def test_the_last_columns_give_way_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [["n" * 50, "alive", "198.18.0.11:8000", "private " * 20]]
    assert tables.drawn(("name", "state", "address", "data"), rows, 40, drop=True) == [
        "NAME             STATE  ADDRESS",
        "nnnnnnn…nnnnnnn  alive  198.18.0.11:8000",
    ]


def node(number: int, zone: str | None = "") -> dict[str, Any]:
    """A node as the API has it; zone None: as an agent has it that knows no zones."""
    member = Member(Address(f"198.18.0.{number}", 8000), State.ALIVE, 1, 1, Record(f"n{number}"), 0.5, 0, number == 2)
    found = {**shapes.node(member), "zone": zone, "version": "0.1.0", "protocol": "UDP"}
    return found if zone is not None else {name: value for name, value in found.items() if name != "zone"}


@pytest.mark.parametrize("zones", [("", ""), (None, None), ("", None)])
def test_nodes_without_zones_have_no_column_for_them(zones: tuple[str | None, ...]) -> None:
    columns, rows = tables.node_table([node(1, zones[0]), node(2, zones[1])], f"{0:016x}")
    assert columns == ["name", "address", "state", "heard", "agent", "plane", "in sync", "private data"]
    assert rows[0] == ["n1", "198.18.0.1:8000", "alive", "0.5 s", "0.1.0", "UDP", True, ""]


def test_one_zone_makes_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    nodes = tables.local_first([node(1, "alive"), node(2, "\x1b[2J\u202e" + "z" * 50), node(3), node(4, None)])
    columns, rows = tables.node_table(nodes, f"{0:016x}")
    assert columns == list(tables.NODE_COLUMNS) and columns[2] == "zone"
    assert [row[0] for row in rows] == ["n2", "n1", "n3", "n4"]
    stream = io.StringIO()
    tables.plain(columns, rows, stream)
    text = [line.split() for line in stream.getvalue().splitlines()]
    assert [line[2] for line in text] == ["ZONE", "\\x1b[2J\\u202e" + "z" * 50, "alive", "-", "-"]
    assert len(tables.drawn(columns, rows, 100)) == 5 and max(map(width, tables.drawn(columns, rows, 100))) <= 100
    # A narrow terminal shows each node as a block, as it does without zones.
    lines = tables.drawn(columns, rows, 40)
    assert max(map(width, lines)) <= 40
    assert lines[:3] == [
        "name:         n2",
        "address:      198.18.0.2:8000",
        "zone:         \\x1b[2J\\u202e…zzzzzzzzzzzz",
    ]
    assert lines.count("zone:         -") == 2
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    row = tables.drawn(columns, rows, 120)[2]
    assert row.count("\x1b[32malive\x1b[0m") == 1, "a zone that has the name of a state has no colour"


def test_nothing_is_cut_in_a_pipe_or_with_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        """As far as anybody can tell."""

        def isatty(self) -> bool:
            """It is one."""
            return True

    monkeypatch.setattr(tables, "terminal_columns", lambda: 40)
    for stream, wide, whole in ((io.StringIO(), False, True), (Terminal(), True, True), (Terminal(), False, False)):
        with contextlib.redirect_stdout(stream):
            tables.show(COLUMNS, ROWS, argparse.Namespace(wide=wide))
        assert ("k" * 300 in stream.getvalue()) is whole


def test_only_a_state_has_its_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert tables.drawn(("name", "state"), [["dead", "alive"]], 80)[1] == "dead  \x1b[32malive\x1b[0m"
    monkeypatch.setenv("TERM", "dumb")
    assert tables.drawn(("name", "state"), [["dead", "alive"]], 80)[1] == "dead  alive"
