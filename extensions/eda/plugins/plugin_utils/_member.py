# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: client of the agent's HTTP API for the event source, based on aiohttp.

An answer comes from another machine, so the client limits the time and size of each answer. The client ignores
redirects, proxies, netrc, cookies and content encodings, because each of them could leak the token or bypass the
limits.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import typing as t
from urllib.parse import urlencode

import aiohttp
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._agreement import Finding
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._documents import (
    Document,
    parse_document,
    parse_documents,
    parse_refusal,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, parse_json
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import parse_nodes
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import Endpoint, Settings

#: Maximum bytes of an answer. The largest valid answer is a list of 100,000 documents.
MAX_ANSWER = 64 * 1024 * 1024

A = t.TypeVar("A")


class MemberFailed(Exception):
    """Raised if a member gave no usable answer; ``str()`` says why."""


class Feed(t.NamedTuple):
    """One answer from a member's change feed.

    Contains the ``revision`` for the next request, the tombstones of deleted documents by key, and the refused versions
    of documents. If the feed no longer has all changes since the requested revision, ``revision`` is the current
    revision, and ``tombstones`` and ``refusals`` are empty.
    """

    revision: int
    tombstones: dict[str, Document]
    refusals: tuple[dict[str, t.Any], ...] = ()


class NodeList(t.NamedTuple):
    """A member's valid nodes in all states, and the revision of the member's change feed at the time of the list.

    ``isolated``: whether no other member answers the member, so that the states of the nodes may be wrong.
    """

    nodes: list[dict[str, t.Any]]
    problems: list[str]
    cluster: str
    revision: int
    isolated: bool = False


class DocumentList(t.NamedTuple):
    """A member's documents by key, after validation, and its documents digest."""

    documents: dict[str, Document]
    problems: list[str]
    digest: str


class Member:
    """Client of one member's API; an asynchronous context manager. All methods raise ``MemberFailed``."""

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        # path -> (entity tag of the last answer, parsed answer)
        self._held: dict[str, tuple[str, t.Any]] = {}

    async def __aenter__(self) -> Member:
        if self.endpoint.scheme == "unix":
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(self.endpoint.path)
        elif self.endpoint.scheme == "https":
            connector = aiohttp.TCPConnector(ssl=self._settings.tls())
        else:
            connector = aiohttp.TCPConnector()
        headers = {"Accept-Encoding": "identity"}
        if self._settings.token and self.endpoint.scheme != "unix":
            headers["Authorization"] = "Bearer " + self._settings.token
        self._session = aiohttp.ClientSession(
            connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        return self

    async def __aexit__(self, *dummy: t.Any) -> None:
        if self._session is not None:
            await self._session.close()

    async def nodes(self) -> NodeList:
        """Return the member's NodeList with the nodes in all states."""
        return await self._list("/v1/nodes?state=all", _read_nodes)

    async def documents(self, prefix: str) -> DocumentList:
        """Return the descriptions, without the values, of the documents whose keys begin with ``prefix``."""
        return await self._list("/v1/documents?" + urlencode({"prefix": prefix}), _read_documents)

    async def agreement(self) -> Finding:
        """Ask this member which other members have the same documents, and return its answer."""
        return await self._read("/v1/convergence?wait=all&timeout=0", Finding)

    async def changes(self, since: int, seconds: float, prefix: str) -> Feed:
        """Wait at most ``seconds`` for changes after revision ``since``, and return these changes.

        The result is empty if nothing changed within ``seconds``.
        """
        query = urlencode({"since": since, "timeout": f"{seconds:g}", "prefix": prefix})
        return await self._read("/v1/watch?" + query, _read_feed, seconds)

    async def _list(self, path: str, read: t.Callable[[dict[str, t.Any]], A]) -> A:
        """Return the list at the API path ``path``.

        The request is conditional, so the member does not send an unchanged list again.
        """
        tag, held = self._held.get(path, ("", None))
        status, body, new_tag = await self._ask(path, {"If-None-Match": tag} if tag else {})
        if status == 304 and held is not None:
            return t.cast(A, held)
        answer = await self._parse(body, read)
        if new_tag:
            self._held[path] = (new_tag, answer)
        return answer

    async def _read(self, path: str, read: t.Callable[[dict[str, t.Any]], A], wait: float = 0.0) -> A:
        _status, body, _tag = await self._ask(path, {}, wait)
        return await self._parse(body, read)

    @staticmethod
    async def _parse(body: bytes, read: t.Callable[[dict[str, t.Any]], A]) -> A:
        # Check the answer in a thread, because the list of a large fleet would block the event loop for a while.
        try:
            return await asyncio.to_thread(_parse_object, body, read)
        except ValueError as exc:
            raise MemberFailed(f"not an agent's answer: {clip(str(exc))}") from None

    async def _ask(self, path: str, headers: dict[str, str], wait: float = 0.0) -> tuple[int, bytes, str]:
        """Send a GET request and return the status (200 or 304), the body and the entity tag."""
        assert self._session is not None
        scheme = "http" if self.endpoint.scheme == "unix" else self.endpoint.scheme
        seconds = self._settings.timeout + wait
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.get(
                f"{scheme}://{self.endpoint.authority}{path}", headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise MemberFailed("the answer has a content encoding, which was not requested")
                body = await _body(answer)
                if answer.status not in (200, 304):
                    raise MemberFailed(self._refusal(answer.status, body))
                return answer.status, body, clip(answer.headers.get("ETag", ""), 256)
        except asyncio.TimeoutError:
            raise MemberFailed(f"no complete answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise MemberFailed(_reason(exc)) from None

    def _refusal(self, status: int, body: bytes) -> str:
        message = ""
        try:
            error = parse_json(body)["error"]
            code, message = clip(str(error["code"]), 64), clip(str(error["message"]), 400)
        except (ValueError, KeyError, TypeError):
            code = "without an explanation"
        text = f"answered {status} {code}"
        if status == 403 and message:
            text += f" ({message})"
        elif status == 401:
            text += " (the token was refused)" if self._settings.token else " (a token is needed)"
        return text


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise MemberFailed(f"the answer is longer than {MAX_ANSWER} bytes")
    return bytes(body)


def _reason(exc: BaseException) -> str:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"certificate not accepted: {clip(str(exc.certificate_error))}"
    cause = getattr(exc, "os_error", None) or exc
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, ssl.SSLError):
        return os.strerror(number)  # asyncio replaces the operating system's message with "Connect call failed"
    return clip(str(cause)) or type(cause).__name__


def _parse_object(body: bytes, read: t.Callable[[dict[str, t.Any]], A]) -> A:
    answer = parse_json(body)
    if not isinstance(answer, dict):
        raise ValueError(f"expected a JSON object, got {type(answer).__name__}")
    return read(answer)


def _read_nodes(answer: dict[str, t.Any]) -> NodeList:
    nodes, problems = parse_nodes(answer.get("nodes"))
    isolated = answer.get("isolated") is True
    return NodeList(nodes, problems, clip(_text(answer, "cluster")), _revision(answer), isolated)


def _read_documents(answer: dict[str, t.Any]) -> DocumentList:
    documents, problems = parse_documents(answer.get("documents"))
    return DocumentList(documents, problems, _text(answer, "digest"))


def _read_feed(answer: dict[str, t.Any]) -> Feed:
    changes = answer.get("changes")
    if not isinstance(changes, list):
        raise ValueError(f"changes: expected a list, got {type(changes).__name__}")
    tombstones, refusals = {}, []
    for change in changes:
        if isinstance(change, dict) and change.get("event") == "deleted" and "document" in change:
            document = parse_document(change["document"])
            tombstones[document["key"]] = document
        if isinstance(change, dict) and change.get("event") == "refused" and "refusal" in change:
            refusals.append(parse_refusal(change["refusal"]))
    return Feed(_revision(answer), tombstones, tuple(refusals))


def _text(answer: dict[str, t.Any], field: str) -> str:
    value = answer.get(field)
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, got {type(value).__name__}")
    return value


def _revision(answer: dict[str, t.Any]) -> int:
    value = answer.get("revision")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**18:
        raise ValueError("revision: expected a number from 0 to 10^18")
    return value
