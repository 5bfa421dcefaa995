# SPDX-License-Identifier: MIT
"""An asynchronous client of the HTTP API over a Unix socket, http or https."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from ..core.shown import shown
from .eventstream import MEDIA_TYPE, Event, Parser
from .headers import ID_HEADER, TIMEOUT_HEADER, UNLESS_HEADER, UNLESS_ISOLATED

#: Maximum size, in bytes, of a response that the client reads: enough for a long node list, or for a few documents in
#: base64.
MAX_ANSWER = 256 * 1024 * 1024

#: Number of entries that the client requests per page of a list.
_PAGE = 1000

#: The client gives up if a response comes this many seconds later than the wait time that the request specifies.
_GRACE = 10.0

#: A write must take effect within this fraction of the client's timeout. The rest of the timeout is reserved for the
#: arrival of the answer.
_SHARE = 0.9
#: Seconds within which the client must find out the outcome of a write whose answer was lost, or cancel the write.
_SETTLE = 5.0

#: A stream that is silent for this many seconds is considered lost. The agent sends a comment every 15 seconds.
_SILENCE = 45.0


class ApiError(Exception):
    """The agent's error response.

    ``status`` is the HTTP status. ``details`` contains the JSON keys of the error other than ``code`` and ``message``.
    """

    def __init__(self, code: str, message: str, status: int, details: Mapping[str, Any]) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.status = status
        self.details = dict(details)


class Unreachable(Exception):
    """No valid response came from ``endpoint``; ``why`` gives the reason.

    ``sent``: whether the request may have reached the agent. ``request``: the id of a write that may still take effect,
    otherwise "".
    """

    def __init__(self, endpoint: str, why: str, *, sent: bool = True, request: str = "") -> None:
        super().__init__(f"{endpoint}: {why}")
        self.endpoint = endpoint
        self.why = why
        self.sent = sent
        self.request = request


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", None) or error
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(cause, ssl.SSLError):
        return os.strerror(number)  # asyncio's own error message only says "Connect call failed"
    return str(cause) or type(cause).__name__


def _params(**values: Any) -> dict[str, str]:
    """Convert the query parameters to strings, and omit parameters whose value is None."""
    return {name: str(value) for name, value in values.items() if value is not None}


class Client:
    """A connection to one agent, used as an asynchronous context manager.

    ``endpoint`` is ``unix:///path``, ``http://host:port`` or ``https://host:port``. ``ca_file`` contains the CA
    certificates that verify an https endpoint (default: the system's). ``timeout`` is the time limit of each request,
    in seconds. Methods raise :class:`ApiError` and :class:`Unreachable`. The constructor raises ``ValueError`` if
    ``endpoint`` or ``ca_file`` is invalid.
    """

    def __init__(
        self, endpoint: str, *, token: str | None = None, ca_file: str | None = None, timeout: float = 30.0
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme == "unix":
            good = not parts.netloc and parts.path.startswith("/")
        else:
            # Reading ``port`` raises ValueError if the port is not a number.
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
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
        # On the Unix socket, compressing lists would only cost processor time.
        self._lists = {} if self._unix_path else {"Accept-Encoding": "gzip"}
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
        """Send one request and return the body and headers of its 2xx response. ``path`` is already percent-encoded."""
        limit = aiohttp.ClientTimeout(total=self._timeout if timeout is None else timeout)
        try:
            async with self._open_session().request(
                method, self._url(path, params), headers=headers, data=body, timeout=limit, allow_redirects=False
            ) as answer:
                content = await _read(answer)
                if not 200 <= answer.status < 300:
                    raise _error(answer.status, answer.reason or "", content)
                return content, answer.headers
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise Unreachable(self.endpoint, _reason(error), sent=sent) from error

    async def _write(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request that changes documents.

        If the answer is lost, find out whether the request took effect, and cancel it if it did not.

        Raises :class:`Unreachable`, whose ``request`` is set if the write may still take effect.
        """
        number = secrets.token_hex(16)
        headers = {**(options.pop("headers", None) or {}), ID_HEADER: number}
        headers[TIMEOUT_HEADER] = f"{self._timeout * _SHARE:.3f}"
        try:
            return dict(await self.json(method, path, headers=headers, **options))
        except Unreachable as error:
            if not error.sent:
                raise
            return await self._settle(number, error)

    async def _settle(self, number: str, lost: Unreachable) -> dict[str, Any]:
        try:
            found = await self.cancel_request(number, timeout=min(_SETTLE, self._timeout))
        except (Unreachable, ApiError):
            text = f"{lost.why}; it may still take effect: 'xdp-gossip request {number}' tells, when the agent answers"
            raise Unreachable(self.endpoint, text, request=number) from lost
        if found.get("state") == "done":
            return dict(found["answer"])
        raise Unreachable(self.endpoint, f"{lost.why}; the request was cancelled and does not take effect") from lost

    async def find_request(self, number: str) -> dict[str, Any]:
        """GET /v1/requests/ID: the outcome of a write."""
        return dict(await self.json("GET", f"/v1/requests/{quote(number, safe='')}"))

    async def cancel_request(self, number: str, *, timeout: float | None = None) -> dict[str, Any]:
        """DELETE /v1/requests/ID: cancel a write and return its outcome.

        A write that has not taken effect before it is cancelled never takes effect.
        """
        return dict(await self.json("DELETE", f"/v1/requests/{quote(number, safe='')}", timeout=timeout))

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("client: expected use inside 'async with'")
        return self._session

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        # The URL is encoded here, because yarl would normalise some characters of a key.
        return URL(self._base + path + (f"?{urlencode(params, quote_via=quote)}" if params else ""), encoded=True)

    async def json(self, method: str, path: str, *, value: Any = None, **options: Any) -> Any:
        """Send one request and parse its JSON response; ``value``, if given, is sent as the JSON body."""
        if value is not None:
            options["body"] = json.dumps(value).encode("utf-8")
            options["headers"] = {**(options.get("headers") or {}), "Content-Type": "application/json"}
        content, _headers = await self.request(method, path, **options)
        try:
            return json.loads(content)
        except ValueError:
            raise Unreachable(
                self.endpoint, "the answer is not JSON: expected the API of an agent at this endpoint"
            ) from None

    async def status(self) -> dict[str, Any]:
        """GET /v1/status."""
        return dict(await self.json("GET", "/v1/status"))

    async def nodes(
        self,
        state: str | None = None,
        *,
        zone: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """GET /v1/nodes; ``state``, ``zone``, ``limit`` and ``cursor`` have the same meaning as in the API."""
        params = _params(state=state, zone=zone, limit=limit, cursor=cursor)
        return dict(await self.json("GET", "/v1/nodes", params=params, headers=self._lists))

    async def each_node(self, state: str | None = None, *, zone: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield all nodes in ``state`` and ``zone``, ordered by address.

        The client requests the nodes page by page to keep each response short.
        """
        cursor: str | None = None
        while True:
            found = await self.nodes(state, zone=zone, limit=_PAGE, cursor=cursor)
            for node in found["nodes"]:
                yield node
            cursor = found["next_cursor"]
            if cursor is None:
                return

    async def forget(self, node: str) -> dict[str, Any]:
        """DELETE /v1/nodes/NODE: remove a dead node, named by address and port or by name. Returns the node."""
        return dict((await self.json("DELETE", f"/v1/nodes/{quote(node, safe='')}"))["forgotten"])

    async def node(self) -> dict[str, Any]:
        """GET /v1/node."""
        return dict(await self.json("GET", "/v1/node"))

    async def update_node(self, *, name: str | None = None, private_data: str | None = None) -> dict[str, Any]:
        """PATCH /v1/node."""
        return dict(await self.json("PATCH", "/v1/node", value=_params(name=name, private_data=private_data)))

    async def join(self, addresses: list[str]) -> int:
        """POST /v1/node/join; returns how many of the addresses were new."""
        return int((await self.json("POST", "/v1/node/join", value={"nodes": addresses}))["added"])

    async def switch(self, operation: str) -> dict[str, Any]:
        """POST /v1/node/OPERATION, where ``operation`` is start, stop or leave."""
        return dict(await self.json("POST", f"/v1/node/{operation}"))

    async def documents(
        self, prefix: str = "", *, limit: int | None = None, cursor: str | None = None
    ) -> dict[str, Any]:
        """GET /v1/documents; ``limit`` and ``cursor`` have the same meaning as in the API."""
        params = _params(prefix=prefix or None, limit=limit, cursor=cursor)
        return dict(await self.json("GET", "/v1/documents", params=params, headers=self._lists))

    async def each_document(self, prefix: str = "") -> AsyncIterator[dict[str, Any]]:
        """Yield all documents, ordered by key.

        The client requests the documents page by page to keep each response short.
        """
        cursor: str | None = None
        while True:
            found = await self.documents(prefix, limit=_PAGE, cursor=cursor)
            for document in found["documents"]:
                yield document
            cursor = found["next_cursor"]
            if cursor is None:
                return

    async def read(self, key: str, version: str | None = None) -> tuple[bytes, Mapping[str, str]]:
        """GET /v1/documents/KEY: returns the value and the headers (ETag, X-XDP-Gossip-Digest, Content-Type)."""
        return await self.request("GET", _document(key), params=_params(version=version))

    async def document(self, key: str, version: str | None = None) -> dict[str, Any]:
        """GET /v1/documents/KEY?format=json."""
        return dict(await self.json("GET", _document(key), params=_params(format="json", version=version)))

    async def sealing_key(self) -> dict[str, Any]:
        """GET /v1/sealing-key."""
        return dict(await self.json("GET", "/v1/sealing-key"))

    async def publish(
        self,
        key: str,
        value: bytes,
        *,
        if_version: str | None = None,
        if_absent: bool = False,
        content_type: str | None = None,
        suffix: str | None = None,
        author: str | None = None,
        comment: str | None = None,
        expires_in: float | None = None,
        unless_isolated: bool = False,
    ) -> dict[str, Any]:
        """PUT /v1/documents/KEY.

        Raises :class:`ApiError` with status 412 if the document does not meet the condition ``if_version`` or
        ``if_absent``.

        ``suffix``: suffix of the file that contained the value. If the key of a new document has no suffix, ``suffix``
        determines the document's content type. ``unless_isolated``: an isolated member must refuse the write.
        """
        params = _params(
            content_type=content_type,
            suffix=suffix,
            author=author,
            comment=comment,
            expires_in=expires_in,
        )
        headers = _condition(if_version, if_absent, unless_isolated)
        return await self._write("PUT", _document(key), params=params, headers=headers, body=value)

    async def delete(
        self,
        key: str,
        *,
        if_version: str | None = None,
        author: str | None = None,
        comment: str | None = None,
        unless_isolated: bool = False,
    ) -> dict[str, Any]:
        """DELETE /v1/documents/KEY. ``unless_isolated``: an isolated member must refuse the deletion."""
        params = _params(author=author, comment=comment)
        headers = _condition(if_version, False, unless_isolated)
        return await self._write("DELETE", _document(key), params=params, headers=headers)

    async def publish_many(
        self, documents: list[dict[str, Any]], *, author: str = "", comment: str = ""
    ) -> dict[str, Any]:
        """POST /v1/documents: writes several documents, all or none.

        Each document is a mapping with the API's keys (``key``, ``value``, ...).
        """
        value = {"documents": documents, "author": author, "comment": comment}
        return await self._write("POST", "/v1/documents", value=value)

    async def publish_signed(
        self,
        documents: list[dict[str, Any]],
        *,
        comment: str,
        signed_at: str,
        signature: str,
        unless_isolated: bool = False,
    ) -> dict[str, Any]:
        """POST /v1/documents with a signature over all documents.

        ``signed_at``: time such as 2027-01-31T12:00:00.000000Z. ``signature``: signature of OpenSSH in base64.
        ``unless_isolated``: an isolated member must refuse the write.
        """
        value = {"documents": documents, "comment": comment, "signed_at": signed_at, "signature": signature}
        headers = _condition(None, False, unless_isolated)
        return await self._write("POST", "/v1/documents", value=value, headers=headers)

    async def rollback(
        self,
        key: str,
        version: str,
        *,
        if_version: str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | Literal["never"] | None = None,
    ) -> dict[str, Any]:
        """POST /v1/rollback/KEY. Without ``expires_in``, the new version keeps the expiry time of ``version``."""
        value: dict[str, Any] = {"version": version, "author": author, "comment": comment}
        if expires_in is not None:
            value["expires_in"] = expires_in
        headers = _condition(if_version, False)
        return await self._write("POST", f"/v1/rollback/{quote(key, safe='/')}", value=value, headers=headers)

    async def repair(self) -> int:
        """POST /v1/repair; returns the number of members with which a sync was started."""
        return int((await self.json("POST", "/v1/repair", value={}))["asked"])

    async def history(self, key: str, *, values: bool = False, diff: bool = False) -> dict[str, Any]:
        """GET /v1/history/KEY."""
        path = f"/v1/history/{quote(key, safe='/')}"
        return dict(
            await self.json("GET", path, params=_params(values="1" if values else None, diff="1" if diff else None))
        )

    async def watch(
        self, since: int | None = None, timeout: float = 30.0, prefix: str = "", kind: str = ""
    ) -> dict[str, Any]:
        """GET /v1/watch: one long poll that waits at most ``timeout`` seconds (maximum 60) for a change."""
        params = _params(since=since, timeout=timeout, prefix=prefix or None, kind=kind or None)
        return dict(await self.json("GET", "/v1/watch", params=params, timeout=timeout + _GRACE))

    def watch_stream(self, prefix: str = "", since: int | None = None, kind: str = "") -> WatchStream:
        """GET /v1/watch as an event stream.

        ``kind`` "document" or "node" restricts the stream to changes of that kind.
        """
        return WatchStream(self, prefix, since, kind)

    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        """Yield the events of an event stream until the agent ends it.

        Raises the same errors as :meth:`request`, and :class:`Unreachable` if nothing arrives for ``_SILENCE`` seconds.
        """
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=_SILENCE)
        try:
            async with self._open_session().get(
                self._url(path, params), headers={"Accept": MEDIA_TYPE}, timeout=limit, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise _error(answer.status, answer.reason or "", await _read(answer))
                if answer.content_type != MEDIA_TYPE:
                    raise Unreachable(
                        self.endpoint, f"expected {MEDIA_TYPE}, got {answer.content_type}; the agent may be too old"
                    )
                parser = Parser()
                async for piece in answer.content.iter_any():
                    for event in parser.feed(piece):
                        yield event
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            raise Unreachable(self.endpoint, _reason(error)) from error

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
        """GET /v1/convergence; waits at most ``timeout`` seconds (maximum 60) for convergence."""
        flag = "1" if deleted else None
        one = "1" if applied else None
        params = _params(key=key, version=version, digest=digest, deleted=flag, applied=one, wait=wait, timeout=timeout)
        return dict(await self.json("GET", "/v1/convergence", params=params, timeout=timeout + _GRACE))

    async def rendered(self) -> list[dict[str, Any]]:
        """GET /v1/rendered."""
        return list((await self.json("GET", "/v1/rendered"))["templates"])

    async def configuration(self) -> dict[str, Any]:
        """GET /v1/configuration."""
        return dict(await self.json("GET", "/v1/configuration"))

    async def troubled_files(self, timeout: float = 2.0) -> dict[str, Any]:
        """GET /v1/rendered/fleet: waits up to ``timeout`` seconds for the members' answers."""
        params = _params(timeout=timeout)
        return dict(await self.json("GET", "/v1/rendered/fleet", params=params, timeout=timeout + _GRACE))

    async def keys(self) -> list[dict[str, Any]]:
        """GET /v1/keys."""
        return list((await self.json("GET", "/v1/keys"))["keys"])


class WatchStream:
    """An asynchronous iterator over changes as they happen.

    Each change has the form of an entry in ``changes`` of :meth:`Client.watch`.

    If changes were lost, the stream yields ``{"revision": N, "kind": "resync", "event": "gap"}``: the caller must read
    everything again. The iteration ends when the agent closes the stream, and raises :class:`Unreachable` if the
    connection is lost. A new iteration continues from :attr:`revision`.
    """

    def __init__(self, client: Client, prefix: str, since: int | None, kind: str) -> None:
        self._client = client
        self._params = _params(prefix=prefix or None, kind=kind or None)
        #: The revision from which the next iteration continues; None before the first event.
        self.revision = since
        #: The number of connections that this stream has opened.
        self.connections = 0

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        params = {**self._params, **_params(since=self.revision)}
        events = self._client.stream("/v1/watch", params)
        try:
            async for event in events:
                value, number = self._read(event)
                if event.name == "hello":
                    self.connections += 1
                elif event.name == "change":
                    yield value
                elif event.name == "resync":
                    yield {"revision": number, "kind": "resync", "event": "gap"}
                # The revision advances only after the yield, so a caller that fails on a change receives the change
                # again.
                if number is not None:
                    self.revision = number
        finally:
            await events.aclose()

    def _read(self, event: Event) -> tuple[dict[str, Any], int | None]:
        try:
            value = dict(json.loads(event.data)) if event.data else {}
            return value, int(event.id) if event.id is not None else None
        except (ValueError, TypeError):
            raise Unreachable(
                self._client.endpoint, f"expected a number as id and JSON as data, got {shown(event.data)}"
            ) from None


def _document(key: str) -> str:
    return f"/v1/documents/{quote(key, safe='/')}"


def _condition(if_version: str | None, if_absent: bool, unless_isolated: bool = False) -> dict[str, str]:
    unless = {UNLESS_HEADER: UNLESS_ISOLATED} if unless_isolated else {}
    if if_absent:
        return {"If-None-Match": "*", **unless}
    return {"If-Match": f'"{if_version}"', **unless} if if_version else unless


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
