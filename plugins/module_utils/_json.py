# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: parses JSON from other machines within limits. Python 3.8 or later."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import BadAnswer

#: Maximum number of values in one JSON text. The largest valid answer is a NodeList of 20,000 nodes.
MAX_JSON_VALUES = 5 * 1000 * 1000
MAX_JSON_DEPTH = 32
MAX_JSON_DIGITS = 40


def number_of(answer: dict[str, t.Any], field: str) -> int:
    """Return the whole number in a field of an answer. Raises ``BadAnswer``."""
    value = answer.get(field)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadAnswer("%s: expected a number, got %s" % (field, type(value).__name__))
    return value


def text_of(answer: dict[str, t.Any], field: str) -> str:
    """Return the text in a field of an answer. Raises ``BadAnswer``."""
    value = answer.get(field)
    if not isinstance(value, str):
        raise BadAnswer("%s: expected text, got %s" % (field, type(value).__name__))
    return value


def clip(text: str, limit: int = 200) -> str:
    """Return ``text`` for use in a message: on one line, with only printable characters, and cut after ``limit``
    characters.
    """
    shown = "".join(char if char.isprintable() else "?" for char in text[:limit])
    return shown + "..." if len(text) > limit else shown


def parse_json(body: bytes) -> t.Any:
    """Parse JSON from an untrusted source. Raises ``ValueError`` if the text is not JSON or exceeds a limit.

    RFC 8259, section 9, allows parsers to set limits. NaN and infinities are rejected, because they are not JSON.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_JSON_VALUES:
        raise ValueError("more than %d values" % MAX_JSON_VALUES)
    try:
        answer = json.loads(
            body.decode("utf-8"), parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_constant
        )
    except RecursionError:
        raise ValueError("nested deeper than %d" % MAX_JSON_DEPTH) from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    _check_depth(answer)
    return answer


def _parse_int(text: str) -> int:
    if len(text) > MAX_JSON_DIGITS:
        raise ValueError("a number of more than %d digits" % MAX_JSON_DIGITS)
    return int(text)


def _parse_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number out of range")
    return number


def _parse_constant(text: str) -> t.NoReturn:
    raise ValueError("%s is not JSON" % text)


def _check_depth(answer: t.Any) -> None:
    level = [answer]
    for _depth in range(MAX_JSON_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise ValueError("nested deeper than %d" % MAX_JSON_DEPTH)
