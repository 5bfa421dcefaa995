# SPDX-License-Identifier: MIT
"""Stores the outcomes of requests that carry an id.

A request with an id is executed at most once, and a request that its client has cancelled is never executed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ..core.shown import shown
from ..node.publishing import only_if
from .access import Identity, Right, identity_of
from .asked import Asked
from .audit import record_of
from .errors import Fault, bad_request, to_fault
from .headers import ID_HEADER

#: Maximum number of requests that the log stores, and maximum total size of their answers in bytes. A full log drops
#: its oldest entries first.
MAX_REMEMBERED = 4096
MAX_BYTES = 8 * 1024 * 1024

_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


@dataclass
class Entry:
    """The stored state of one request id. ``state``: pending, done, failed or cancelled.

    ``who``: name of the client that sent or cancelled the request.
    """

    id: str
    fingerprint: bytes
    who: str = ""
    state: str = "pending"
    status: int | None = None
    answer: Any = None
    size: int = 0
    given_up: bool = False
    committing: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def json(self) -> dict[str, Any]:
        """The answer of /v1/requests/ID."""
        return {"id": self.id, "state": self.state, "status": self.status, "answer": self.answer}


@dataclass
class Outcome:
    """The answer to a request; None until the request has run."""

    answer: Any = None


class RequestLog:
    """The most recent requests that carry an id, from all sockets of one agent."""

    def __init__(self, most: int = MAX_REMEMBERED, most_bytes: int = MAX_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: collections.OrderedDict[str, Entry] = collections.OrderedDict()
        self._bytes = 0

    @contextlib.contextmanager
    def once(self, request: web.Request, body: bytes, allowed: Callable[[], None] = lambda: None) -> Iterator[Outcome]:
        """Context manager: run a request, unless the log already has its answer or the client no longer waits.

        If the ``answer`` of the yielded outcome is None, the ``with`` block must run the request and set ``answer``. A
        publish in the ``with`` block takes effect only if the client still waits for the answer at that moment. A
        request with an id runs at most once: if the same request arrives again with the same id, its client gets the
        stored answer. If the earlier run failed, the repeated request runs again. ``allowed`` is called before the
        request runs and before it takes effect, and raises an error if the request must be refused.

        Raises the errors of :meth:`Asked.check`, and :class:`Fault` 409 ``request_cancelled``, ``request_pending`` and
        ``request_id_reused``.
        """
        asked = Asked.of(request)
        number = request.headers.get(ID_HEADER)
        who = identity_of(request).name
        entry = Entry("", b"") if number is None else self._begin(check_id(number), _fingerprint(request, body), who)
        if entry.state == "done":
            record_of(request).outcome = "repeated"
            yield Outcome(dict(entry.answer))
            return

        def check() -> None:
            if entry.given_up:
                raise _cancelled(entry.id)
            asked.check()
            allowed()
            entry.committing = True

        outcome = Outcome()
        try:
            allowed()
            with only_if(check):
                yield outcome
        except Exception as error:
            fault = to_fault(error)
            code = fault.code if fault is not None else "internal_error"
            self._end(entry, "failed", fault.status if fault is not None else 500, {"code": code})
            raise
        except BaseException:
            self._forget(entry)
            raise
        self._end(entry, "done", 200, outcome.answer)

    def find(self, number: str, client: Identity) -> Entry:
        """Return the entry of the request id ``number``, which ``client`` asks for.

        Raises :class:`Fault` 404 if the log contains no entry with this id, or if the request came from another client
        and ``client`` does not have the right admin.
        """
        entry = self._entries.get(number)
        if entry is None or not _may_see(entry, client):
            text = f"this agent knows of no request {number!r} since it started; the document's history may tell"
            raise Fault(404, "request_not_found", text)
        return entry

    async def cancel(self, number: str, client: Identity) -> Entry:
        """Cancel the request with the id ``number``, unless it has already taken effect, and return its entry.

        A cancelled request never takes effect, even if it arrives only after this call. Raises :class:`Fault` 404 if
        the request came from another client than ``client``, which does not have the right admin.
        """
        entry = self._entries.get(number)
        if entry is None:
            entry = self._add(Entry(number, b"", client.name))
        elif not _may_see(entry, client):
            entry = self.find(number, client)  # raises
        if entry.state == "failed":
            entry.state, entry.given_up = "cancelled", True
        if entry.state == "pending":
            entry.given_up = True
            if entry.committing:
                await entry.over.wait()  # the write is being committed, which takes only a short time
            else:
                entry.state = "cancelled"
        return entry

    def _begin(self, number: str, fingerprint: bytes, who: str) -> Entry:
        entry = self._entries.get(number)
        if entry is None:
            return self._add(Entry(number, fingerprint, who))
        if entry.given_up and entry.state != "done":
            raise _cancelled(number)
        if (entry.fingerprint, entry.who) != (fingerprint, who):
            raise Fault(
                409, "request_id_reused", f"{ID_HEADER}: {number!r} was used by another request: expected a new id"
            )
        if entry.state == "pending":
            raise Fault(409, "request_pending", f"request {number!r} is at work", headers={"Retry-After": "1"})
        if entry.state == "failed":
            entry.state, entry.committing, entry.over = "pending", False, asyncio.Event()
        return entry

    def _add(self, entry: Entry) -> Entry:
        self._entries[entry.id] = entry
        self._shrink()
        return entry

    def _end(self, entry: Entry, state: str, status: int, answer: Any) -> None:
        if not entry.given_up or state == "done":
            entry.state = state
        entry.status, entry.answer = status, answer
        self._bytes -= entry.size
        entry.size = len(json.dumps(answer)) if self._entries.get(entry.id) is entry else 0
        self._bytes += entry.size
        entry.over.set()
        self._shrink()

    def _shrink(self) -> None:
        while len(self._entries) > self._most or self._bytes > self._most_bytes:
            self._forget(next(iter(self._entries.values())))

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]
            self._bytes -= entry.size
        entry.over.set()


def _may_see(entry: Entry, client: Identity) -> bool:
    return entry.who == client.name or client.right >= Right.ADMIN


def check_id(number: str) -> str:
    """Validate and return a request id. Raises :class:`Fault` 400."""
    if not _ID.fullmatch(number):
        text = f"{ID_HEADER}: expected 8 to 64 letters, digits, '.', '_' or '-', got {shown(number)}"
        raise bad_request(text, "invalid_request_id")
    return number


def _cancelled(number: str) -> Fault:
    return Fault(409, "request_cancelled", f"request {number!r} was cancelled; nothing was done")


def _fingerprint(request: web.Request, body: bytes) -> bytes:
    """Hash the method, path, query, If-Match, If-None-Match and body of ``request``.

    Equal requests have the same hash.
    """
    head = [request.method, request.path_qs, *(request.headers.get(name, "") for name in ("If-Match", "If-None-Match"))]
    return hashlib.blake2b(json.dumps(head).encode() + b"\n" + body, digest_size=16).digest()
