# SPDX-License-Identifier: MIT
"""Routes that describe the agent: health, status, keys, metrics and the OpenAPI description."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from aiohttp import web

from ..core.sealed import fingerprint, fingerprint_text
from ..node import shapes
from ..sealing.keys import public_line
from . import params, process, render
from .access import Identity, Right, identity_of
from .context import Context
from .errors import Fault
from .routes import Route, get


@functools.lru_cache(maxsize=1)
def openapi_text() -> str:
    """Return the text of ``openapi.yaml``, the OpenAPI description in this module's directory."""
    return Path(__file__).with_name("openapi.yaml").read_text(encoding="utf-8")


class Info:
    """Handlers of /v1/health, /v1/status, /v1/keys, /v1/sealing-key, /v1/configuration, /v1/rendered, /v1/metrics and
    /v1/openapi.yaml.
    """

    def __init__(self, context: Context) -> None:
        self._node_list = context.node_list
        self._counters = context.counters
        self._rendered = context.rendered
        self._awaited = context.awaited
        self._compared = context.compared

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [
            get(Right.PUBLIC, "/v1/health", self.health),
            get(Right.READ, "/v1/status", self.status),
            get(Right.READ, "/v1/keys", self.keys),
            get(Right.READ, "/v1/sealing-key", self.sealing_key),
            get(Right.ADMIN, "/v1/configuration", self.configuration),
            get(Right.READ, "/v1/rendered", self.rendered),
            get(Right.READ, "/v1/metrics", self.metrics),
            get(Right.READ, "/v1/openapi.yaml", self.openapi),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """Return 200 while the node takes part in the cluster, is not isolated, and its writes to disk succeed.

        Otherwise return 503 with one word that names the reason.
        """
        from ..nodelist import NotReadyError

        params.query(request, ())
        try:
            word = self._node_list.health()
        except NotReadyError:
            word = "starting"
        return render.json_response({"status": word}, status=200 if word == "ok" else 503)

    def _status(self) -> dict[str, Any]:
        status = self._node_list.status()
        counters = {**status["counters"], **self._counters}
        return {**status, "waiting": self._awaited(), "process": process.usage(), "counters": counters}

    async def status(self, request: web.Request) -> web.Response:
        """Return the complete status of the local node."""
        params.query(request, ())
        return render.json_response(self._status())

    async def keys(self, request: web.Request) -> web.Response:
        """Return id, fingerprint and state of each key; secrets are never returned."""
        params.query(request, ())
        keys = self._node_list.keys
        shown = [{"id": fingerprint >> 56, **one} for (fingerprint, _), one in zip(keys, shapes.keys(keys))]
        return render.json_response({"keys": shown})

    async def sealing_key(self, request: web.Request) -> web.Response:
        """Return the public key of this host, for which documents can be sealed; never the private key."""
        params.query(request, ())
        raw = self._node_list.sealing_key
        if raw is None:
            text = "this host has no sealing key: its agent has no state_dir, or a wire without sealed documents"
            raise Fault(404, "not_found", text)
        key = {"public_key": public_line(raw, self._node_list.local().node.name)}
        return render.json_response({**key, "fingerprint": fingerprint_text(fingerprint(raw))})

    async def configuration(self, request: web.Request) -> web.Response:
        """Return the names of the settings that differ between the configuration file and the running agent; never a
        value.
        """
        params.query(request, ())
        if self._compared is None:
            raise Fault(404, "not_found", "this agent was started without a configuration file")
        return render.json_response(await self._compared())

    async def rendered(self, request: web.Request) -> web.Response:
        """Return the rendered files and the most recent outcome of each.

        A client that may use some keys only gets the files that were rendered from these keys alone.
        """
        params.query(request, ())
        identity = identity_of(request)
        files = [one for one in self._rendered() if not identity.limited or _is_of(identity, one)]
        return render.json_response({"templates": files})

    async def metrics(self, request: web.Request) -> web.Response:
        """Return the metrics in the Prometheus text format."""
        params.query(request, ())
        from . import metrics  # imported late: saves 1 MB of memory if nothing scrapes the metrics

        status = self._status()
        members = self._node_list.members(None)
        body, content_type = metrics.render(status, members, self._rendered())
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def openapi(self, request: web.Request) -> web.Response:
        """Return the OpenAPI description of this API."""
        params.query(request, ())
        return web.Response(text=openapi_text(), content_type="application/yaml")


def _is_of(identity: Identity, rendered: dict[str, Any]) -> bool:
    """Whether ``identity`` may use all documents of a rendered file. The error of a file may quote its documents."""
    return bool(rendered["documents"]) and all(identity.may_use(key) for key in rendered["documents"])
