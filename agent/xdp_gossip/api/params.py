# SPDX-License-Identifier: MIT
"""Parse the query, headers, path and body of a request strictly.

Each function raises :class:`Fault` 400 for unexpected input; the message names the expected form.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.http import HttpVersion11

from ..core.shown import shown
from ..core.types import Version, check_key
from ..worker import content
from .access import recheck
from .asked import Asked
from .errors import Fault, bad_request
from .uploads import Uploads

#: Maximum size, in bytes, of a JSON request body. A JSON body contains only a few settings or a list of addresses.
MAX_JSON = 1 << 20
#: A client must send the whole body within this many seconds; otherwise its request is rejected.
BODY_SECONDS = 30.0

_ETAG = re.compile(r'(W/)?"([^"]*)"')


def query(request: web.Request, allowed: Sequence[str]) -> dict[str, str]:
    """Return the query parameters as a plain mapping.

    Raises :class:`Fault` 400 for an unknown or repeated parameter: ignoring a mistyped name would hide the mistake.
    """
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in allowed:
            expected = f"one of {', '.join(allowed)}" if allowed else "no parameter"
            raise bad_request(f"query parameter: expected {expected}, got {shown(name)}", "unknown_parameter")
        if name in found:
            raise bad_request(f"query parameter {name}: expected it only once", "repeated_parameter")
        found[name] = value
    return found


def seconds(params: dict[str, str], name: str, default: float, most: float) -> float:
    """Return the query parameter ``name`` as a duration of 0 to ``most`` seconds; ``default`` if it is missing."""
    text = params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:  # this comparison also rejects nan and inf
        raise bad_request(f"{name}: expected seconds from 0 to {most:.12g}, got {shown(text)}")
    return value


def natural(params: dict[str, str], name: str, default: int) -> int:
    """Return the query parameter ``name`` as a non-negative integer; ``default`` if the parameter is missing."""
    text = params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise bad_request(f"{name}: expected a non-negative integer, got {shown(text)}")
    return int(text)


def flag(params: dict[str, str], name: str) -> bool:
    """Return True if the query parameter ``name`` is 1, and False if the parameter is 0 or missing."""
    text = params.get(name, "0")
    if text not in ("0", "1"):
        raise bad_request(f"{name}: expected 0 or 1, got {shown(text)}")
    return text == "1"


def choice(params: dict[str, str], name: str, values: Sequence[str]) -> str:
    """Return the query parameter ``name``, which must be one of ``values``; "" if the parameter is missing."""
    text = params.get(name)
    if text is None:
        return ""
    if text not in values:
        raise bad_request(f"{name}: expected {' or '.join(values)}, got {shown(text)}")
    return text


def text_limit(params: dict[str, str], name: str, default: str, most: int) -> str:
    """Return the query parameter ``name``: at most ``most`` bytes of text without control characters."""
    value = params.get(name, default)
    if len(value.encode("utf-8", "surrogatepass")) > most or not value.isprintable():
        raise bad_request(f"{name}: expected at most {most} bytes of printable text")
    return value


def version(text: str, name: str) -> Version:
    """Parse the document version ``text``; ``name`` is the parameter's name for the error message."""
    try:
        return Version.parse(text)
    except ValueError as error:
        raise bad_request(f"{name}: {error}", "invalid_version") from None


def key(text: str, name: str = "key") -> str:
    """Validate and return the document key ``text``; ``name`` is the parameter's name for the error message."""
    try:
        return check_key(text)
    except ValueError as error:
        raise bad_request(f"{name}: {error}", "invalid_key") from None


def path_key(request: web.Request, prefix: str) -> str:
    """Return the document key that follows ``prefix`` in the request path.

    The key is decoded from the raw path, because aiohttp's decoded path replaces bytes that are not UTF-8.
    """
    raw = request.rel_url.raw_path[len(prefix) :]
    try:
        return key(unquote_to_bytes(raw).decode("utf-8"))
    except UnicodeDecodeError:
        raise bad_request("key: expected percent-encoded UTF-8", "invalid_key") from None


def etags(value: str, name: str) -> list[tuple[bool, str]]:
    """Parse an If-Match or If-None-Match header into a list of (weak, tag). The caller handles ``*``."""
    tags: list[tuple[bool, str]] = []
    for part in value.split(","):
        match = _ETAG.fullmatch(part.strip())
        if not match:
            raise bad_request(f'{name}: expected * or entity tags such as "1234", got {shown(value)}', "invalid_header")
        tags.append((bool(match[1]), match[2]))
    return tags


