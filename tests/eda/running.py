# SPDX-License-Identifier: MIT
"""An event source that runs, as ansible-rulebook runs it, and what it has told."""

from __future__ import annotations

import asyncio
import queue
import runpy
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

#: Seconds until something that was waited for is a failure.
PATIENCE = 30.0


def plugin(collections: Path) -> Path:
    """The event source's file in the installed collection."""
    place = collections / "ansible_collections" / "xdp_gossip" / "fleet"
    return place / "extensions" / "eda" / "plugins" / "event_source" / "membership.py"


class Source:
    """Context manager: runs the source with these arguments in a thread of its own, and cancels it at the end."""

    def __init__(self, collections: Path, *, file: Path | None = None, **arguments: Any) -> None:
        self._main = runpy.run_path(str(file or plugin(collections)))["main"]
        self._arguments = arguments
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        #: All that was told, in order.
        self.told: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._main(self, self._arguments))
        try:
            self._loop.run_until_complete(self._task)
        except BaseException as error:
            self.error = error
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def put(self, event: dict[str, Any]) -> None:
        """The queue's side: take an event."""
        self._events.put(event)

    def __enter__(self) -> Source:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the source did not end within 10 s of being cancelled"

    def cancel(self) -> None:
        """As the end of a rulebook does."""
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def join(self) -> None:
        """Wait until the source has ended."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def next(self, *types: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The next event of one of these types (default: of any); others before it are passed by."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                told = [event["type"] for event in self.told]
                raise AssertionError(f"no {' or '.join(types) or 'event'} within {seconds:g} s; told: {told}") from None
            self.told.append(event)
            if not types or event["type"] in types:
                return event

    def rest(self, seconds: float) -> list[dict[str, Any]]:
        """All that is told within ``seconds``."""
        deadline = time.monotonic() + seconds
        found = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                found.append(self._events.get(timeout=left))
            except queue.Empty:
                break
        self.told += found
        return found
