# SPDX-License-Identifier: MIT
"""Checks whether the content of a document matches its content type, and computes diffs between versions.

The checks parse JSON and YAML completely before they accept a content.
"""

from __future__ import annotations

import json
from typing import Any

from ..core.interface import ProtocolError
from ..core.sealed import SEALED, parse
from ..core.shown import cut, shown

#: Maximum bytes of a version for which a diff is computed.
MAX_DIFF = 256 * 1024
#: Content types whose content is checked. A document whose type is not in this set may have any content.
CHECKED = frozenset({"text", "json", "yaml"})
#: Maximum characters of the reason in an error message. Parsers quote the invalid text in their error messages without
#: a limit on its length.
_MOST_REASON = 300


def check(key: str, value: bytes, content_type: str) -> None:
    """Check that ``value`` matches its content type.

    Raises ``ProtocolError`` (invalid_content) with the position of the mistake.

    Content of type ``text`` must be UTF-8. Content of type ``json`` must follow RFC 8259, which does not allow NaN.
    Content of type ``yaml`` must be one YAML document without application tags, within the limits of
    ``yamlgraph.check``. A duplicate key is an error in JSON and YAML, because some parsers use the first value of the
    key and others the last. Content of type ``sealed`` must be an envelope.
    Content of another type, such as ``raw``, is not checked.
    """
    if content_type == SEALED:
        try:
            parse(value)
        except ValueError as error:
            raise refused(key, "envelope of a sealed document", str(error)) from None
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
    import yaml  # imported here to save memory in processes that check no YAML

    from . import yamlgraph

    try:
        yamlgraph.check(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise refused(key, "yaml", f"{where}{error.problem or error.context}") from None
    except Exception as error:  # the YAML constructor of a tag may raise any exception
        raise refused(key, "yaml", _reason(error)) from None


def refused(key: str, content_type: str, reason: str) -> ProtocolError:
    """Return the error for the document ``key``, whose content does not match its content type."""
    message = f"document {key!r}: expected valid {content_type}, {cut(reason, _MOST_REASON)}"
    return ProtocolError("invalid_content", message, key=key, content_type=content_type)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())


def parse_json(raw: bytes) -> Any:
    """Parse a JSON text in UTF-8 by RFC 8259, without NaN and without duplicate keys.

    Raises ``ValueError``, ``RecursionError``.
    """
    return json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _unique(pairs)
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    """Raise ``ValueError`` if an object of the JSON text has a duplicate key. This object hook returns None to save
    memory.
    """
    if len(dict(pairs)) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} is there twice in one object")


def diff(old: bytes, new: bytes, old_name: str, new_name: str) -> str | None:
    """Return the unified diff from ``old`` to ``new``; None if ``old`` or ``new`` is not text or is longer than
    ``MAX_DIFF``.
    """
    import difflib  # imported here to save memory in processes that compute no diff

    if len(old) > MAX_DIFF or len(new) > MAX_DIFF or b"\0" in old or b"\0" in new:
        return None
    try:
        before, after = old.decode("utf-8"), new.decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), old_name, new_name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