def matches(header: str | None, etag: str) -> bool:
    """Whether the If-None-Match header ``header`` contains ``etag`` (weak comparison, RFC 9110, 8.8.3.2)."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return etag.removeprefix("W/").strip('"') in (tag for _weak, tag in etags(header, "If-None-Match"))


async def not_yet(request: web.Request) -> None:
    """Do nothing on ``Expect: 100-continue``; :func:`_ask_for_body` sends the 100 response after the token check.

    aiohttp's default handler would ask the client for the body before the token is checked.
    """


def _ask_for_body(request: web.Request) -> None:
    waits = request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11
    if waits and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def read_body(request: web.Request, uploads: Uploads, limit: int, code: str = "body_too_large") -> bytes:
    """Read and return the whole body: at most ``limit`` bytes, within :data:`BODY_SECONDS`.

    The size of each chunk that arrives is added to the total that ``uploads`` limits. Raises :class:`Fault` 413 if the
    body is too long, 408 if the body is not complete in time, and 503 if the body would exceed the total of
    ``uploads``. A body with a Content-Length above ``limit`` is rejected before it is read. Also raises :class:`Fault`
    503 if the client has closed the connection or the client's deadline has passed, and 401 if the client's rights have
    changed. The handler of every state-changing
    request reads the body first, so the request is not executed if its client no longer waits.
    """
    asked = Asked.of(request)
    length = request.content_length
    too_large = Fault(413, code, f"expected a body of at most {limit} bytes", limit=limit)
    if length is not None and length > limit:
        raise too_large
    if request.headers.get("Content-Encoding", "identity") != "identity":
        # Compressed bodies are rejected: a few kilobytes can decompress to gigabytes.
        raise Fault(415, "unsupported_encoding", "expected a body without Content-Encoding")
    try:
        _ask_for_body(request)
        with uploads.opened() as upload:
            if not await uploads.read(request.content, upload, limit, BODY_SECONDS):
                raise too_large
            body = bytes(upload.data)
    except asyncio.TimeoutError:
        raise Fault(408, "body_timeout", f"expected the whole body within {BODY_SECONDS:g} seconds") from None
    except ConnectionError:
        raise Fault(503, "client_gone", "the client closed the connection; nothing was done") from None
    asked.check()
    recheck(request)
    return body


async def read_json(request: web.Request, uploads: Uploads) -> Any:
    """Read the body and parse it as JSON (RFC 8259: no NaN).

    Raises :class:`Fault` 400 if the body is not valid JSON, repeats a key of an object, or is nested too deeply.
    """
    return parse_json(await read_body(request, uploads, MAX_JSON))


def parse_json(raw: bytes) -> Any:
    """Parse the JSON text ``raw``. Raises :class:`Fault` 400 if ``raw`` is not valid JSON."""
    try:
        return content.parse_json(raw)
    except (ValueError, RecursionError) as error:
        raise no_json("nested too deeply" if isinstance(error, RecursionError) else str(error)) from None


def no_json(reason: str) -> Fault:
    """Build the :class:`Fault` 400 for a body that is not JSON; ``reason`` is the parser's message."""
    return bad_request(f"body: expected JSON, got something else ({reason})", "invalid_json")


async def read_object(request: web.Request, uploads: Uploads, allowed: Sequence[str]) -> dict[str, Any]:
    """Read the body as a JSON object whose keys are all in ``allowed``."""
    return as_object(await read_json(request, uploads), allowed)


def as_object(value: Any, allowed: Sequence[str]) -> dict[str, Any]:
    """Return ``value`` if ``value`` is a JSON object whose keys are all in ``allowed``. Raises :class:`Fault` 400."""
    if not isinstance(value, dict):
        raise bad_request(f"body: expected a JSON object, got {type(value).__name__}")
    for name in value:
        if name not in allowed:
            raise bad_request(f"body: expected no key but {', '.join(allowed)}, got {shown(name)}")
    return value


async def no_body(request: web.Request, uploads: Uploads) -> None:
    """Raise :class:`Fault` 400 unless the body of ``request`` is empty."""
    if await read_body(request, uploads, 0, "unexpected_body"):
        raise bad_request("expected no body", "unexpected_body")
