# SPDX-License-Identifier: MIT
"""Parses the body of ``POST /v1/documents``: several documents to write together."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from typing import Any

from ..core.shown import shown
from ..core.signatures import MAX_ANCESTORS, MAX_SIGNATURE
from ..core.types import MAX_BATCH, MAX_CONTENT_TYPE, MAX_KEY, Signed, Version, Write
from ..signing.sshsig import unarmored
from . import params
from .errors import bad_request

_MEMBERS = (
    *("key", "value", "value_base64", "content_type", "suffix"),
    *("expires_in", "if_version", "if_absent", "delete", "expires", "read"),
)
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,6}))?Z")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


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
    signature = _signature(body)
    return [_write(item, f"documents[{index}].", signature) for index, item in enumerate(documents)]


def _signature(body: dict[str, Any]) -> tuple[int, bytes] | None:
    """Return time and blob of the signature over all documents of ``body``; None if the body has no signature.

    Raises :class:`Fault` 400.
    """
    given = [name for name in ("signed_at", "signature") if body.get(name) is not None]
    if not given:
        return None
    if len(given) == 1:
        raise bad_request(f"expected both signed_at and signature, or neither, got only {given[0]}")
    signed_at = _time(body, "signed_at", "")
    armored = body["signature"]
    if not isinstance(armored, str) or len(armored) > 4 * MAX_SIGNATURE:
        raise bad_request(f"signature: expected a signature of OpenSSH in base64, got {shown(armored)}")
    try:
        blob = unarmored(armored)
    except ValueError as error:
        raise bad_request(f"signature: {error}") from None
    if len(blob) > MAX_SIGNATURE:
        raise bad_request(f"signature: expected at most {MAX_SIGNATURE} bytes, got {len(blob)}")
    return signed_at, blob


def _time(item: dict[str, Any], name: str, where: str) -> int:
    """Return a time such as ``2027-01-31T12:00:00.123456Z`` in microseconds since the epoch. Raises :class:`Fault`."""
    value = item.get(name)
    wanted = f"{where}{name}: expected a time such as 2027-01-31T12:00:00.123456Z, got {shown(value)}"
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise bad_request(wanted)
    try:
        whole = datetime.datetime.fromisoformat(f"{match[1]}+00:00")
    except ValueError:
        raise bad_request(wanted) from None
    found = int((whole - _EPOCH).total_seconds()) * 1_000_000 + int((match[2] or "").ljust(6, "0"))
    if found < 0:
        raise bad_request(wanted)
    return found


def _write(item: Any, where: str, signature: tuple[int, bytes] | None) -> Write:
    if not isinstance(item, dict):
        raise bad_request(f"{where[:-1]}: expected an object, got {type(item).__name__}")
    unknown = next((name for name in item if name not in _MEMBERS), None)
    if unknown is not None:
        raise bad_request(f"{where[:-1]}: expected no key but {', '.join(_MEMBERS)}, got {shown(unknown)}")
    key = params.key(item.get("key") or "", f"{where}key")
    deleted = _flag(item, "delete", where)
    version = text(item, "if_version", MAX_KEY, where=where)
    expires, signed = 0, None
    if signature is not None:
        signed = Signed(signature[0], _read(item, where), signature[1])
        expires = _time(item, "expires", where) // 1000 if item.get("expires") is not None else 0
        if item.get("expires_in") is not None:
            raise bad_request(f"{where}expires_in: expected expires instead, as the signature covers the time")
        if not deleted and not item.get("content_type"):
            raise bad_request(f"{where}content_type: expected the type of the content, as the signature covers it")
    else:
        unsigned = next((name for name in ("read", "expires") if item.get(name) is not None), None)
        if unsigned is not None:
            raise bad_request(f"{where}{unsigned}: expected only in a request with a signature")
    return Write(
        key,
        b"" if deleted else _value(item, where),
        text(item, "content_type", MAX_CONTENT_TYPE, where=where) or None,
        params.version(version, f"{where}if_version") if version else None,
        _flag(item, "if_absent", where),
        seconds(item, where),
        deleted,
        text(item, "suffix", MAX_CONTENT_TYPE, where=where),
        expires,
        signed=signed,
    )


def _read(item: dict[str, Any], where: str) -> tuple[Version, ...]:
    value = item.get("read")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_ANCESTORS + 1:
        raise bad_request(f"{where}read: expected a list of at most {MAX_ANCESTORS + 1} versions, got {shown(value)}")
    return tuple(params.version(each, f"{where}read") for each in value)


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
