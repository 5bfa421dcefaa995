# SPDX-License-Identifier: MIT
"""Routes that wait for a result: the change feed, the convergence check and the fleet's rendered files."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from typing import Any

from aiohttp import web

from ..core.shown import shown
from ..node.changes import KINDS
from . import params, render
from .access import Right, identity_of
from .connection import gone
from .context import MAX_WAIT, Context
from .documents import prefix_of
from .errors import bad_request
from .routes import Route, get
from .streams import Streams, change_json, changes_for, wants_stream

_CONTENT_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_STATE_DIGEST = re.compile(r"[0-9a-f]{16}")
_DEFAULT_WATCH = 30.0
_DEFAULT_ANSWERS = 2.0
#: Number of changes that are converted before the event loop runs other tasks.
_SLICE = 16


class Waits:
    """Handlers of /v1/watch, /v1/convergence and /v1/rendered/fleet."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._node_list = context.node_list
        self._streams = Streams(context)

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        return [
            get(Right.READ, "/v1/watch", self.watch),
            get(Right.READ, "/v1/convergence", self.convergence),
            get(Right.READ, "/v1/rendered/fleet", self.troubled_files),
        ]

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Return the changes after revision ``since`` (default: the current revision) as soon as a change exists.

        Returns an empty list if nothing changes within ``timeout`` seconds. A client that accepts text/event-stream
        receives all changes as events until it disconnects.
        """
        query = params.query(request, ("since", "timeout", "prefix", "kind"))
        since = params.natural(query, "since", self._node_list.revision)
        prefix = prefix_of(query)
        kind = params.choice(query, "kind", KINDS)
        if wants_stream(request):
            if "timeout" in query:
                raise bad_request(
                    "timeout: expected none with text/event-stream: a stream continues until it is closed"
                )
            last = request.headers.get("Last-Event-ID")
            if last:
                since = params.natural({"Last-Event-ID": last}, "Last-Event-ID", since)
            return await self._streams.serve(request, since, prefix, kind)
        timeout = params.seconds(query, "timeout", _DEFAULT_WATCH, MAX_WAIT)
        identity = identity_of(request)
        found = await self._context.wait(
            lambda: changes_for(identity, self._node_list, since, timeout, prefix, kind), gone(request), identity
        )
        changes = []
        for number, change in enumerate(found.changes, 1):
            changes.append(change_json(self._context, change))
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        return render.json_response({"revision": found.revision, "gap": found.gap, "changes": changes})

    async def convergence(self, request: web.Request) -> web.Response:
        """Return whether all members, a majority or a given number of members have stored a document.

        Without a key, the check compares the complete state of each member with the complete state of this member.
        """
        query = params.query(request, ("key", "version", "digest", "deleted", "applied", "wait", "timeout"))
        key = params.key(query["key"]) if "key" in query else None
        identity = identity_of(request)
        if key is None:
            identity.need_all_keys("convergence without key")
        else:
            identity.need_key(key)
        version = params.version(query["version"], "version") if "version" in query else None
        digest, deleted = query.get("digest"), params.flag(query, "deleted")
        applied = params.flag(query, "applied")
        if key is None and (version is not None or deleted):
            raise bad_request("version, deleted: expected key as well, to name the document")
        if applied and key is None:
            raise bad_request("applied: expected key as well, to name the document")
        if deleted and digest is not None:
            raise bad_request("deleted: expected no digest as well, because a deleted document has no content")
        pattern, shape = (_CONTENT_DIGEST, "sha256:<64 hex digits>") if key else (_STATE_DIGEST, "16 hex digits")
        if digest is not None and not pattern.fullmatch(digest):
            raise bad_request(f"digest: expected {shape}, got {shown(digest)}")
        timeout = params.seconds(query, "timeout", 0.0, MAX_WAIT)
        wait = _wait_for(query)
        more = {"applied": True} if applied else {}
        found = await self._context.wait(
            lambda: self._node_list.convergence(
                key, version, digest, wait=wait, timeout=timeout, deleted=deleted, **more
            ),
            identity=identity,
        )
        return render.json_response(convergence_json(found))

    async def troubled_files(self, request: web.Request) -> web.Response:
        """Return the members' rendered files that could not be written, were changed by hand, or are pending for too
        long.
        """
        query = params.query(request, ("timeout",))
        timeout = params.seconds(query, "timeout", _DEFAULT_ANSWERS, MAX_WAIT)
        identity = identity_of(request)
        # The errors of rendered files may quote any document.
        identity.need_all_keys("/v1/rendered/fleet")
        found = await self._context.wait(lambda: self._node_list.troubled_files(timeout), gone(request), identity)
        return render.json_response(asdict(found))


def _wait_for(query: dict[str, str]) -> str | int:
    text = query.get("wait", "all")
    if text in ("all", "majority"):
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) >= 1):
        raise bad_request(f"wait: expected all, majority or a number of members, got {shown(text)}")
    return int(text)


def convergence_json(found: Any) -> dict[str, Any]:
    """Convert a convergence result to the response of /v1/convergence."""
    return {
        "converged": found.converged,
        "members": found.members,
        "confirmed": found.confirmed,
        "elapsed": round(found.elapsed, 3),
        "digest": found.digest,
        "known": found.known,
        "dead": found.dead,
        "agent_down": found.agent_down,
        "results": [dict(result) for result in found.results],
    }
