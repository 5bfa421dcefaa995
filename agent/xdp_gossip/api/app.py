# SPDX-License-Identifier: MIT
"""Builds the HTTP API as an aiohttp application: routes, authentication and errors."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable

from aiohttp import web

from ..core.settings import Limits
from .connection import place_of
from .context import Context
from .documents import Documents
from .egossip import EGossip
from .errors import Fault, Handler, Middleware, errors_as_json, render
from .headers import API_HEADER, API_VERSION
from .info import Info
from .nodes import Nodes
from .params import not_yet
from .requestlog import RequestLog
from .requests import Requests
from .ui import PUBLIC as _PAGE_FILES
from .ui import Page
from .waits import Waits

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

#: Paths served without a token: a load balancer's probe sends no token, and the answer reveals only a single word.
_PUBLIC = frozenset({"/v1/health"})
_SCHEME = "bearer"


def _authorised(request: web.Request, token: str) -> bool:
    scheme, _space, given = request.headers.get("Authorization", "").partition(" ")
    # compare_digest rejects text that is not ASCII, so both sides are encoded to bytes.
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode("utf-8"))
    return scheme.lower() == _SCHEME and same


def _auth_middleware(token: str, public: frozenset[str]) -> Middleware:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token (RFC 6750) before any handler reads the request."""
        place = place_of(request)
        if place is not None:
            place.handled += 1
        if _authorised(request, token):
            if place is not None:
                place.prove()
            return await handler(request)
        if request.rel_url.raw_path in public and not request.body_exists and "Upgrade" not in request.headers:
            return await handler(request)
        # No handler reads the body of this request, so ignore all further data of the connection.
        if place is not None:
            place.refused = True
            place.unread = request.content.feed_eof
            if "Authorization" in request.headers:
                place.admission.counters["api_unauthorized"] += 1
                text = "API: a client sent a token that is not this agent's"
                place.admission.quiet("token", text, place.source)
        fault = Fault(
            401,
            "unauthorized",
            "expected Authorization: Bearer with this agent's API token",
            headers={"WWW-Authenticate": "Bearer"},
        )
        answer = render(fault)
        answer.force_close()
        return answer

    return authenticate


async def _mark(_request: web.Request, response: web.StreamResponse) -> None:
    """Add the API header to every response, refusals included, so that clients recognise the agent."""
    response.headers[API_HEADER] = API_VERSION


def build_app(
    node_list: AsyncNodeList,
    *,
    token: str | None = None,
    local: bool = False,
    max_document: int = Limits.document,
    counters: dict[str, int] | None = None,
    rendered: Callable[[], list[dict[str, Any]]] = list,
    waiting: Callable[[], str] = str,
    compared: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    requests: RequestLog | None = None,
    ui: bool = False,
) -> web.Application:
    """Build the application that serves the API for ``node_list``.

    Call this function inside the event loop that will serve the application.

    ``local`` is for the Unix socket: no token is needed, and eGossip's GET /stop and /start are served. Otherwise
    ``token`` is required. ``max_document`` is in bytes. ``counters`` are the API's own counters, which the API reports
    together with the protocol's counters (see ``ApiServer``). ``rendered`` returns the state of the rendered files.
    ``waiting`` returns the configured listen addresses that no interface has yet; "" if no address is missing.
    ``compared`` compares the configuration file with the agent's current settings. ``requests``: store of the outcomes
    of requests with an id. The applications of all sockets of an agent share the same store. ``ui`` adds the web page
    under /ui/, whose files need no token because they contain no data. Raises ``ValueError`` if ``token`` is missing
    and ``local`` is False, because clients could then connect without authentication.
    """
    if not local and not token:
        raise ValueError("API on TCP: expected a token, got none")
    context = Context(node_list, token, local, max_document, {} if counters is None else counters, rendered, waiting)
    context.compared = compared
    if requests is not None:
        context.requests = requests
    public = _PUBLIC | _PAGE_FILES if ui else _PUBLIC
    middlewares: list[Middleware] = [errors_as_json(context.counters)]
    if not local:
        middlewares.append(_auth_middleware(str(token), public))
    # ``client_max_size`` applies only to handlers that do not use params.read_body, which has its own limit.
    app = web.Application(middlewares=middlewares, client_max_size=max_document)
    for topic in (Info, Nodes, Documents, Requests, Waits, EGossip):
        app.add_routes(
            web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": not_yet})
            for route in topic(context).routes()
        )
    if ui:
        app.add_routes(Page().routes())

    async def close(_app: web.Application) -> None:
        context.closing.set()
        await context.contents.close()

    app.on_response_prepare.append(_mark)
    app.on_shutdown.append(close)
    return app
