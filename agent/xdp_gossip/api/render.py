# SPDX-License-Identifier: MIT
"""Builds the API's JSON responses and the entity tags that let a client detect changes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aiohttp import web


def json_bytes(value: Any) -> bytes:
    """Encode ``value`` as one line of JSON in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Only the agent's own values can contain a lone surrogate. Escape the surrogate, because otherwise the whole
    # response would fail.
    return text.encode("utf-8", "backslashreplace")


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Build a response with ``value`` as JSON in UTF-8."""
    body = json_bytes(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def etag_of(value: Any) -> str:
    """Compute a weak entity tag (RFC 9110, 8.8.1) of the JSON value ``value``."""
    raw = json.dumps(value, sort_keys=True).encode("utf-8")
    return f'W/"{hashlib.blake2b(raw, digest_size=12).hexdigest()}"'
