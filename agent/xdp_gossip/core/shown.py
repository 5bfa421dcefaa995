# SPDX-License-Identifier: MIT
"""Values in messages: short whatever they are."""

from __future__ import annotations

import reprlib

#: Most characters of one value in a message.
MOST = 80
#: Bits of the longest whole number that is written out. Python refuses to write one of more than 4,300 digits.
_MOST_BITS = 256


class _Short(reprlib.Repr):
    """Formats only the beginning of a value, instead of building megabytes of text and cutting them."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MOST

    def repr_int(self, x: int, level: int) -> str:
        """A whole number, or its length if it is too long."""
        return repr(x) if x.bit_length() <= _MOST_BITS else f"a whole number of {x.bit_length()} bits"

    def repr_bytes(self, x: bytes, level: int) -> str:
        """Bytes, or only the first of them."""
        return repr(x) if len(x) <= MOST else f"{x[:MOST]!r}..."

    repr_bytearray = repr_bytes


_SHORT = _Short()


def shown(value: object) -> str:
    """``repr(value)`` for a message, of at most 80 characters."""
    return cut(_SHORT.repr(value))


def printable(text: str) -> str:
    """``text`` with everything escaped that is not printable: text of others must not forge a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def cut(text: str, most: int = MOST) -> str:
    """``text`` cut to at most ``most`` characters; dots stand for the rest."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
