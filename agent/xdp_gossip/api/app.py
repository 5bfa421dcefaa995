# SPDX-License-Identifier: MIT
"""Builds the HTTP API as an aiohttp application: routes, authentication and errors."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable

from aiohttp import web

from ..core.settings import Limits
from .access import FORBIDDEN, Access, identify
from .accounts import peer_of
from .audit import Audit
from .connection import place_of
from .context import Context
from .discovery import Discovery
from .documents import Documents
from .egossip import EGossip
from .errors import Fault, Handler, Middleware, errors_as_json, render
from .headers import API_HEADER, API_VERSION
from .info import Info
from .nodes import Nodes
from .requestlog import RequestLog
from .requests import Requests
from .routes import add_to
from .ui import PUBLIC as _PAGE_FILES
from .ui import Page
from .waits import Waits

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

#: Paths served without a token: a load balancer's probe sends no token, and the answer reveals only a single word.
_PUBLIC = frozenset({"/v1/health"})


def _auth_middleware(access: Access, audit: Audit, public: frozenset[str]) -> Middleware:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token (RFC 6750) before any handler reads the request."""
        place = place_of(request)
        if place is not None:
            place.handled += 1
        identity = access.of_token(request.headers.get("Authorization", ""))
        if identity is not None:
            if place is not None:
                place.prove()
            identify(request, identity, access)
            return await handler(request)
        if request.rel_url.raw_path in public and not request.body_exists and "Upgrade" not in request.headers:
            return await handler(request)
        # No handler reads the body of this request, so ignore all further data of the connection.
        if place is not None:
            place.refused = True
            place.unread = request.content.feed_eof
            if "Authorization" in request.headers:
                place.admission.counters["api_unauthorized"] += 1
        audit.stranger(request)
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


def _socket_middleware(access: Access, audit: Audit, public: frozenset[str]) -> Middleware:
    @web.middleware
    async def recognise(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Find out which user of the host sent the request, before any handler reads the request."""
        sock = request.transport.get_extra_info("socket") if request.transport is not None else None
        if sock is None or sock.fileno() < 0:
            raise Fault(503, "client_gone", "the client closed the connection; nothing was done")
        identity = await access.of_peer(peer_of(sock))
        identify(request, identity, access)
        if not identity.right and request.rel_url.raw_path not in public:
            audit.denied(request)
            text = f"{identity.name} has no right: api.socket_rights names neither this user nor one of its groups"
            raise Fault(403, FORBIDDEN, text, has=None)
        return await handler(request)

    return recognise


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
    access: Access | None = None,
    audit: Audit | None = None,
) -> web.Application:
    """Build the application that serves the API for ``node_list``.

    Call this function inside the event loop that will serve the application.

    ``local`` is for the Unix socket: no token is needed, and eGossip's GET /stop and /start are served. Otherwise
    ``token``, whose right is admin, or an ``access`` with tokens is required. ``audit``: the records of changes and
    denials. The applications of all sockets of an agent share ``access`` and ``audit``. ``max_document`` is in bytes.
    ``counters`` are the API's own counters, which the API reports together with the protocol's counters (see
    ``ApiServer``). ``rendered`` returns the state of the rendered files. ``waiting`` returns the configured listen
    addresses that no interface has yet; "" if no address is missing. ``compared`` compares the configuration file with
    the agent's current settings. ``requests``: store of the outcomes of requests with an id. The applications of all
    sockets of an agent share the same store. ``ui`` adds the web page under /ui/, whose files need no token because
    they contain no data. Raises ``ValueError`` if there is no token and ``local`` is False, because clients could then
    connect without authentication.
    """
    access = Access(token) if access is None else access
    if not local and not access.has_tokens:
        raise ValueError("API on TCP: expected a token, got none")
    counters = {} if counters is None else counters
    audit = Audit(counters) if audit is None else audit
    context = Context(node_list, access, audit, local, max_document, counters, rendered, waiting)
    context.compared = compared
    if requests is not None:
        context.requests = requests
    public = _PUBLIC | _PAGE_FILES if ui else _PUBLIC
    middlewares: list[Middleware] = [errors_as_json(context.counters)]
    middlewares.append((_socket_middleware if local else _auth_middleware)(access, audit, public))
    # ``client_max_size`` applies only to handlers that do not use params.read_body, which has its own limit.
    app = web.Application(middlewares=middlewares, client_max_size=max_document)
    for topic in (Info, Nodes, Discovery, Documents, Requests, Waits, EGossip):
        add_to(app, topic(context).routes(), audit)
    if ui:
        add_to(app, Page().routes(), audit)

    async def close(_app: web.Application) -> None:
        context.closing.set()
        await context.contents.close()

    app.on_response_prepare.append(_mark)
    app.on_shutdown.append(close)
    return app
