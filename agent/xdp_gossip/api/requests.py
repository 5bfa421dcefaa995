# SPDX-License-Identifier: MIT
"""Routes to query or cancel a request whose answer was lost."""

from __future__ import annotations

from aiohttp import web

from . import params, render
from .context import Context
from .requestlog import check_id


class Requests:
    """Handlers of /v1/requests."""

    def __init__(self, context: Context) -> None:
        self._log = context.requests
        self._uploads = context.uploads

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.get("/v1/requests/{id}", self.show),
            web.delete("/v1/requests/{id}", self.cancel),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """Return the outcome of the request with this id."""
        params.query(request, ())
        return render.json_response(self._log.find(check_id(request.match_info["id"])).json())

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a request. A cancelled request never takes effect, even if it arrives only after the cancellation."""
        params.query(request, ())
        await params.no_body(request, self._uploads)
        return render.json_response((await self._log.cancel(check_id(request.match_info["id"]))).json())
