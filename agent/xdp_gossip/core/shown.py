# SPDX-License-Identifier: MIT
"""Formats values for messages to humans, with at most 80 characters for each value."""

from __future__ import annotations

import reprlib

#: Maximum characters of one value in a message.
MOST = 80
#: A whole number of more than this many bits is not written with all of its digits. Python raises an exception for more
#: than 4,300 digits.
_MOST_BITS = 256


class _Short(reprlib.Repr):
    """Formats only the beginning of a long value.

    A full ``repr`` could need megabytes, most of which would then be cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MOST

    def repr_int(self, x: int, level: int) -> str:
        """The digits of the whole number ``x``; if it has too many digits, a text with the number of its bits."""
        return repr(x) if x.bit_length() <= _MOST_BITS else f"a whole number of {x.bit_length()} bits"

    def repr_bytes(self, x: bytes, level: int) -> str:
        """The ``repr`` of bytes, cut after the first 80 bytes."""
        return repr(x) if len(x) <= MOST else f"{x[:MOST]!r}..."

    repr_bytearray = repr_bytes


_SHORT = _Short()


def shown(value: object) -> str:
    """``repr(value)`` for a message, of at most 80 characters."""
    return cut(_SHORT.repr(value))


def printable(text: str) -> str:
    """``text`` with escapes for unprintable characters, so that text from another host cannot fake a line of output."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def cut(text: str, most: int = MOST) -> str:
    """``text``, cut to at most ``most`` characters. A cut text ends with three dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
