# SPDX-License-Identifier: MIT
"""Splits lists into pages by ``limit`` and ``cursor``, and encodes long responses without blocking other requests."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from aiohttp import web

from . import params, render
from .errors import bad_request

T = TypeVar("T")

#: Maximum number of entries of one page.
MAX_PAGE = 10_000
#: Number of entries that are encoded before the event loop runs other tasks. A document counts once more for each of
#: its recipients, because the publisher decides how many there are.
_SLICE = 250
#: The fastest compression level of gzip: 60 to 100 MB/s on one core.
_LEVEL = 1


class Page(NamedTuple):
    """The requested part of a list: ``limit`` entries (None: all) after the key ``cursor`` ("": from the beginning)."""

    limit: int | None
    cursor: str

    @property
    def more(self) -> int | None:
        """The number of entries to request from the node list: one more than the page, which shows whether a next page
        exists.
        """
        return None if self.limit is None else self.limit + 1

    def cut(self, found: list[T], key: Callable[[T], str]) -> tuple[list[T], str | None]:
        """Return the entries of ``found`` on this page, and the cursor of the next page (None for the last page)."""
        if self.limit is None or len(found) <= self.limit:
            return found, None
        return found[: self.limit], key(found[self.limit - 1])


def page(query: dict[str, str], longest: int) -> Page:
    """Parse the query parameters ``limit`` and ``cursor``.

    The cursor is the key of a list entry and has at most ``longest`` bytes. Raises :class:`Fault` 400.
    """
    cursor = query.get("cursor", "")
    if len(cursor.encode("utf-8", "surrogatepass")) > longest:
        raise bad_request(f"cursor: expected the next_cursor of an answer, at most {longest} bytes")
    limit = params.natural(query, "limit", 0)
    if "limit" in query and not 1 <= limit <= MAX_PAGE:
        raise bad_request(f"limit: expected 1 to {MAX_PAGE}, got {limit}")
    return Page(limit or None, cursor)


async def answer(
    request: web.Request,
    name: str,
    entries: Sequence[T],
    shape: Callable[[T], dict[str, Any]],
    more: dict[str, Any],
    headers: dict[str, str],
) -> web.Response:
    """Build the JSON response with ``entries`` under the key ``name``, and the keys of ``more`` beside ``name``.

    The entries are encoded in slices, and the event loop runs other tasks between slices. The response is compressed if
    the client accepts gzip. Only lists are compressed: the length of a compressed document would reveal the document's
    content to a client that can write a part of the document (BREACH).
    """
    end = b"]," + json.dumps(more, ensure_ascii=True).encode()[1:]
    return await _answer(request, f'{{"{name}":['.encode(), entries, shape, end, headers)


async def plain_answer(
    request: web.Request, entries: Sequence[T], shape: Callable[[T], dict[str, Any]], headers: dict[str, str]
) -> web.Response:
    """Build a JSON response that is the list of ``entries`` itself, as :func:`answer` does."""
    return await _answer(request, b"[", entries, shape, b"]", headers)


async def _answer(
    request: web.Request,
    begin: bytes,
    entries: Sequence[T],
    shape: Callable[[T], dict[str, Any]],
    end: bytes,
    headers: dict[str, str],
) -> web.Response:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31) if _takes_gzip(request) else None
    pieces: list[bytes] = []
    before = begin
    for part in _slices(entries, shape):
        raw = before + render.json_bytes(part)[1:-1]
        pieces.append(raw if packer is None else packer.compress(raw))
        before = b","
        await asyncio.sleep(0)
    raw = (begin if not entries else b"") + end
    headers = {**headers, "Vary": "Accept-Encoding"}
    if packer is None:
        pieces.append(raw)
    else:
        pieces += [packer.compress(raw), packer.flush()]
        headers["Content-Encoding"] = "gzip"
    body = b"".join(pieces)
    return web.Response(body=body, headers=headers, content_type="application/json", charset="utf-8")


def _slices(entries: Sequence[T], shape: Callable[[T], dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Convert ``entries``, and yield them in parts that take about the same time."""
    part: list[dict[str, Any]] = []
    weight = 0
    for entry in entries:
        shaped = shape(entry)
        part.append(shaped)
        weight += 1 + len((shaped.get("sealed") or {}).get("recipients", ()))
        if weight >= _SLICE:
            yield part
            part, weight = [], 0
    if part:
        yield part


def _takes_gzip(request: web.Request) -> bool:
    """Whether the Accept-Encoding header accepts gzip or ``*`` with a weight above 0 (RFC 9110, 12.5.3)."""
    weights: dict[str, str] = {}
    for part in request.headers.get("Accept-Encoding", "").lower().split(","):
        coding, _, weight = part.partition(";")
        weights[coding.strip()] = weight.strip()
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "q=0")))
    return weight.removeprefix("q=").strip("0.") != "" if weight.startswith("q=") else True
