# SPDX-License-Identifier: MIT
"""Routes to query or cancel a request whose answer was lost."""

from __future__ import annotations

from aiohttp import web

from . import params, render
from .access import Right, identity_of
from .audit import record_of
from .context import Context
from .requestlog import check_id
from .routes import Route, delete, get


class Requests:
    """Handlers of /v1/requests."""

    def __init__(self, context: Context) -> None:
        self._log = context.requests
        self._uploads = context.uploads

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [
            get(Right.READ, "/v1/requests/{id}", self.show),
            delete(Right.WRITE, "/v1/requests/{id}", self.cancel),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """Return the outcome of the request with this id."""
        params.query(request, ())
        number, who = check_id(request.match_info["id"]), identity_of(request)
        return render.json_response(self._log.find(number, who).json())

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a request. A cancelled request never takes effect, even if it arrives only after the cancellation."""
        params.query(request, ())
        await params.no_body(request, self._uploads)
        number, who = check_id(request.match_info["id"]), identity_of(request)
        record_of(request).target = number
        return render.json_response((await self._log.cancel(number, who)).json())
