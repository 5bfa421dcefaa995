# SPDX-License-Identifier: MIT
"""State that route handlers share, and bounds on how much of the agent one API may use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ..worker.contents import Contents
from .errors import Fault
from .params import MAX_JSON
from .requestlog import RequestLog
from .uploads import Uploads

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

T = TypeVar("T")

#: Requests that may wait (watch, convergence, publish with a wait) at one time.
MAX_WAITING = 256
#: Most event streams at one time, in addition to these.
MAX_STREAMS = 128
#: Longest wait of one request, in seconds; a client that wants more asks again.
MAX_WAIT = 60.0
#: How many documents of the largest size, and JSON bodies of the largest size, may be arriving at one time.
_UPLOADS = 4


@dataclass
class Budget:
    """A quantity that requests share. A request that does not fit is refused at once, so nothing queues up."""

    total: int
    what: str
    used: int = 0

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Hold ``amount`` during the block. Raises :class:`Fault` 503 if that much is not left."""
        if self.used + amount > self.total:
            raise Fault(503, "busy", f"too many {self.what} at this moment, try again", headers={"Retry-After": "1"})
        self.used += amount
        try:
            yield
        finally:
            self.used -= amount


@dataclass
class Context:
    """One API: the node list that it serves, and its access rules.

    ``local`` is true for the Unix socket, whose file permissions are the authentication; ``token`` is for TCP.
    ``counters`` are the API's own, shown with those of the protocol. ``compared`` says how the configuration file
    differs from what the agent runs with; None where there is no such file.
    """

    node_list: AsyncNodeList
    token: str | None
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

    async def wait(self, work: Callable[[], Awaitable[T]], gone: asyncio.Future[None] | None = None) -> T:
        """Return the result of ``work()``. If the agent closes first, raise 503 ``shutting_down`` at once.

        ``gone``: done once no client waits for the answer (``server.gone``), so that the slot is free again.
        """
        with self.waiting.take(1):
            task = asyncio.ensure_future(work())
            closing = asyncio.ensure_future(self.closing.wait())
            ends = {closing} if gone is None else {closing, gone}
            try:
                await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
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
