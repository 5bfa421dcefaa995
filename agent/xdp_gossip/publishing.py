# SPDX-License-Identifier: MIT
"""Documents that are published here: first on the disk, then in the engine, and only then on their way to others.

Invariant (docs/protocol.md, "Documents"): a publish that answers "failed" has not happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .core.types import Document, Prepared, Version, Write
from .store import StoreError

if TYPE_CHECKING:
    from .runtime import Disk, Runtime

_log = logging.getLogger("xdp_gossip.runtime")
_OVER = "the node list was closed: expected it open until a publish returns"


class Publisher:
    """Takes what is published, one publish of a key at a time; all that comes together is one transaction."""

    def __init__(self, runtime: Runtime, disk: Disk) -> None:
        self._runtime = runtime
        self._disk = disk
        self._waiting: list[tuple[list[Document], asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._in_flight: dict[str, Prepared] = {}  # by key: prepared, and neither committed nor given up
        self._landed = asyncio.Event()
        self._committing: set[tuple[str, tuple[Version, bool, bytes]]] = set()
        self._begun: set[asyncio.Task[bool]] = set()
        self._over = False

    def has_stored(self, document: Document) -> bool:
        """Whether the engine speaks of a document that is being published, and so is on the disk already."""
        return (document.key, document.rank) in self._committing

    async def publish(self, writes: Sequence[Write], author: str, comment: str) -> list[tuple[Document | None, bool]]:
        """See ``Runtime.publish``."""
        runtime = self._runtime
        keys = frozenset(write.key for write in writes)
        while True:
            while not keys.isdisjoint(self._in_flight):
                await self._landed.wait()
            if self._over:
                raise StoreError(_OVER)
            pending = list(self._in_flight.values())
            prepared = runtime.call(
                lambda engine, now: engine.prepare(writes, now, author=author, comment=comment, pending=pending)  # noqa: B023
            )
            if prepared is None:
                written = runtime.call(
                    lambda engine, now: engine.publish_many(writes, now, author=author, comment=comment)
                )
                await runtime.saved()
                return written
            documents = [item.document for item in prepared if item.changed and item.document is not None]
            if not documents:
                await runtime.saved()  # what is held may have come a moment ago
            if not documents or await self._see_to_its_end(prepared, documents):
                return [(item.document, item.changed) for item in prepared]

    async def _see_to_its_end(self, prepared: list[Prepared], documents: list[Document]) -> bool:
        """See ``_store_and_commit``. What gets to the disk gets to the engine, also when its caller gives up."""
        self._in_flight.update((item.key, item) for item in prepared)
        work = asyncio.ensure_future(self._store_and_commit(prepared, documents))
        self._begun.add(work)
        work.add_done_callback(lambda done: self._land(done, prepared))
        return await asyncio.shield(work)

    def _land(self, work: asyncio.Task[bool], prepared: list[Prepared]) -> None:
        self._begun.discard(work)
        for item in prepared:
            self._in_flight.pop(item.key, None)
        landed, self._landed = self._landed, asyncio.Event()
        landed.set()

    async def _store_and_commit(self, prepared: list[Prepared], documents: list[Document]) -> bool:
        """Whether it happened; else another version came between, and it has to be looked at again."""
        if self._over:
            raise StoreError(_OVER)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((documents, stored))
        self._work.set()
        await stored
        self._committing = {(document.key, document.rank) for document in documents}
        try:
            done = self._runtime.call(lambda engine, now: engine.commit(prepared, now))
        finally:
            self._committing = set()
        if not done:
            await self._disk.run(lambda store: store.save_documents([], documents))
        return done

    async def run(self) -> None:
        """Write what is published, until it is cancelled: then to the end of the transaction that has begun."""
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
            _settle(waiting, StoreError(_OVER))
            if self._begun:
                await asyncio.wait(list(self._begun))

    async def _write(self) -> None:
        """All that waits, as one transaction."""
        waiting, self._waiting = self._waiting, []
        documents = [document for batch, _ in waiting for document in batch]
        try:
            await self._disk.run(lambda store: store.save_documents(documents))
        except StoreError as error:
            _log.error("not published: %s", error)
            self._runtime.note_disk(error)
            _settle(waiting, error)
        except BaseException:
            _settle(waiting, StoreError(_OVER))
            raise
        else:
            self._runtime.note_disk(None)
            _settle(waiting, None)


def _settle(waiting: Sequence[tuple[list[Document], asyncio.Future[None]]], error: StoreError | None) -> None:
    for _, stored in waiting:
        if stored.done():
            continue
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)
