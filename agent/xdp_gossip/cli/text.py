# SPDX-License-Identifier: MIT
"""Makes text safe for a terminal: nothing acts on it or is invisible. Counts the columns that a text takes."""

from __future__ import annotations

import unicodedata

#: Printable characters, says Unicode, that show nothing: fillers of Hangul, the blank of Braille, joiners, selectors.
_INVISIBLE = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFFA0, 0x1D159))
) | frozenset(map(chr, (*range(0xFE00, 0xFE0F), *range(0xE0100, 0xE01F0))))
#: Makes the symbol before it an emoji.
_EMOJI = "\ufe0f"
ELLIPSIS = "…"


def escaped(text: str) -> str:
    """``text`` with escapes for what is no printable character, or shows nothing.

    What other nodes say of themselves must not move the cursor, colour anything or pass for something else.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    before = ""  # no mark may join what stands before the text
    for char in text:
        good = char.isprintable() and char not in _INVISIBLE
        if good and unicodedata.category(char)[0] == "M":
            good = before not in ("", " ") and (char != _EMOJI or unicodedata.category(before) == "So")
        shown.append(char if good else char.encode("unicode_escape").decode("ascii"))
        before = char
    return "".join(shown)


def printable(value: object) -> str:
    """A value as a field: ``-`` for none, and in quotes what would be taken for none or could not be seen whole."""
    text = "yes" if value is True else "no" if value is False else "-" if value in (None, "") else str(value)
    if isinstance(value, str) and value and (value == "-" or value != value.strip(" ")):
        return f'"{escaped(text)}"'
    return escaped(text)


def width(text: str) -> int:
    """Columns that escaped ``text`` takes: wide characters two (UAX #11), marks none."""
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
    """``text`` in at most ``most`` columns (1 or more): an ellipsis stands for what is cut out of its middle."""
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
    """``text`` and as many spaces as it takes."""
    return text + " " * (columns - width(text))
