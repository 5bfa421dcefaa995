# SPDX-License-Identifier: MIT
"""Publishes documents of this node: first on the disk, then in the engine, and only then on their way to others.

Invariant (docs/protocol.md, "Documents"): a publish that answers "failed" has not happened, and will not.

The disk has a version before it holds: it is staged there, and after the commit in the engine it is kept or withdrawn.
A withdrawal is tried until it succeeds. Meanwhile nothing more is staged, so that no more can be owed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..core.types import Document, Prepared, Version, Write
from ..store.sqlite import NotedError, StoreError

if TYPE_CHECKING:
    from ..store.disk import Disk
    from .runtime import Runtime

_log = logging.getLogger("xdp_gossip.runtime")
_OVER = "the node list was closed: expected it open until a publish returns"
#: Seconds until the store is told which versions are kept, if no publish carries that along before.
_SETTLE_AFTER = 1.0
#: Seconds until a failed withdrawal is tried again.
_RETRY = 5.0


#: See :func:`only_if`.
_before_commit: contextvars.ContextVar[Callable[[], None]] = contextvars.ContextVar(
    "before_commit", default=lambda: None
)


@contextlib.contextmanager
def only_if(check: Callable[[], None]) -> Iterator[None]:
    """Context manager: a publish in its block takes effect only if ``check()`` does not raise.

    Otherwise the publish raises that error. ``check`` is called when all is ready, and nothing runs between it and the
    moment at which the publish takes effect. So a request can be given up at any moment, and never takes effect after
    that. (The question belongs to the caller, not to what is published, so it is not a parameter that every layer
    passes on.)
    """
    token = _before_commit.set(check)
    try:
        yield
    finally:
        _before_commit.reset(token)


class _GivenUp(Exception):
    """The caller was cancelled before its publish took effect; nobody is left to be told."""


class Publisher:
    """Publishes documents, one publish of a key at a time. Whatever arrives together becomes one transaction."""

    def __init__(self, runtime: Runtime, disk: Disk) -> None:
        self._runtime = runtime
        self._disk = disk
        self._waiting: list[tuple[list[Document], asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._in_flight: dict[str, Prepared] = {}  # by key: prepared, neither committed nor given up
        self._landed = asyncio.Event()
        self._committing: set[tuple[str, tuple[Version, bool, bytes]]] = set()
        self._kept: list[Document] = []  # committed, but the store does not know yet
        self._withdrawn: list[Document] = []  # not committed, but may be on the disk
        self._settling = asyncio.Lock()
        self._alarm: asyncio.TimerHandle | None = None
        self._begun: set[asyncio.Task[bool]] = set()
        self._over = False

    @property
    def owes(self) -> bool:
        """Whether the disk may hold a version that does not count and must be withdrawn."""
        return bool(self._withdrawn)

    def undecided(self, document: Document) -> bool:
        """Whether a version that the disk may show has not happened, or has not happened yet."""
        item = self._in_flight.get(document.key)
        coming = [item.document] if item is not None and item.changed and item.document is not None else []
        return any(each.key == document.key and each.rank == document.rank for each in (*coming, *self._withdrawn))

    def has_stored(self, document: Document) -> bool:
        """Whether a document from the engine is being published here, and so is on the disk already."""
        return (document.key, document.rank) in self._committing

    async def publish(self, writes: Sequence[Write], author: str, comment: str) -> list[tuple[Document | None, bool]]:
        """Write documents to the disk first, then spread them, so that a failed publish has not happened.

        Returns for each the document held afterwards and whether it changed. Raises ``ProtocolError``, and
        ``StoreError`` if the disk fails.
        """
        runtime, before_commit = self._runtime, _before_commit.get()
        keys = frozenset(write.key for write in writes)
        while True:
            while not keys.isdisjoint(self._in_flight):
                await self._landed.wait()
            if self._over:
                raise StoreError(_OVER)
            prepared = self._prepare(writes, author, comment)
            if prepared is None:
                written = runtime.call(
                    lambda engine, now: engine.documents.publish_many(writes, now, author=author, comment=comment)
                )
                await runtime.saved()
                return written
            documents = [item.document for item in prepared if item.changed and item.document is not None]
            if not documents:
                await runtime.saved()  # the version held may have arrived a moment ago and not be stored yet
            if not documents or await self._see_to_its_end(prepared, documents, before_commit):
                return [(item.document, item.changed) for item in prepared]

    def _prepare(self, writes: Sequence[Write], author: str, comment: str) -> list[Prepared] | None:
        """Have the engine prepare versions. None: the engine's wire publishes in one step. Raises ``ProtocolError``."""
        pending = list(self._in_flight.values())
        return self._runtime.call(
            lambda engine, now: engine.documents.prepare(writes, now, author=author, comment=comment, pending=pending)
        )

    async def _see_to_its_end(
        self, prepared: list[Prepared], documents: list[Document], before_commit: Callable[[], None]
    ) -> bool:
        """Run ``_store_and_commit`` to its end, even if the caller gives up.

        So every staged version is kept or withdrawn.
        """
        given_up = False

        def check() -> None:
            if given_up:
                raise _GivenUp
            before_commit()

        self._in_flight.update((item.key, item) for item in prepared)
        work = asyncio.ensure_future(self._store_and_commit(prepared, documents, check))
        self._begun.add(work)
        work.add_done_callback(lambda done: self._land(done, prepared))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            given_up = True
            raise

    def _land(self, work: asyncio.Task[bool], prepared: list[Prepared]) -> None:
        self._begun.discard(work)
        if not work.cancelled():
            work.exception()  # a waiting caller gets it; one that gave up does not ask
        for item in prepared:
            self._in_flight.pop(item.key, None)
        landed, self._landed = self._landed, asyncio.Event()
        landed.set()

    async def _store_and_commit(
        self, prepared: list[Prepared], documents: list[Document], before_commit: Callable[[], None]
    ) -> bool:
        """Stage and commit. Returns False if another version came between; the caller must then prepare again."""
        if self._over:
            raise StoreError(_OVER)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((documents, stored))
        self._work.set()
        await stored
        self._committing = {(document.key, document.rank) for document in documents}
        done = False
        try:
            before_commit()  # between this and the commit nothing else runs
            done = self._runtime.call(lambda engine, now: engine.documents.commit(prepared, now))
        finally:
            self._committing = set()
            # Also if the steps after a commit have failed.
            if done or any(self._runtime.engine.documents.held(document.key) is document for document in documents):
                self._kept += documents
                self._wake(_SETTLE_AFTER)
            else:
                await self._withdraw(documents)
        return done

    async def _withdraw(self, documents: Sequence[Document]) -> None:
        """Remove versions that do not hold from the disk. Raises ``StoreError``; then it is retried."""
        self._withdrawn += documents
        try:
            async with self._settling:
                await self._settle()
        except NotedError:
            pass  # the publish has not happened in any case; the row is removed later
        except StoreError as error:
            keys = ", ".join(repr(document.key) for document in documents)
            text = f"{error}; what was written of {keys} may still be on the disk, and would hold after a restart now: "
            raise StoreError(f"{text}it is taken from there as soon as the disk is well") from error

    async def _settle(self) -> None:
        """Tell the store which staged versions are kept or withdrawn. Raises ``StoreError``; then it is retried."""
        kept, withdrawn = list(self._kept), list(self._withdrawn)
        if not kept and not withdrawn:
            return
        try:
            found = await self._disk.settle(kept, withdrawn)
        except StoreError as error:
            self._runtime.counters["withdrawals_failed"] += bool(withdrawn)
            self._runtime.note_disk(error)
            self._wake(_RETRY)
            raise
        # These were the first in the list, and more may have been added.
        del self._kept[: len(kept)]
        del self._withdrawn[: len(withdrawn)]
        self._runtime.counters["documents_withdrawn"] += found

    def _wake(self, after: float) -> None:
        """Look after undecided versions in this many seconds, or earlier."""
        if self._alarm is not None:
            if self._alarm.when() <= asyncio.get_running_loop().time() + after:
                return
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(after, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._work.set()

    async def run(self) -> None:
        """Write what is published, until cancelled. A transaction that has begun is completed."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                write = asyncio.ensure_future(self._write())
                try:
                    await asyncio.shield(write)
                except asyncio.CancelledError:
                    await asyncio.wait([write])
                    raise
        finally:
            self._over = True
            waiting, self._waiting = self._waiting, []
            _answer(waiting, StoreError(_OVER))
            if self._begun:
                await asyncio.wait(list(self._begun))
            await self._finish()

    async def _finish(self) -> None:
        """Settle for the last time."""
        try:
            async with self._settling:
                await self._settle()
        except NotedError:
            pass  # the next start settles it
        except StoreError as error:
            for document in self._withdrawn:
                text = "document %r: version %s was not published, but the disk keeps it: it will hold after a restart"
                _log.error(f"{text}: %s", document.key, document.version, error)
        if self._alarm is not None:
            self._alarm.cancel()

    async def _write(self) -> None:
        """Write everything that waits in one transaction. If nothing waits, settle."""
        waiting, self._waiting = self._waiting, []
        documents = [document for batch, _ in waiting for document in batch]
        try:
            if self._withdrawn or not documents:
                async with self._settling:
                    await self._settle()
            if documents:
                await self._stage(documents)
        except StoreError as error:
            _log.error("not published: %s" if waiting else "not taken from the disk: %s", error)
            _answer(waiting, error)
        except BaseException:
            _answer(waiting, StoreError(_OVER))
            raise
        else:
            _answer(waiting, None)

    async def _stage(self, documents: Sequence[Document]) -> None:
        """Write ``documents`` to the disk as staged. Raises ``StoreError``."""
        async with self._settling:
            kept = list(self._kept)
            try:
                await self._disk.stage(documents, kept)
            except StoreError as error:
                self._runtime.note_disk(error)
                failed = error
            else:
                del self._kept[: len(kept)]
                self._runtime.note_disk(None)
                return
        # A transaction that fails at its very end may still be on the disk.
        await self._withdraw(documents)
        raise failed


def _answer(waiting: Sequence[tuple[list[Document], asyncio.Future[None]]], error: StoreError | None) -> None:
    for _, stored in waiting:
        if stored.done():
            continue
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)
