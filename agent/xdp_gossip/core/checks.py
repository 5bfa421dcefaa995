# SPDX-License-Identifier: MIT
"""Functions that each check the type and the range of one value.

Each function returns the checked value, or raises an error that contains the name of the value. A wrong type raises
``TypeError``, a wrong value ``ValueError``. The message is ``NAME: expected WHAT, got WHAT``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NoReturn, TypeVar

from .shown import shown

T = TypeVar("T")

#: Maximum bytes of UTF-8 in a text such as a name or a secret. A longer text can only be a mistake of the caller.
MOST_TEXT = 64 * 1024


def refuse(name: str, expected: str, value: object) -> NoReturn:
    """Raise ``ValueError``: ``value`` has the right type, but breaks the rule ``expected`` (a text for the message)."""
    raise ValueError(f"{name}: expected {expected}, got {shown(value)}")


def instance(name: str, value: object, kind: type[T], words: str) -> T:
    """Return ``value`` if it is of type ``kind``. ``words``: description of ``kind`` for the error message."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {words}, got {shown(value)}")
    return value


def number(name: str, value: object, least: float, most: float) -> float:
    """Return ``value`` as a float if it is a number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number from {least:g} to {most:g}, got {shown(value)}")
    if not least <= value <= most:
        refuse(name, f"a number from {least:g} to {most:g}", value)
    return float(value)


def integer(name: str, value: object, least: int, most: int) -> int:
    """Return ``value`` if it is an int from ``least`` to ``most``. A float such as 2.0 raises ``TypeError``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number from {least} to {most}, got {shown(value)}")
    if not least <= value <= most:
        refuse(name, f"a whole number from {least} to {most}", value)
    return value


def flag(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False."""
    return instance(name, value, bool, "True or False")


def text(name: str, value: object, least: int = 0, most: int = MOST_TEXT, secret: bool = False) -> str:
    """Return ``value`` if it is text of ``least`` to ``most`` bytes of UTF-8.

    With ``secret``, an error message states only the type of the value.
    """
    got = type(value).__name__ if secret else shown(value)
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, got {got}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name}: expected valid Unicode text, got {got}") from None
    if not least <= size <= most:
        raise ValueError(f"{name}: expected {least} to {most} bytes of UTF-8, got {size}")
    return value


def choice(name: str, value: object, choices: Collection[str], any_case: bool = False) -> str:
    """Return ``value`` if it is one of ``choices``. With ``any_case``, the comparison ignores case."""
    found = instance(name, value, str, f"one of {', '.join(choices)}")
    if found not in choices and not (any_case and found.lower() in [each.lower() for each in choices]):
        refuse(name, f"one of {', '.join(choices)}", value)
    return found
