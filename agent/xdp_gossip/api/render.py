# SPDX-License-Identifier: MIT
"""Answers of the API: JSON in UTF-8, and the entity tags by which a reader asks whether something is new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

#: Not sent with the entity tag of the node list, because they change with every heartbeat.
_VOLATILE = ("last_heard", "sequence")


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


def nodes_etag(nodes: Iterable[dict[str, Any]], *more: str) -> str:
    """Entity tag of a node list: equal as long as nothing but heartbeats came in."""
    stable = [{name: value for name, value in entry.items() if name not in _VOLATILE} for entry in nodes]
    return etag_of([stable, *more])
