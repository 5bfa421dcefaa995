# SPDX-License-Identifier: MIT
"""Runs the state file's work in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..common.internal_errors import RECORD
from .sqlite import StateStore, StoreError

T = TypeVar("T")


class _Worker:
    """One thread that does one thing after the other.

    A ``ThreadPoolExecutor`` takes nothing any more when the functions of ``atexit`` are called, ``close`` among them.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended = False
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Call ``function`` there. Raises ``RuntimeError`` after :meth:`end`."""
        if self._ended:
            raise RuntimeError("the thread has ended")
        done: Future[T] = Future()

        def job() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                result = function(*arguments)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)

        self._jobs.put(job)
        return done

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()
            del job  # with what it holds

    def end(self) -> None:
        """End when all is done that was submitted."""
        self._ended = True
        self._jobs.put(None)


class Disk:
    """A store on a thread of its own, so that a slow disk does not keep heartbeats waiting."""

    def __init__(self, open_store: Callable[[], StateStore]) -> None:
        self._open_store = open_store
        self._thread = _Worker("xdp-gossip-disk")
        self._store: StateStore | None = None
        self._since: float | None = None  # when the thread began what it is at

    @property
    def busy(self) -> float:
        """Seconds since the thread began what it is at; 0.0 when it is at nothing."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    async def run(self, work: Callable[[StateStore], T]) -> T:
        """``work(store)`` on the thread; the store is opened by the first call. Raises ``StoreError``.

        What nobody foresaw is counted and becomes one, too: whoever waits for the disk has to hear of it, and what
        writes again and again must not end.
        """
        try:
            return await asyncio.wrap_future(self._thread.submit(self._run, work))
        except StoreError:
            raise
        except Exception as error:
            RECORD.add("state file", error)
            raise StoreError(f"internal error in the state file: {type(error).__name__}: {error}") from error

    def _run(self, work: Callable[[StateStore], T]) -> T:
        self._since = time.monotonic()
        try:
            if self._store is None:
                self._store = self._open_store()
            return work(self._store)
        finally:
            self._since = None

    async def close(self) -> None:
        """Close the store and end the thread. To its end, whoever gives up: nobody else could open the store."""
        closing = asyncio.wrap_future(self._thread.submit(self._close_store))  # behind an opening that was given up
        self._thread.end()
        cancelled = False
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError:
                cancelled = True
        closing.result()
        if cancelled:
            raise asyncio.CancelledError

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
