# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: the HTTP client that modules, inventory and lookup share.

The client tries several members in order and uses the first member that answers. An answer comes from another machine,
so the client limits the time of the whole request, and the size, nesting and number of values of the answer. The client
ignores redirects, proxies, netrc and content encodings, because each of them could leak the token or bypass the limits.
The client also runs on managed hosts, so it needs only the standard library of Python 3.8 or later.

The client does not use Ansible's own ``open_url`` for connections and TLS, because ``open_url`` gives weaker
guarantees. ``open_url`` limits the time of each read but not of the whole request, and does not limit the time of the
name lookup. With ``open_url``, a member that sends single bytes with long pauses could block a task for hours.
``open_url`` raises the same ``URLError`` for a refused connection and for a connection that was lost during sending, so
the caller could not know whether a member has received the write. If a member rejects a long body before it has read
the whole body, ``open_url`` loses the member's answer. ``open_url`` also does not accept a directory as ``ca_path``.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
import typing as t
import uuid
from urllib.parse import urlencode

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._deadline import CHUNK, Channel, Deadline, resolve
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, parse_json
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import (
    BadAnswer,
    ClientError,
    Endpoint,
    Settings,
)

#: Maximum bytes of an answer. The largest valid answers are a long NodeList and a document in base64.
MAX_BODY = 64 * 1024 * 1024

_BACKOFF = 0.3
_MAX_BACKOFF = 5.0

#: HTTP statuses of an endpoint that cannot serve the request now. After one of these statuses, the client tries the
#: next endpoint.
_REFUSED_HERE = frozenset((401, 403, 421, 429, 500, 502, 503, 504))

#: Codes of errors with the status 403 that every member would answer, so that the client tries no other endpoint.
_REFUSED_BY_ALL = frozenset(("signature_required", "signature_refused"))

#: Codes of errors with the status 403 that depend on the member. The client tries the other endpoints, and raises the
#: error of the last of these members if no endpoint serves the request.
_REFUSED_BY_ONE = frozenset(("isolated", "forbidden"))

#: Fraction of a request's timeout within which the member must apply a change. The remaining time is for the transfer
#: of the answer.
_SHARE = 0.9
#: Timeout, in seconds, of a request that asks for the outcome of a change whose answer did not arrive.
_SETTLE = 5.0
#: Header that every answer of an agent contains.
_API_HEADER = "x-xdp-gossip-api"
#: Paths of requests that write documents. Each request to one of these paths has an id. If no answer arrives, the
#: client uses the id to ask for the outcome of the request.
_SETTLED = ("/v1/documents", "/v1/rollback/")


class Unreachable(ClientError):
    """Raised if no endpoint answered. ``attempts`` lists each endpoint that was tried, with the reason for the failure.

    ``maybe_applied`` says whether a member may have applied the write although its answer did not arrive.
    """

    def __init__(self, attempts: t.Sequence[tuple[str, str]], maybe_applied: bool = False) -> None:
        self.attempts = list(attempts)
        self.maybe_applied = maybe_applied
        text = "no member of the fleet answered; tried " + _lines(self.attempts)
        if maybe_applied:
            text += ". The change was sent and may have been made, or may still take effect: run the task again"
        super().__init__(text)


class ApiError(ClientError):
    """Raised if a member answered with an error (status 4xx) that does not depend on the member, so that no other
    member is tried. Also raised if a member refused the request because it is isolated, or because the token does not
    have the right or the prefix that the request needs, and no other member served it.
    """

    def __init__(self, endpoint: str, status: int, code: str, message: str, details: dict[str, t.Any]) -> None:
        self.endpoint = endpoint
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        #: Text of the error without the member's message, because the message may repeat parts of the request.
        self.summary = "%s answered %d %s" % (endpoint, status, code)
        super().__init__("%s: %s" % (self.summary, message))


