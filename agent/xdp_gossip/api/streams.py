# SPDX-License-Identifier: MIT
"""Serves the change feed as server-sent events.

A connected client receives every change; a client that does not read is disconnected. A stream has no queue of its own.
Changes that the client has not read yet remain stored in the change feed. If the feed has already dropped changes that
the client has not read, the stream sends an event that asks the client to read everything again. A slow client
therefore uses only the memory of one socket buffer.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from ..common.internal_errors import RECORD
from ..node import shapes
from . import render
from .access import Identity, identity_of
from .connection import gone
from .context import Context
from .eventstream import MEDIA_TYPE, encode, keep_alive

#: After this many seconds without an event, the stream sends a comment to show that the connection is alive.
KEEP_ALIVE = 15.0
#: The agent disconnects a client that has read nothing for this many seconds.
STALLED = 20.0
#: Number of changes, and bytes of their texts, that a stream writes before it yields to other tasks.
_SLICE, _SLICE_BYTES = 64, 256 * 1024
#: Number of changes whose encoded text is cached, because all streams send the same text, and maximum bytes of these
#: texts. The text of a sealed document lists its recipients, so the publisher decides how long it is.
_TEXTS, _TEXTS_BYTES = 1024, 4 * 1024 * 1024

_HEADERS = {
    "Content-Type": f"{MEDIA_TYPE}; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # without this header, nginx would hold events back until its buffer is full
}


def wants_stream(request: web.Request) -> bool:
    """Whether the Accept header names text/event-stream; ``*/*`` does not count."""
    accepted = (part.split(";")[0].strip().lower() for part in request.headers.get("Accept", "").split(","))
    return MEDIA_TYPE in accepted


def change_json(context: Context, change: Any) -> dict[str, Any]:
    """Convert one entry of the change feed to its JSON object."""
    entry = {"revision": change.revision, "kind": change.kind, "event": change.event}
    if change.document is not None:
        entry["document"] = context.shape(change.document)
    if change.conflict is not None:
        entry["conflict"] = str(change.conflict)
    if change.member is not None:
        entry["node"] = shapes.node(change.member)
    if change.zone is not None:
        entry["zone"] = asdict(change.zone)
    if change.refusal is not None:
        refusal = change.refusal
        source = str(refusal.source) if refusal.source is not None else None
        entry["refusal"] = {
            "key": refusal.key,
            "version": str(refusal.version),
            "reason": refusal.reason,
            "from": source,
        }
    return entry


@dataclass(frozen=True)
class Seen:
    """The changes that a client may see, as :class:`~xdp_gossip.node.changes.Changes`."""

    revision: int
    gap: bool
    changes: tuple[Any, ...]


def _may_see(identity: Identity, change: Any) -> bool:
    about = change.document or change.refusal
    return about is None or identity.may_use(about.key)


async def changes_for(identity: Identity, node_list: Any, since: int, timeout: float, prefix: str, kind: str) -> Any:
    """Wait for changes as ``node_list.changes`` does, but leave out documents that ``identity`` may not use."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    only = identity.narrowed(prefix)
    narrow = only[0] if len(only) == 1 else prefix
    while True:
        found = await node_list.changes(since, max(0.0, deadline - loop.time()), narrow, kind)
        if not identity.limited:
            return found
        kept = tuple(one for one in found.changes if _may_see(identity, one))
        if kept or found.gap or not found.changes or loop.time() >= deadline:
            return Seen(found.revision, found.gap, kept)
        since = found.revision


def _revision(number: int) -> bytes:
    return render.json_bytes({"revision": number})


class Streams:
    """The event streams of one API, with their counters."""

    NAMES = ("api_streams_opened", "api_streams_refused", "api_streams_stalled", "api_streams_resynced")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._counters = context.counters
        self._texts: dict[int, bytes] = {}
        self._texts_bytes = 0
        for name in self.NAMES:
            self._counters.setdefault(name, 0)

    async def serve(self, request: web.Request, since: int, prefix: str, kind: str) -> web.StreamResponse:
        """Send all changes after ``since`` to the client, until the client disconnects, the agent closes, or the rights
        of the client change.

        Raises :class:`Fault` 503 if too many streams are open, and ``NotReadyError`` if the node list is not ready.
        """
        budget = self._context.streams
        if budget.used >= budget.total:
            self._counters["api_streams_refused"] += 1
        identity = identity_of(request)
        with budget.take(1), self._context.access.holding(identity) as changed:
            # If the node list is not ready, the client gets an error status, because the response has not begun yet.
            await self._context.node_list.changes(since, 0.0, prefix, kind)
            response = web.StreamResponse(headers=_HEADERS)
            response.force_close()
            stream = _Stream(request, response, identity, changed)
            await stream.open()
            self._counters["api_streams_opened"] += 1
            try:
                if request.method != "HEAD":
                    await self._feed(stream, since, prefix, kind)
            except ConnectionError:
                stream.abort()
            except asyncio.TimeoutError:
                self._counters["api_streams_stalled"] += 1
                stream.abort()
            except Exception as error:
                # The response head has been sent, so only closing the connection can report the error to the client.
                RECORD.add("API event stream", error)
                stream.abort()
            return response

    async def _feed(self, stream: _Stream, since: int, prefix: str, kind: str) -> None:
        # Imported late, because nodelist imports many modules that the API does not need.
        from ..nodelist import NotReadyError

        closing = asyncio.ensure_future(self._context.closing.wait())
        try:
            position, told = since, False
            while True:
                # The first read does not wait, so the client learns at once the revision at which the stream begins.
                seconds = KEEP_ALIVE if told else 0.0
                ends: set[asyncio.Future[Any]] = {closing, stream.gone, stream.changed}
                found = await self._next(position, seconds, prefix, kind, ends, stream.identity)
                if found is None:
                    return
                if not told:
                    # After a gap in the changes, the event ``hello`` is sent without an id. If ``hello`` had an id, a
                    # client that reconnects now would continue after the gap and miss the lost changes.
                    where = found.revision if found.gap else position
                    text = b"retry: 2000\n" + encode("hello", _revision(where), None if found.gap else where)
                    await stream.write(text)
                if found.gap:
                    self._counters["api_streams_resynced"] += 1
                    await stream.write(encode("resync", _revision(found.revision), found.revision))
                elif found.changes:
                    await self._write_all(stream, found.changes)
                elif told:
                    await stream.write(keep_alive(found.revision))
                position, told = found.revision, True
        except NotReadyError:
            return  # the node list was closed while the API was still open
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def _next(
        self,
        position: int,
        seconds: float,
        prefix: str,
        kind: str,
        ends: set[asyncio.Future[Any]],
        identity: Identity,
    ) -> Any | None:
        """Wait for changes after ``position`` and return them.

        The result is empty if nothing changes within ``seconds``, and None if one of ``ends`` completes first.
        """
        node_list = self._context.node_list
        task = asyncio.ensure_future(changes_for(identity, node_list, position, seconds, prefix, kind))
        try:
            await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if any(end.done() for end in ends):
                return None
            return task.result()
        finally:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _write_all(self, stream: _Stream, changes: Any) -> None:
        waiting: list[bytes] = []
        for number, change in enumerate(changes, 1):
            waiting.append(self._text(change))
            if number == len(changes) or len(waiting) == _SLICE or sum(map(len, waiting)) >= _SLICE_BYTES:
                await stream.write(b"".join(waiting))
                waiting.clear()
                await asyncio.sleep(0)

    def _text(self, change: Any) -> bytes:
        """Return ``change`` encoded as an event. The text is encoded once, and all streams share it."""
        text = self._texts.get(change.revision)
        if text is None:
            text = encode("change", render.json_bytes(change_json(self._context, change)), change.revision)
            if len(self._texts) >= _TEXTS or self._texts_bytes + len(text) > _TEXTS_BYTES:
                self._texts.clear()
                self._texts_bytes = 0
            self._texts[change.revision] = text
            self._texts_bytes += len(text)
        return text


class _Stream:
    """The connection of one event stream's client. ``changed`` completes when the rights of ``identity`` change."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        identity: Identity,
        changed: asyncio.Future[None],
    ) -> None:
        self._request = request
        self._response = response
        self._writer: Any = None
        self.identity = identity
        self.changed = changed
        self.gone = gone(request)

    async def open(self) -> None:
        """Send the head of the response."""
        where = self._request.transport.get_extra_info("socket") if self._request.transport is not None else None
        if where is not None and where.family != socket.AF_UNIX:
            # Without TCP_USER_TIMEOUT, TCP would retransmit for about 15 minutes if the client's host is down.
            where.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED * 1000))
        self._writer = await self._response.prepare(self._request)

    async def write(self, text: bytes) -> None:
        """Send ``text``.

        Raises ``asyncio.TimeoutError`` if the client does not read ``text`` in time, and ``ConnectionError`` if the
        client has disconnected.
        """
        await asyncio.wait_for(self._send(text), STALLED)

    async def _send(self, text: bytes) -> None:
        await self._response.write(text)
        await self._writer.drain()

    def abort(self) -> None:
        """Close the connection at once and discard data that was not sent."""
        if self._request.transport is not None:
            self._request.transport.abort()
