# SPDX-License-Identifier: MIT
"""State that the route handlers share, and limits on the resources that one API may use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ..core.types import Document
from ..node import shapes
from ..worker.contents import Contents
from .access import NOBODY, Access, Identity
from .audit import Audit
from .errors import Fault
from .params import MAX_JSON
from .requestlog import RequestLog
from .uploads import Uploads

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

T = TypeVar("T")

#: Maximum number of requests that may wait (watch, convergence, publish with a wait) at the same time.
MAX_WAITING = 256
#: Maximum number of event streams that may be open at the same time. Streams do not count against ``MAX_WAITING``.
MAX_STREAMS = 128
#: Longest wait of one request, in seconds. A client that wants to wait longer repeats its request.
MAX_WAIT = 60.0
#: All concurrent uploads together may use this multiple of the size limits of one document and one JSON body.
_UPLOADS = 4


@dataclass
class Budget:
    """A limit that concurrent requests share, such as the number of open streams.

    A request that exceeds the limit is refused at once, not queued.
    """

    total: int
    what: str
    used: int = 0

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Reserve ``amount`` while the ``with`` block runs.

        Raises :class:`Fault` 503 if less than ``amount`` is free.
        """
        if self.used + amount > self.total:
            raise Fault(503, "busy", f"too many {self.what} at this moment, try again", headers={"Retry-After": "1"})
        self.used += amount
        try:
            yield
        finally:
            self.used -= amount


@dataclass
class Context:
    """The node list that one API serves, and the rules for access to this API.

    ``local`` is true for the Unix socket, whose clients the kernel authenticates; clients over TCP send a token.
    ``access``: the tokens and rights of all clients. ``audit``: the records of changes and denials.
    ``counters`` are the API's own counters, reported together with the protocol's counters. ``compared`` returns how
    the configuration file differs from the agent's current settings; None if the agent has no configuration file.
    """

    node_list: AsyncNodeList
    access: Access
    audit: Audit
    local: bool
    max_document: int
    counters: dict[str, int] = field(default_factory=dict)
    rendered: Callable[[], list[dict[str, Any]]] = list
    awaited: Callable[[], str] = str
    compared: Callable[[], Awaitable[dict[str, Any]]] | None = None
    contents: Contents = field(default_factory=Contents)
    requests: RequestLog = field(default_factory=RequestLog)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: Budget = field(default_factory=lambda: Budget(MAX_WAITING, "waiting requests"))
    streams: Budget = field(default_factory=lambda: Budget(MAX_STREAMS, "event streams"))
    uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        self.uploads = Uploads(_UPLOADS * (self.max_document + MAX_JSON), self.counters)

    def shape(self, document: Document) -> dict[str, Any]:
        """Convert a version of a document, without its value, to the schema ``Document``."""
        return shapes.document(document, self.node_list.signed_by(document))

    async def wait(
        self,
        work: Callable[[], Awaitable[T]],
        gone: asyncio.Future[None] | None = None,
        identity: Identity = NOBODY,
    ) -> T:
        """Return the result of ``work()``.

        If the agent shuts down before ``work()`` returns, raise :class:`Fault` 503 ``shutting_down`` at once. If the
        rights of the client ``identity`` change, raise :class:`Fault` 401 ``unauthorized`` at once.

        ``gone`` is a future that completes when the client disconnects (``connection.gone``); the request then no
        longer counts against ``MAX_WAITING``.
        """
        with self.waiting.take(1), self.access.holding(identity) as changed:
            task = asyncio.ensure_future(work())
            closing = asyncio.ensure_future(self.closing.wait())
            ends: set[asyncio.Future[Any]] = {closing, changed} if gone is None else {closing, changed, gone}
            try:
                await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
                self.access.recheck(identity)
                if not task.done() and not self.closing.is_set():
                    raise Fault(503, "client_gone", "the client closed the connection")
                if not task.done():
                    raise Fault(503, "shutting_down", "the agent is shutting down", headers={"Retry-After": "2"})
                return task.result()
            finally:
                closing.cancel()
                if not task.done():
                    task.cancel()
                await asyncio.gather(task, closing, return_exceptions=True)
