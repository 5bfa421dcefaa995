# SPDX-License-Identifier: MIT
"""Checks that a content is what its type says, and shows how two versions differ.

JSON and YAML are parsed before they are accepted.
"""

from __future__ import annotations

import json
from typing import Any

from ..core.interface import ProtocolError
from ..core.shown import cut, shown

#: Bytes of a version up to which it is compared with another line by line.
MAX_DIFF = 256 * 1024
#: Types that say something of the content.
CHECKED = frozenset({"text", "json", "yaml"})
#: Characters of a reason: parsers quote what they stumble over, however long it is.
_MOST_REASON = 300


def check(key: str, value: bytes, content_type: str) -> None:
    """Raise ``ProtocolError`` (invalid_content), saying where, unless ``value`` is what its type says.

    ``text`` is UTF-8; ``json`` is RFC 8259, hence without NaN; ``yaml`` is one YAML document without application tags,
    as ``yamlgraph.check`` bounds it. A duplicate key is an error in both, because readers disagree on which one counts.
    Any other type, ``raw`` among them, promises nothing about the content.
    """
    if content_type not in CHECKED:
        return
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(key, content_type, f"byte {error.start} is not UTF-8") from None
    if content_type == "json":
        try:
            json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise refused(key, content_type, f"line {error.lineno}, column {error.colno}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise refused(key, content_type, _reason(error)) from None
    elif content_type == "yaml":
        _check_yaml(key, text)


def _check_yaml(key: str, text: str) -> None:
    import yaml  # only who publishes YAML needs it in memory

    from . import yamlgraph

    try:
        yamlgraph.check(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise refused(key, "yaml", f"{where}{error.problem or error.context}") from None
    except Exception as error:  # what a tag makes of its text raises whatever the calls in it raise
        raise refused(key, "yaml", _reason(error)) from None


def refused(key: str, content_type: str, reason: str) -> ProtocolError:
    """The error for a content that does not match its type."""
    message = f"document {key!r}: expected valid {content_type}, {cut(reason, _MOST_REASON)}"
    return ProtocolError("invalid_content", message, key=key, content_type=content_type)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259: UTF-8, no NaN, no key twice). Raises ``ValueError``, ``RecursionError``."""
    return json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _unique(pairs)
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    """Object hook that builds nothing, so that the parser keeps nothing."""
    if len(dict(pairs)) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} is there twice in one object")


def diff(old: bytes, new: bytes, old_name: str, new_name: str) -> str | None:
    """How ``new`` differs from ``old``, as a unified diff; None when either is not text or too long to compare."""
    import difflib  # only a process that compares needs it in memory

    if len(old) > MAX_DIFF or len(new) > MAX_DIFF or b"\0" in old or b"\0" in new:
        return None
    try:
        before, after = old.decode("utf-8"), new.decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), old_name, new_name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
