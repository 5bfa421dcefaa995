# SPDX-License-Identifier: MIT
"""Publishes documents of this node: stores them on the disk, commits them in the engine, and only then sends them.

Invariant (docs/protocol.md, "Documents"): a publish that reports a failure has not taken effect, and never takes effect
later.

A version is *staged* on the disk before it takes effect. After the commit in the engine, the disk keeps the staged
version. If the commit fails, the publisher withdraws the staged version from the disk. A withdrawal is retried until it
succeeds. Until the withdrawal succeeds, no other version is staged, so no further withdrawal can become necessary.
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
#: Maximum seconds after a commit until the publisher tells the store to keep the version. If another publish comes
#: first, the transaction of that publish also tells the store to keep the version.
_SETTLE_AFTER = 1.0
#: Seconds until a failed withdrawal is retried.
_RETRY = 5.0


#: See :func:`only_if`.
_before_commit: contextvars.ContextVar[Callable[[], None]] = contextvars.ContextVar(
    "before_commit", default=lambda: None
)


@contextlib.contextmanager
def only_if(check: Callable[[], None]) -> Iterator[None]:
    """Context manager: each publish in the block calls ``check()`` before it takes effect.

    If ``check`` raises, the publish fails.

    The publish raises the error of ``check``. Nothing runs between ``check`` and the moment at which the publish takes
    effect. Therefore, if the caller cancels a request before the publish takes effect, the publish never takes effect.
    A context variable carries ``check``, so that the layers between the caller and the publisher need no parameter for
    it.
    """
    token = _before_commit.set(check)
    try:
        yield
    finally:
        _before_commit.reset(token)


class _GivenUp(Exception):
    """The caller was cancelled before its publish took effect."""


class Publisher:
    """Publishes documents. Each key has at most one publish at a time.

    Publishes that arrive together share one transaction.
    """

    def __init__(self, runtime: Runtime, disk: Disk) -> None:
        self._runtime = runtime
        self._disk = disk
        self._waiting: list[tuple[list[Document], asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        # Key -> version that is prepared, but neither committed nor cancelled yet.
        self._in_flight: dict[str, Prepared] = {}
        self._landed = asyncio.Event()
        self._committing: set[tuple[str, tuple[Version, bool, bytes]]] = set()
        # Committed versions that the store has not been told to keep yet.
        self._kept: list[Document] = []
        # Versions that are not committed, but perhaps on the disk.
        self._withdrawn: list[Document] = []
        self._settling = asyncio.Lock()
        self._alarm: asyncio.TimerHandle | None = None
        self._begun: set[asyncio.Task[bool]] = set()
        self._over = False

    @property
    def owes(self) -> bool:
        """Whether the disk may contain a staged version that still has to be withdrawn."""
        return bool(self._withdrawn)

    def undecided(self, document: Document) -> bool:
        """Whether the version ``document`` from the disk is only staged: not published yet, or to be withdrawn."""
        item = self._in_flight.get(document.key)
        coming = [item.document] if item is not None and item.changed and item.document is not None else []
        return any(each.key == document.key and each.rank == document.rank for each in (*coming, *self._withdrawn))

    def has_stored(self, document: Document) -> bool:
        """Whether a publish has already written ``document`` to the disk."""
        return (document.key, document.rank) in self._committing

    async def publish(self, writes: Sequence[Write], author: str, comment: str) -> list[tuple[Document | None, bool]]:
        """Store documents on the disk, commit them in the engine, and send them to other members.

        A publish that raises has not taken effect.

        Returns, for each write, the current document after the publish and whether the document changed. Raises
        ``ProtocolError``, and ``StoreError`` if the disk fails.
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
                # An equal version that another member published may not be on the disk yet.
                await runtime.saved()
            if not documents or await self._see_to_its_end(prepared, documents, before_commit):
                return [(item.document, item.changed) for item in prepared]

    def _prepare(self, writes: Sequence[Write], author: str, comment: str) -> list[Prepared] | None:
        """Let the engine prepare a version for each write.

        Returns None if the engine's wire format has no separate steps to prepare and to commit.

        Raises ``ProtocolError``.
        """
        pending = list(self._in_flight.values())
        return self._runtime.call(
            lambda engine, now: engine.documents.prepare(writes, now, author=author, comment=comment, pending=pending)
        )

    async def _see_to_its_end(
        self, prepared: list[Prepared], documents: list[Document], before_commit: Callable[[], None]
    ) -> bool:
        """Run ``_store_and_commit`` to completion, even if the caller is cancelled, so that no version stays staged.

        Returns what ``_store_and_commit`` returns.
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
            # Retrieve the error, because asyncio logs errors that are never retrieved.
            work.exception()
        for item in prepared:
            self._in_flight.pop(item.key, None)
        landed, self._landed = self._landed, asyncio.Event()
        landed.set()

    async def _store_and_commit(
        self, prepared: list[Prepared], documents: list[Document], before_commit: Callable[[], None]
    ) -> bool:
        """Stage versions on the disk, then commit them.

        Returns False if the engine accepted another version of one of the documents meanwhile, so that the caller must
        prepare again.
        """
        if self._over:
            raise StoreError(_OVER)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((documents, stored))
        self._work.set()
        await stored
        self._committing = {(document.key, document.rank) for document in documents}
        done = False
        try:
            # No await between the check and the commit, so nothing else runs in between.
            before_commit()
            done = self._runtime.call(lambda engine, now: engine.documents.commit(prepared, now))
        finally:
            self._committing = set()
            # The second condition covers an error after the commit, when the version has taken effect already.
            if done or any(self._runtime.engine.documents.held(document.key) is document for document in documents):
                self._kept += documents
                self._wake(_SETTLE_AFTER)
            else:
                await self._withdraw(documents)
        return done

    async def _withdraw(self, documents: Sequence[Document]) -> None:
        """Remove the uncommitted versions of ``documents`` from the disk.

        Raises ``StoreError`` if the removal fails; the writer retries the removal later.
        """
        self._withdrawn += documents
        try:
            async with self._settling:
                await self._settle()
        except NotedError:
            pass  # if this run cannot remove the row, the next start does
        except StoreError as error:
            keys = ", ".join(repr(document.key) for document in documents)
            text = f"{error}; what was written of {keys} may still be on the disk, and would take effect at a restart; "
            raise StoreError(f"{text}the agent removes it as soon as the disk works again") from error

    async def _settle(self) -> None:
        """Tell the store which staged versions it must keep, and which staged versions it must delete.

        Raises ``StoreError`` if the store fails; the writer retries later.
        """
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
        # Entries that were added during the call come after these entries.
        del self._kept[: len(kept)]
        del self._withdrawn[: len(withdrawn)]
        self._runtime.counters["documents_withdrawn"] += found

    def _wake(self, after: float) -> None:
        """Make the writer call ``_settle`` in ``after`` seconds at the latest."""
        if self._alarm is not None:
            if self._alarm.when() <= asyncio.get_running_loop().time() + after:
                return
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(after, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._work.set()

    async def run(self) -> None:
        """Write published documents to the disk, until cancelled.

        A cancellation waits until a running transaction is complete.
        """
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
        """Call ``_settle`` for the last time, and log the versions that could not be withdrawn."""
        try:
            async with self._settling:
                await self._settle()
        except NotedError:
            pass  # the next start removes the rows of these versions
        except StoreError as error:
            for document in self._withdrawn:
                text = "document %r: version %s was not published, but the disk keeps it: it will hold after a restart"
                _log.error(f"{text}: %s", document.key, document.version, error)
        if self._alarm is not None:
            self._alarm.cancel()

    async def _write(self) -> None:
        """Stage all waiting documents in one transaction. If no document is waiting, call ``_settle``."""
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
        """Write ``documents`` to the disk as staged versions. Raises ``StoreError``."""
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
        # Even if SQLite's COMMIT reports an error, the transaction may be on the disk.
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
