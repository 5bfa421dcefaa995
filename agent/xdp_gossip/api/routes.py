# SPDX-License-Identifier: MIT
"""Declares the routes of the API, each with the right that a client needs for it.

A route without a right cannot be declared, and :func:`add_to` adds nothing but declared routes to an application.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ..core.types import MAX_KEY
from .access import Right, identity_of
from .audit import Audit, note_keys
from .errors import Handler
from .params import not_yet

#: The regular expression of a variable part of a path, such as that in ``{key:(?s:.+)}``.
_PATTERN = re.compile(r":\(.*\)\}")


@dataclass(frozen=True)
class Route:
    """One route. ``right``: the right that a client needs. ``changes``: whether a request changes something.

    ``options``: further arguments of aiohttp's route.
    """

    right: Right
    method: str
    path: str
    handler: Handler
    changes: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.right, Right):
            raise AssertionError(
                f"{self.method} {self.path}: expected the right that a client needs, got {self.right!r}"
            )

    @property
    def operation(self) -> str:
        """What the route does, for audit records: its topic and its handler, such as ``documents.publish``."""
        return getattr(self.handler, "__qualname__", self.method).lower()

    @property
    def name(self) -> str:
        """The route as the documentation spells it, such as ``PUT /v1/documents/{key}``."""
        return f"{self.method} {_PATTERN.sub('}', self.path)}"


def get(right: Right, path: str, handler: Handler) -> Route:
    """Declare a route for GET and HEAD."""
    return Route(right, "GET", path, handler, False)


def changing_get(right: Right, path: str, handler: Handler) -> Route:
    """Declare a route whose GET changes something. HEAD is not served, because it must not (RFC 9110, 9.2.1)."""
    return Route(right, "GET", path, handler, True, {"allow_head": False})


def post(right: Right, path: str, handler: Handler) -> Route:
    """Declare a route for POST."""
    return Route(right, "POST", path, handler)


def put(right: Right, path: str, handler: Handler) -> Route:
    """Declare a route for PUT."""
    return Route(right, "PUT", path, handler)


def patch(right: Right, path: str, handler: Handler) -> Route:
    """Declare a route for PATCH."""
    return Route(right, "PATCH", path, handler)


def delete(right: Right, path: str, handler: Handler) -> Route:
    """Declare a route for DELETE."""
    return Route(right, "DELETE", path, handler)


def add_to(app: web.Application, routes: Iterable[Route], audit: Audit) -> None:
    """Add ``routes`` to ``app``. Raises ``AssertionError`` for a route that does not declare the right it needs."""
    for route in routes:
        if not isinstance(route, Route):
            raise AssertionError(f"{route!r}: expected a route with the right that a client needs")
        options = {**route.options, "expect_handler": not_yet}
        app.add_routes([web.RouteDef(route.method, route.path, _guarded(route, audit), options)])


def _guarded(route: Route, audit: Audit) -> Handler:
    """Wrap the handler of ``route``: check the client's right first, and record a change or a denial afterwards."""

    @functools.wraps(route.handler)
    async def guarded(request: web.Request) -> web.StreamResponse:
        with audit.recording(request, route.operation, changes=route.changes):
            if "key" in request.match_info:
                note_keys(request, [request.match_info["key"][:MAX_KEY]])  # for the record of a denial
            identity_of(request).need(route.right, route.name)
            return await route.handler(request)

    guarded.right = route.right  # type: ignore[attr-defined]
    return guarded
