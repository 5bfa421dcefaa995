# SPDX-License-Identifier: MIT
"""An asynchronous client of the HTTP API, over the Unix socket, http or https."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

#: Bytes of one answer that are read at most: a long node list, or a few documents in base64.
MAX_ANSWER = 256 * 1024 * 1024

#: Added to the time a waiting request asks the agent to wait.
_GRACE = 10.0


class ApiError(Exception):
    """The agent answered with an error: ``status`` is HTTP's, ``details`` is what came beside code and message."""

    def __init__(self, code: str, message: str, status: int, details: Mapping[str, Any]) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.status = status
        self.details = dict(details)


class Unreachable(Exception):
    """No answer from ``endpoint``; ``why`` says what happened instead."""

    def __init__(self, endpoint: str, why: str) -> None:
        super().__init__(f"{endpoint}: {why}")
        self.endpoint = endpoint
        self.why = why


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", None) or error
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, ssl.SSLError):
        return os.strerror(number)  # asyncio puts "Connect call failed" into strerror
    return str(cause) or type(cause).__name__


def _params(**values: Any) -> dict[str, str]:
    """Query parameters, those that are None left out."""
    return {name: str(value) for name, value in values.items() if value is not None}


class Client:
    """A connection to one agent; use it as an asynchronous context manager.

    ``endpoint`` is ``unix:///path``, ``http://host:port`` or ``https://host:port``; ``ca_file`` holds the certificates
    to check an https endpoint against (default: the system's). ``timeout`` is in seconds and for one whole request.
    Methods raise :class:`ApiError` and :class:`Unreachable`; the constructor raises ``ValueError``.
    """

    def __init__(
        self, endpoint: str, *, token: str | None = None, ca_file: str | None = None, timeout: float = 30.0
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme == "unix":
            good = not parts.netloc and parts.path.startswith("/")
        else:
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
        if not good or parts.query or parts.fragment or parts.username:
            raise ValueError(f"expected unix:///PATH, http://HOST:PORT or https://HOST:PORT, got {endpoint!r}")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("token: expected printable ASCII characters")
        self.endpoint = endpoint
        self._unix_path = parts.path if parts.scheme == "unix" else ""
        self._base = "http://localhost" if self._unix_path else endpoint.rstrip("/")
        self._ssl = _trust(ca_file) if parts.scheme == "https" else None
        self._headers = {"Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        connector: aiohttp.BaseConnector
        if self._unix_path:
            connector = aiohttp.UnixConnector(self._unix_path)
        else:
            connector = aiohttp.TCPConnector(ssl=self._ssl) if self._ssl else aiohttp.TCPConnector()
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        """One request; ``path`` is already percent-encoded. Returns the body and the headers of a 2xx answer."""
        if self._session is None:
            raise RuntimeError("client: expected use inside 'async with'")
        # Encoded here, since a key may hold characters that yarl would rather normalise.
        url = URL(self._base + path + (f"?{urlencode(params, quote_via=quote)}" if params else ""), encoded=True)
        limit = aiohttp.ClientTimeout(total=self._timeout if timeout is None else timeout)
        try:
            async with self._session.request(
                method, url, headers=headers, data=body, timeout=limit, allow_redirects=False
            ) as answer:
                content = await _read(answer)
                if not 200 <= answer.status < 300:
                    raise _error(answer.status, answer.reason or "", content)
                return content, answer.headers
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise Unreachable(self.endpoint, _reason(error)) from error

    async def json(self, method: str, path: str, *, value: Any = None, **options: Any) -> Any:
        """One request whose answer, and whose body when ``value`` is given, is JSON."""
        if value is not None:
            options["body"] = json.dumps(value).encode("utf-8")
            options["headers"] = {**(options.get("headers") or {}), "Content-Type": "application/json"}
        content, _headers = await self.request(method, path, **options)
        try:
            return json.loads(content)
        except ValueError:
            raise Unreachable(self.endpoint, "the answer is not JSON: expected an agent's API there") from None

    async def status(self) -> dict[str, Any]:
        """GET /v1/status."""
        return dict(await self.json("GET", "/v1/status"))

    async def nodes(self, state: str | None = None) -> dict[str, Any]:
        """GET /v1/nodes; ``state`` as in the API."""
        return dict(await self.json("GET", "/v1/nodes", params=_params(state=state)))

    async def node(self) -> dict[str, Any]:
        """GET /v1/node."""
        return dict(await self.json("GET", "/v1/node"))

    async def update_node(self, *, name: str | None = None, private_data: str | None = None) -> dict[str, Any]:
        """PATCH /v1/node."""
        return dict(await self.json("PATCH", "/v1/node", value=_params(name=name, private_data=private_data)))

    async def join(self, addresses: list[str]) -> int:
        """POST /v1/node/join; returns how many were new."""
        return int((await self.json("POST", "/v1/node/join", value={"nodes": addresses}))["added"])

    async def switch(self, operation: str) -> dict[str, Any]:
        """POST /v1/node/start, stop or leave."""
        return dict(await self.json("POST", f"/v1/node/{operation}"))

    async def documents(self, prefix: str = "") -> dict[str, Any]:
        """GET /v1/documents."""
        return dict(await self.json("GET", "/v1/documents", params=_params(prefix=prefix or None)))

    async def read(self, key: str) -> tuple[bytes, Mapping[str, str]]:
        """GET /v1/documents/KEY: the value and the headers (ETag, X-XDP-Gossip-Digest, Content-Type)."""
        return await self.request("GET", _document(key))

    async def document(self, key: str) -> dict[str, Any]:
        """GET /v1/documents/KEY?format=json."""
        return dict(await self.json("GET", _document(key), params={"format": "json"}))

    async def publish(
        self,
        key: str,
        value: bytes,
        *,
        if_version: str | None = None,
        if_absent: bool = False,
        content_type: str | None = None,
        author: str | None = None,
        comment: str | None = None,
    ) -> dict[str, Any]:
        """PUT /v1/documents/KEY; a failed comparison is an :class:`ApiError` with status 412."""
        params = _params(content_type=content_type, author=author, comment=comment)
        headers = _condition(if_version, if_absent)
        return dict(await self.json("PUT", _document(key), params=params, headers=headers, body=value))

    async def delete(self, key: str, *, if_version: str | None = None) -> dict[str, Any]:
        """DELETE /v1/documents/KEY."""
        return dict(await self.json("DELETE", _document(key), headers=_condition(if_version, False)))

    async def history(self, key: str, *, values: bool = False) -> dict[str, Any]:
        """GET /v1/history/KEY."""
        path = f"/v1/history/{quote(key, safe='/')}"
        return dict(await self.json("GET", path, params={"values": "1"} if values else None))

    async def watch(self, since: int | None = None, timeout: float = 30.0, prefix: str = "") -> dict[str, Any]:
        """GET /v1/watch, one long poll of at most ``timeout`` (60) seconds."""
        params = _params(since=since, timeout=timeout, prefix=prefix or None)
        return dict(await self.json("GET", "/v1/watch", params=params, timeout=timeout + _GRACE))

    async def convergence(
        self,
        key: str | None = None,
        *,
        version: str | None = None,
        digest: str | None = None,
        deleted: bool = False,
        applied: bool = False,
        wait: str = "all",
        timeout: float = 0.0,
    ) -> dict[str, Any]:
        """GET /v1/convergence, waiting at most ``timeout`` (60) seconds."""
        flag = "1" if deleted else None
        one = "1" if applied else None
        params = _params(key=key, version=version, digest=digest, deleted=flag, applied=one, wait=wait, timeout=timeout)
        return dict(await self.json("GET", "/v1/convergence", params=params, timeout=timeout + _GRACE))

    async def rendered(self) -> list[dict[str, Any]]:
        """GET /v1/rendered."""
        return list((await self.json("GET", "/v1/rendered"))["templates"])

    async def keys(self) -> list[dict[str, Any]]:
        """GET /v1/keys."""
        return list((await self.json("GET", "/v1/keys"))["keys"])


def _document(key: str) -> str:
    return f"/v1/documents/{quote(key, safe='/')}"


def _condition(if_version: str | None, if_absent: bool) -> dict[str, str]:
    if if_absent:
        return {"If-None-Match": "*"}
    return {"If-Match": f'"{if_version}"'} if if_version else {}


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"CA file {ca_file}: expected PEM certificates, got {error.strerror or error}") from None


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise aiohttp.ClientPayloadError(f"the answer is longer than {MAX_ANSWER} bytes")
    return bytes(body)


def _error(status: int, reason: str, content: bytes) -> ApiError:
    try:
        details = dict(json.loads(content)["error"])
        return ApiError(str(details.pop("code")), str(details.pop("message")), status, details)
    except (ValueError, KeyError, TypeError):
        return ApiError("http_error", f"the agent answered {status} {reason}", status, {})