class _EndpointFailed(Exception):
    """Raised inside this module if one endpoint gave no usable answer.

    ``sent`` says whether the endpoint may have received the request. ``permanent`` says whether a retry would fail
    again. ``refusal`` is the answer of a member that refused the request because it is isolated, or because of the
    rights of the token.
    """

    def __init__(self, reason: str, sent: bool, permanent: bool = False, refusal: ApiError | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.permanent = permanent
        self.refusal = refusal


class Response:
    """A complete answer: the URL of the endpoint, HTTP status, headers (lower-case names) and body."""

    def __init__(self, endpoint: str, status: int, headers: dict[str, str], body: bytes) -> None:
        self.endpoint = endpoint
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> dict[str, t.Any]:
        """Parse the body as a JSON object. Raises ``BadAnswer``."""
        try:
            answer = parse_json(self.body)
        except ValueError as exc:
            raise BadAnswer("%s: expected a JSON object: %s" % (self.endpoint, exc)) from None
        if not isinstance(answer, dict):
            raise BadAnswer("%s: expected a JSON object, got %s" % (self.endpoint, type(answer).__name__))
        return answer


class Client:
    """Sends each request to the endpoints in order until one answers. The client sends later requests first to the
    endpoint that answered last.

    ``log`` is called with one line if some endpoints failed before another endpoint answered, and before each retry of
    all endpoints. If no retry succeeds, the client raises an error and does not call ``log``. ``attempts`` lists all
    failures.
    """

    def __init__(self, settings: Settings, log: t.Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._endpoints = list(settings.endpoints)
        self._log = log or (lambda text: None)
        self._failures: dict[tuple[str, str], None] = {}

    @property
    def endpoint(self) -> str:
        """Return the URL of the endpoint that answered last. If no endpoint has answered yet, return the URL of the
        first endpoint.
        """
        return self._endpoints[0].url

    @property
    def attempts(self) -> list[dict[str, str]]:
        """Return the failed endpoints, each with the reason, in the order of the failures and without duplicates."""
        return [{"endpoint": endpoint, "reason": reason} for endpoint, reason in self._failures]

    def request(
        self,
        method: str,
        path: str,
        query: t.Mapping[str, t.Any] | None = None,
        body: bytes | None = None,
        headers: t.Mapping[str, str] | None = None,
        extra_time: float = 0.0,
        repeatable: bool = True,
        held: t.Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request to the first endpoint that answers, with retries, and return the answer.

        ``extra_time`` (seconds) is added to the timeout, for requests that the member answers only after a wait. With
        ``repeatable=False``, the client does not send the request to a second endpoint if the first endpoint may have
        applied it. If the request fails, no member applies it later, unless the error has ``maybe_applied`` set.

        ``held`` maps endpoint URLs to the entity tags of answers that the caller has stored. The client sends a
        conditional request to an endpoint in ``held``. An endpoint that receives a conditional request may answer with
        status 304 and no body.

        Raises ``Unreachable`` if no endpoint answers, ``ApiError`` for a 4xx answer or a member's refusal, and
        ``ConfigError`` if a TLS file cannot be used.
        """
        if query:
            path += "?" + urlencode({name: value for name, value in query.items() if value is not None})
        attempts: list[tuple[str, str]] = []
        arrived = False
        refusal: ApiError | None = None
        numbers: dict[str, str] = {}
        candidates = list(self._endpoints)
        for left in range(self._settings.retries, -1, -1):
            failed: list[tuple[str, str]] = []
            for endpoint in list(candidates):
                fields = dict(headers or {})
                if held and endpoint.url in held:
                    # Send only the tag that this endpoint returned, because another member may use the same tag for a
                    # different NodeList.
                    fields["If-None-Match"] = held[endpoint.url]
                if method != "GET":
                    fields["X-XDP-Gossip-Timeout"] = "%.3f" % ((self._settings.timeout + extra_time) * _SHARE)
                if method != "GET" and path.startswith(_SETTLED):
                    # Every attempt at this endpoint has the same id, so that the member applies the change only once.
                    fields["X-XDP-Gossip-Request-Id"] = numbers.setdefault(endpoint.url, uuid.uuid4().hex)
                try:
                    try:
                        response = self._ask(endpoint, method, path, body, fields, extra_time)
                    except _EndpointFailed as failure:
                        if endpoint.url not in numbers or not failure.sent:
                            raise
                        response = self._settle(endpoint, numbers[endpoint.url], failure)
                except _EndpointFailed as failure:
                    if not failure.sent:
                        numbers.pop(endpoint.url, None)
                    failed.append((endpoint.url, failure.reason))
                    attempts.append(failed[-1])
                    self._failures[failed[-1]] = None
                    arrived = arrived or failure.sent
                    refusal = failure.refusal or refusal
                    if failure.sent and not repeatable:
                        raise Unreachable(attempts, maybe_applied=True) from None
                    if failure.permanent:
                        candidates.remove(endpoint)
                    continue
                self._endpoints.remove(endpoint)
                self._endpoints.insert(0, endpoint)
                if failed:
                    self._log("%s; %s answered instead" % (_lines(failed), endpoint.url))
                if response.status >= 400:
                    raise _api_error(response)
                return response
            if not candidates or not left:
                break  # an endpoint that has rejected the request permanently is not tried again
            pause = min(_BACKOFF * 2 ** (self._settings.retries - left), _MAX_BACKOFF)
            self._log(
                "no member answered: %s; %d %s left, the next in %.1f s"
                % (_lines(failed), left, "retry" if left == 1 else "retries", pause)
            )
            time.sleep(pause)
        if refusal is not None and not (arrived and method != "GET"):
            raise refusal
        raise Unreachable(attempts, maybe_applied=arrived and method != "GET")

    def _ask(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        extra: float,
        most: float = float("inf"),
    ) -> Response:
        """Return the agent's answer. Raises ``_EndpointFailed`` if ``endpoint`` cannot serve the request."""
        response = self._send(endpoint, method, path, body, headers, extra, most)
        status = response.status
        # Redirects are not followed. Status 304 is valid only as an answer to a conditional request.
        unchanged = status == 304 and method == "GET" and "If-None-Match" in headers
        if status in _REFUSED_HERE or (300 <= status < 400 and not unchanged):
            error = _api_error(response)
            if status == 403 and error.code in _REFUSED_BY_ALL and _API_HEADER in response.headers:
                return response
            reason = "answered %d %s" % (status, error.code)
            if status == 401:
                reason += " (a token is needed)" if not self._settings.token else " (the token was refused)"
            elif _API_HEADER not in response.headers:
                reason += _server(response)
            elif status == 403:
                reason += " (%s)" % error.message
            # A member that answers with status 500, 502 or 504 may have applied the request. With any other status in
            # this branch, the member has not applied the request.
            refusal = error if error.code in _REFUSED_BY_ONE and _API_HEADER in response.headers else None
            permanent = status in (401, 403) or refusal is not None
            raise _EndpointFailed(reason, status in (500, 502, 504), permanent, refusal)
        if _API_HEADER not in response.headers:
            # The program that answered is not an agent, so no member has received the request.
            reason = "answered %d, and is no agent of XDP Gossip%s" % (status, _server(response))
            raise _EndpointFailed(reason, sent=False, permanent=True)
        return response

    def _send(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        extra: float,
        most: float,
    ) -> Response:
        """Send one request to ``endpoint`` and return any HTTP answer. Raises ``_EndpointFailed`` if no answer
        arrives.
        """
        seconds = min(self._settings.timeout + extra, most)
        deadline = Deadline(seconds)
        sock: socket.socket | None = None
        sent = False
        try:
            sock = self._connect(endpoint, deadline)
            sent = True
            return self._exchange(endpoint, Channel(sock, deadline), method, path, body, headers)
        except (socket.timeout, TimeoutError):
            what = "no complete answer" if sent else "no connection"
            raise _EndpointFailed("%s within %g s" % (what, seconds), sent) from None
        except (OSError, http.client.HTTPException, BadAnswer) as exc:
            raise _EndpointFailed(_reason(exc, endpoint.scheme), sent) from None
        finally:
            if sock is not None:
                sock.close()

    def _settle(self, endpoint: Endpoint, number: str, lost: _EndpointFailed) -> Response:
        """Ask the endpoint for the outcome of the write with the id ``number``. ``lost`` is the error that the request
        for this write raised.

        Returns the answer to the write if the member has applied the write. Raises ``_EndpointFailed`` with
        ``sent=False`` if the member has cancelled the write. Raises ``lost`` again if the endpoint does not report the
        outcome. A member also cancels a write whose connection was closed. The client still asks for the outcome,
        because the member may have applied the write before the connection was closed.
        """
        try:
            told = self._ask(endpoint, "DELETE", "/v1/requests/" + number, None, {}, 0.0, _SETTLE)
            settled = told.json() if told.status == 200 else {}
        except (_EndpointFailed, BadAnswer):
            settled = {}
        state, answer = settled.get("state"), settled.get("answer")
        if state == "done" and isinstance(answer, dict):
            return Response(endpoint.url, 200, {}, json.dumps(answer).encode("utf-8"))
        if state in ("cancelled", "failed"):
            raise _EndpointFailed(lost.reason + ", and the change was given up", False, lost.permanent)
        raise lost

    def _connect(self, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
        if endpoint.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(deadline.left())
                sock.connect(endpoint.path)
            except BaseException:
                sock.close()
                raise
            return sock
        found = resolve(endpoint, deadline)
        problem: OSError = OSError("the host name has no address")
        for position, (family, kind, proto, _dummy, address) in enumerate(found):
            sock = socket.socket(family, kind, proto)
            try:
                sock.settimeout(deadline.left() / (len(found) - position))
                sock.connect(address)
                if endpoint.scheme == "https":
                    sock.settimeout(deadline.left())
                    return self._settings.tls().wrap_socket(sock, server_hostname=endpoint.host)
                return sock
            except OSError as exc:
                sock.close()
                problem = exc
            except BaseException:
                sock.close()
                raise
        raise problem

    def _exchange(
        self, endpoint: Endpoint, channel: Channel, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Response:
        headers.update({"Host": endpoint.authority, "Connection": "close", "Accept-Encoding": "identity"})
        if self._settings.token and endpoint.scheme != "unix":
            headers["Authorization"] = "Bearer " + self._settings.token
        connection = http.client.HTTPConnection("localhost")
        connection.sock = channel
        try:
            connection.request(method, path, body=body, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a member that rejects a long body answers and closes the connection before the transfer ends
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        if fields.get("content-encoding", "identity").lower() != "identity":
            raise BadAnswer(
                "the answer has the content encoding %r, which was not requested" % fields["content-encoding"]
            )
        return Response(endpoint.url, answer.status, fields, _read_body(answer))


def _lines(failures: t.Sequence[tuple[str, str]]) -> str:
    return "; ".join("%s: %s" % failure for failure in failures)


def _read_body(answer: http.client.HTTPResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        chunk = answer.read(CHUNK)
        if not chunk:
            if answer.length:  # http.client reports no error for a truncated body
                raise BadAnswer("the answer broke off after %d bytes" % size)
            return b"".join(chunks)
        size += len(chunk)
        if size > MAX_BODY:
            raise BadAnswer("the answer is longer than %d bytes" % MAX_BODY)
        chunks.append(chunk)


def _server(response: Response) -> str:
    """Return the name of the server program in brackets, from the header Server; "" if there is no such header."""
    name = response.headers.get("server")
    return " (Server: %s)" % clip(name, 80) if name else ""


def _reason(exc: BaseException, scheme: str) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "certificate not accepted: %s" % exc.verify_message
    if isinstance(exc, ssl.SSLError):
        clear = exc.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST")
        return "TLS failed: %s%s" % (exc.reason or exc, " (is it http:// there?)" if clear else "")
    if isinstance(exc, http.client.IncompleteRead):
        return "the answer broke off after %d bytes" % len(exc.partial)
    if isinstance(exc, http.client.HTTPException):
        hint = "; is it https:// there?" if scheme == "http" else ""
        return "not an HTTP answer (%s%s)" % (type(exc).__name__, hint)
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return clip(str(exc)) or type(exc).__name__


def _api_error(response: Response) -> ApiError:
    code, message, details = "http_%d" % response.status, "no explanation given", {}
    try:
        error = response.json()["error"]
        code, message = clip(str(error["code"]), 64), clip(str(error["message"]), 400)
        details = {str(name): error[name] for name in error if name not in ("code", "message")}
    except (BadAnswer, KeyError, TypeError):
        pass  # the body is the error page of a proxy or another program, so only the status is used
    return ApiError(response.endpoint, response.status, code, message, details)
