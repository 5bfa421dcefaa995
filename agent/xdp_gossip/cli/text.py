# SPDX-License-Identifier: MIT
"""Escapes control sequences and invisible characters of text for a terminal, and measures the width of text."""

from __future__ import annotations

import unicodedata

#: Characters that Unicode classifies as printable but that are invisible: Hangul fillers, the Braille blank, joiners,
#: selectors.
_INVISIBLE = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFFA0, 0x1D159))
) | frozenset(map(chr, (*range(0xFE00, 0xFE0F), *range(0xE0100, 0xE01F0))))
#: Variation selector that turns the symbol before it into an emoji.
_EMOJI = "\ufe0f"
ELLIPSIS = "…"


def escaped(text: str) -> str:
    """Return ``text`` with escapes for characters that are not printable or not visible.

    Other nodes choose many of the printed texts, so a text must not be able to move the cursor, add colour, or imitate
    other output.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    before = ""  # a combining mark at the beginning must not combine with a character of the surrounding output
    for char in text:
        good = char.isprintable() and char not in _INVISIBLE
        if good and unicodedata.category(char)[0] == "M":
            good = before not in ("", " ") and (char != _EMOJI or unicodedata.category(before) == "So")
        shown.append(char if good else char.encode("unicode_escape").decode("ascii"))
        before = char
    return "".join(shown)


def printable(value: object) -> str:
    """Format a value as a table field: ``-`` for no value.

    The text "-", and text that begins or ends with a space, are put in quotes.
    """
    text = "yes" if value is True else "no" if value is False else "-" if value in (None, "") else str(value)
    if isinstance(value, str) and value and (value == "-" or value != value.strip(" ")):
        return f'"{escaped(text)}"'
    return escaped(text)


def width(text: str) -> int:
    """Return the number of terminal columns of an escaped text: wide characters take two columns (UAX #11), combining
    marks take none.
    """
    if text.isascii():
        return len(text)
    columns, before = 0, ""
    for char in text:
        if char == _EMOJI:
            columns += unicodedata.east_asian_width(before or " ") not in "WF"
        elif unicodedata.category(char) not in ("Mn", "Me", "Cf") and not "\u1160" <= char <= "\u11ff":
            columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        before = char
    return columns


def middle(text: str, most: int) -> str:
    """Shorten ``text`` to at most ``most`` columns (1 or more), with an ellipsis in place of the middle of ``text``."""
    if len(text) <= most and width(text) <= most:
        return text
    end = (most - 1) // 2
    tail = _beginning(text[: -2 * most - 8 : -1], end)[::-1]
    while tail and unicodedata.category(tail[0])[0] == "M":
        tail = tail[1:]
    return _beginning(text[: 2 * most + 8], most - 1 - width(tail)) + ELLIPSIS + tail


def _beginning(text: str, most: int) -> str:
    at = columns = 0
    while at < len(text) and columns + width(text[at]) <= most:
        columns += width(text[at])
        at += 1
    return text[:at]


def padded(text: str, columns: int) -> str:
    """Return ``text`` padded with spaces to a width of ``columns``."""
    return text + " " * (columns - width(text))
