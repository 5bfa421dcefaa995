# SPDX-License-Identifier: MIT
"""Calls the methods of a store on a dedicated thread."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from ..common.internal_errors import RECORD
from ..core.interface import Known
from ..core.types import Document
from .sqlite import Snapshot, StateStore, StoreError

T = TypeVar("T")


class _Worker:
    """A thread that runs submitted calls one after the other.

    A ``ThreadPoolExecutor`` refuses calls while ``atexit`` functions run, but a program may call :meth:`Disk.close`
    from such a function.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended = False
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Queue a call of ``function`` on the thread. Returns the future of the call's result.

        Raises ``RuntimeError`` after :meth:`end`.
        """
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
            # ``job`` refers to the documents of the last call and would keep them in memory.
            del job

    def end(self) -> None:
        """End the thread after all submitted calls have run."""
        self._ended = True
        self._jobs.put(None)


class Disk:
    """A store on a dedicated thread, so that a slow disk does not delay heartbeats.

    The coroutines of this class call the store's methods on the thread, one call after the other.
    """

    def __init__(self, open_store: Callable[[], StateStore]) -> None:
        self._open_store = open_store
        self._thread = _Worker("xdp-gossip-disk")
        self._store: StateStore | None = None
        # Monotonic time at which the thread began its current call; None if the thread is idle.
        self._since: float | None = None

    @property
    def busy(self) -> float:
        """Seconds since the thread began its current call; 0.0 if the thread is idle."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    async def run(self, work: Callable[[StateStore], T]) -> T:
        """Run ``work(store)`` on the thread. The first call opens the store. Raises ``StoreError``.

        An unexpected exception is counted as an internal error and becomes a ``StoreError``. The caller therefore only
        has to handle ``StoreError``, and a loop that retries failed writes keeps running.
        """
        try:
            return await asyncio.wrap_future(self._thread.submit(self._run, work))
        except StoreError:
            raise
        except Exception as error:
            RECORD.add("state file", error)
            raise StoreError(f"internal error in the state file: {type(error).__name__}: {error}") from error

    async def load(self, now_s: int) -> tuple[int, Snapshot, list[str]]:
        """Begin a run.

        Returns the incarnation of this run, the state that earlier runs stored, and the damage that was found in the
        state file.

        ``now_s``: see ``StateStore.next_incarnation``. Raises ``StoreError``.
        """
        return await self.run(lambda store: (store.next_incarnation(now_s), store.load(), list(store.problems)))

    async def save_incarnation(self, incarnation: int) -> None:
        """See ``StateStore.save_incarnation``. Raises ``StoreError``."""
        await self.run(lambda store: store.save_incarnation(incarnation))

    async def save_nodes(self, known: Sequence[Known]) -> None:
        """See ``StateStore.save_nodes``. Raises ``StoreError``."""
        await self.run(lambda store: store.save_nodes(known))

    async def stage(self, documents: Sequence[Document], kept: Sequence[Document]) -> None:
        """See ``StateStore.stage``. Raises ``StoreError``."""
        await self.run(lambda store: store.stage(documents, kept))

    async def settle(self, kept: Sequence[Document], withdrawn: Sequence[Document]) -> int:
        """See ``StateStore.settle``. Raises ``StoreError``, ``NotedError``."""
        return await self.run(lambda store: store.settle(kept, withdrawn))

    async def history(self, key: str) -> list[Document]:
        """See ``StateStore.history``. Raises ``StoreError``."""
        return await self.run(lambda store: store.history(key))

    def _run(self, work: Callable[[StateStore], T]) -> T:
        self._since = time.monotonic()
        try:
            if self._store is None:
                self._store = self._open_store()
            return work(self._store)
        finally:
            self._since = None

    async def close(self) -> None:
        """Close the store and end the thread, even if the caller is cancelled, because the file would otherwise stay
        locked.
        """
        closing = asyncio.wrap_future(
            self._thread.submit(self._close_store)
        )  # the thread may still be opening the store
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
