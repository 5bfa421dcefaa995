# SPDX-License-Identifier: MIT
"""Answers of the API: JSON in UTF-8, and the entity tags that tell a reader whether anything is new."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aiohttp import web


def json_bytes(value: Any) -> bytes:
    """``value`` as JSON in UTF-8, on one line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate can only come from a value of our own; escape it rather than fail the whole answer.
    return text.encode("utf-8", "backslashreplace")


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """``value`` as a JSON response in UTF-8."""
    body = json_bytes(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def etag_of(value: Any) -> str:
    """A weak entity tag (RFC 9110, 8.8.1) of a JSON value."""
    raw = json.dumps(value, sort_keys=True).encode("utf-8")
    return f'W/"{hashlib.blake2b(raw, digest_size=12).hexdigest()}"'
