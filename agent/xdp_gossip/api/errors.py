# SPDX-License-Identifier: MIT
"""Every error that a client of the API can see, as ``{"error": {"code", "message", ...}}`` with a fitting status."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Any, Callable

from aiohttp import web

from ..common.internal_errors import RECORD
from ..core.interface import ProtocolError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

#: HTTP status of what the protocol refuses; any other code is a conflict with the state of this member (409).
_PROTOCOL_STATUS = {
    "invalid_key": 400,
    "invalid_node": 400,
    "unsupported_key": 400,
    "document_too_large": 413,
    "store_full": 507,
    "version_mismatch": 412,
    "invalid_document": 400,
    "invalid_content": 400,
    "version_not_found": 404,
    "node_too_large": 400,
    "document_not_found": 404,
    "unsupported_operation": 501,
    "busy": 503,
}


class Fault(Exception):
    """An answer that is an error. ``details`` become members beside ``code`` and ``message``."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.details = details


def bad_request(message: str, code: str = "invalid_request", **details: Any) -> Fault:
    """A fault with status 400 that says what was expected."""
    return Fault(400, code, message, **details)


def render(fault: Fault) -> web.Response:
    """The response that carries ``fault``."""
    body = {"error": {**fault.details, "code": fault.code, "message": str(fault)}}
    text = json.dumps(body, default=str, ensure_ascii=False)
    return web.Response(status=fault.status, text=text, content_type="application/json", headers=fault.headers)


def _from_http(error: web.HTTPException) -> Fault:
    """aiohttp's own refusals (no such route, wrong method, body too large) in the API's shape."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted(error.allowed_methods)
        message = f"expected {' or '.join(allowed)}, got {error.method}"
        return Fault(405, "method_not_allowed", message, headers={"Allow": ", ".join(allowed)}, allowed=allowed)
    known = {404: ("not_found", "no resource at this path"), 413: ("body_too_large", "the body is too large")}
    code, message = known.get(error.status, ("http_error", error.reason or "the request cannot be served"))
    return Fault(error.status, code, message)


def to_fault(error: BaseException) -> Fault | None:
    """The answer for an exception of the layers below; None if a client cannot be told of it."""
    # Imported late: nodelist imports much more than errors do.
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


#: Counters of requests that clients gave up before they took effect, by error code.
GIVEN_UP = {
    "client_gone": "api_client_gone",
    "deadline_passed": "api_deadline_passed",
    "request_cancelled": "api_request_cancelled",
}


def errors_as_json(counters: dict[str, int]) -> Middleware:
    """Middleware that turns exceptions of a handler into JSON. An unforeseen one is recorded and answered with 500."""
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

    return answer
