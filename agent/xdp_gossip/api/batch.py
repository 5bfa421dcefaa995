# SPDX-License-Identifier: MIT
"""Parses the body of ``POST /v1/documents``: several documents to write together."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ..core.shown import shown
from ..core.types import MAX_BATCH, MAX_CONTENT_TYPE, MAX_KEY, Write
from . import params
from .errors import bad_request

_MEMBERS = (
    *("key", "value", "value_base64", "content_type", "suffix"),
    *("expires_in", "if_version", "if_absent", "delete"),
)


def text(body: dict[str, Any], name: str, most: int, *, required: bool = False, where: str = "") -> str:
    """Return the string ``body[name]``: printable text of at most ``most`` bytes; "" if the key is missing.

    Raises :class:`Fault` 400.
    """
    value = body.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > most or not value.isprintable():
        raise bad_request(f"{where}{name}: expected printable text of at most {most} bytes, got {shown(value)}")
    return value


def writes(body: dict[str, Any]) -> list[Write]:
    """Parse the documents of ``body`` into a list of writes in the same order.

    Raises :class:`Fault` 400 if a document is invalid; the message names the document by its position.
    """
    documents = body.get("documents")
    if not isinstance(documents, list) or not 1 <= len(documents) <= MAX_BATCH:
        raise bad_request(f"documents: expected a list of 1 to {MAX_BATCH} documents")
    return [_write(item, f"documents[{index}].") for index, item in enumerate(documents)]


def _write(item: Any, where: str) -> Write:
    if not isinstance(item, dict):
        raise bad_request(f"{where[:-1]}: expected an object, got {type(item).__name__}")
    unknown = next((name for name in item if name not in _MEMBERS), None)
    if unknown is not None:
        raise bad_request(f"{where[:-1]}: expected no key but {', '.join(_MEMBERS)}, got {shown(unknown)}")
    key = params.key(item.get("key") or "", f"{where}key")
    deleted = _flag(item, "delete", where)
    version = text(item, "if_version", MAX_KEY, where=where)
    return Write(
        key,
        b"" if deleted else _value(item, where),
        text(item, "content_type", MAX_CONTENT_TYPE, where=where) or None,
        params.version(version, f"{where}if_version") if version else None,
        _flag(item, "if_absent", where),
        seconds(item, where),
        deleted,
        text(item, "suffix", MAX_CONTENT_TYPE, where=where),
    )


def _flag(item: dict[str, Any], name: str, where: str) -> bool:
    value = item.get(name, False)
    if not isinstance(value, bool):
        raise bad_request(f"{where}{name}: expected true or false, got {shown(value)}")
    return value


def seconds(item: dict[str, Any], where: str) -> float | None:
    """Return the value of the JSON key ``expires_in`` of ``item``, in seconds; None if the key is missing.

    Raises :class:`Fault` 400.
    """
    value = item.get("expires_in")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad_request(f"{where}expires_in: expected a number of seconds, got {shown(value)}")
    return float(value)


def _value(item: dict[str, Any], where: str) -> bytes:
    given = [name for name in ("value", "value_base64") if item.get(name) is not None]
    if len(given) != 1:
        raise bad_request(f"{where}value: expected one of value, value_base64 and delete, got {len(given) or 'none'}")
    value = item[given[0]]
    if not isinstance(value, str):
        raise bad_request(f"{where}{given[0]}: expected text, got {type(value).__name__}")
    try:
        return value.encode("utf-8") if given[0] == "value" else base64.b64decode(value, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise bad_request(
            f"{where}{given[0]}: expected valid {'Unicode' if given[0] == 'value' else 'base64'}"
        ) from None
