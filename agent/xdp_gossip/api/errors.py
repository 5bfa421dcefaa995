# SPDX-License-Identifier: MIT
"""Defines the errors of the API: an HTTP status and the body ``{"error": {"code", "message", ...}}``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any, Callable

from aiohttp import web

from ..common.internal_errors import RECORD
from ..core.interface import ProtocolError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

#: HTTP status for each error code of the protocol. A code that is not listed is a conflict with this member's state
#: (409).
_PROTOCOL_STATUS = {
    "invalid_key": 400,
    "invalid_node": 400,
    "unsupported_key": 400,
    "document_too_large": 413,
    "store_full": 507,
    "version_mismatch": 412,
    "invalid_document": 400,
    "invalid_content": 400,
    "signature_required": 403,
    "signature_refused": 403,
    "version_not_found": 404,
    "node_too_large": 400,
    "document_not_found": 404,
    "unsupported_operation": 501,
    "busy": 503,
    "isolated": 503,
    "node_not_found": 404,
}


class Fault(Exception):
    """An error response, raised as an exception.

    ``details`` are added to the JSON error object beside ``code`` and ``message``.
    """

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.details = details


def bad_request(message: str, code: str = "invalid_request", **details: Any) -> Fault:
    """Build a :class:`Fault` with status 400; ``message`` says what was expected."""
    return Fault(400, code, message, **details)


def render(fault: Fault) -> web.Response:
    """Build the HTTP response for ``fault``."""
    body = {"error": {**fault.details, "code": fault.code, "message": str(fault)}}
    text = json.dumps(body, default=str, ensure_ascii=False)
    return web.Response(status=fault.status, text=text, content_type="application/json", headers=fault.headers)


def _from_http(error: web.HTTPException) -> Fault:
    """Convert an error of aiohttp itself (no such route, wrong method, body too large) to a :class:`Fault`."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted(error.allowed_methods)
        message = f"expected {' or '.join(allowed)}, got {error.method}"
        return Fault(405, "method_not_allowed", message, headers={"Allow": ", ".join(allowed)}, allowed=allowed)
    known = {404: ("not_found", "no resource at this path"), 413: ("body_too_large", "the body is too large")}
    code, message = known.get(error.status, ("http_error", error.reason or "the request cannot be served"))
    return Fault(error.status, code, message)


def to_fault(error: BaseException) -> Fault | None:
    """Convert an exception of the lower layers to a :class:`Fault`; return None if the client must not see the
    exception's text.
    """
    # Imported late, because nodelist imports many modules that this module does not need.
    from ..nodelist import NotReadyError
    from ..store.sqlite import StoreError

    if isinstance(error, Fault):
        return error
    if isinstance(error, web.HTTPException):
        return _from_http(error)
    if isinstance(error, ProtocolError):
        fault = Fault(_PROTOCOL_STATUS.get(error.code, 409), error.code, str(error))
        fault.details.update(error.details)
        return fault
    if isinstance(error, StoreError):
        message = f"writing this member's state file fails ({error}); no change is durable here until a write succeeds"
        return Fault(503, "storage_failed", message)
    if isinstance(error, NotReadyError):
        return Fault(503, "not_ready", str(error))
    return None


#: Error code -> counter, for requests that did not take effect because their client stopped waiting.
GIVEN_UP = {
    "client_gone": "api_client_gone",
    "deadline_passed": "api_deadline_passed",
    "request_cancelled": "api_request_cancelled",
}


def errors_as_json(counters: dict[str, int]) -> Middleware:
    """Build a middleware that converts a handler's exceptions to JSON error responses.

    For an unexpected exception, the middleware records the exception and responds with status 500.
    """
    for name in GIVEN_UP.values():
        counters.setdefault(name, 0)

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            fault = to_fault(error)
            if fault is None:
                RECORD.add("API request", error)
                fault = Fault(500, "internal_error", "the agent failed at this request; its log says more")
            elif fault.code in GIVEN_UP:
                counters[GIVEN_UP[fault.code]] += 1
            return render(fault)
        except asyncio.CancelledError:
            # Some releases of aiohttp, such as Ubuntu 22.04's 3.8.1, cancel the handler if the client closes its
            # connection. Other releases let Asked.check find that out. A GET changes nothing that would be given up.
            if request.method not in ("GET", "HEAD") and request.transport is None:
                counters["api_client_gone"] += 1
            raise

    return answer
