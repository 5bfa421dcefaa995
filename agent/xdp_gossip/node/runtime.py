# SPDX-License-Identifier: MIT
"""Runs an engine: passes it the time and received packets, executes its requests, and saves its state to disk."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Sequence
from typing import TypeVar

from ..common.internal_errors import RECORD, watch
from ..core.allowlist import AllowList
from ..core.events import (
    DocumentChanged,
    DocumentWithheld,
    Event,
    IncarnationChanged,
    MemberChanged,
    MemberForgotten,
    Rumor,
    Standing,
    TombstonesCollected,
    Warned,
)
from ..core.interface import Asked, Known, ProtocolEngine, remembered
from ..core.types import Address, Document, Now
from ..store.disk import Disk
from ..store.sqlite import Snapshot, StoreError
from ..store.unsaved import Unsaved
from ..transport import Transport
from ..wire.keys import Keyring
from .publishing import Publisher
from .steering import PlaneSteering, WithoutPlane

_log = logging.getLogger("xdp_gossip.runtime")
T = TypeVar("T")
#: A clock that, unlike the monotonic clock, also advances while the machine is suspended.
_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)

#: ``_NODES_AFTER``: seconds from a change of the known nodes until they are written. ``_NODES_EVERY``: minimum seconds
#: between two writes of the known nodes.
_NODES_AFTER = 0.2
_NODES_EVERY = 2.0
#: Seconds until a failed write is retried.
_RETRY = 5.0
#: If a transaction does not finish within this many seconds, the disk counts as failing.
_HUNG = 30.0
#: Minimum seconds between two logged warnings with the same code.
_QUIET = 30.0
#: Seconds between two log lines about writes that a failing disk rejects; writes are retried every few seconds.
_DISK_QUIET = 60.0
#: If a timer is overdue by this many seconds, the runtime counts as stuck.
_STUCK = 10.0
#: Seconds until the timers run again after an internal error in a timer.
_AFTER_FAULT = 0.2
#: After this many failed timer runs in a row, the runtime counts as stuck, and a new process should replace it.
_STUCK_FAULTS = 50


class Runtime:
    """One running engine with its transport and disk. All methods must be called in the event loop in which
    :meth:`open` ran.
    """

    def __init__(
        self,
        engine: ProtocolEngine,
        transport: Transport,
        disk: Disk,
        on_event: Callable[[Event], None],
        steering: PlaneSteering = WithoutPlane(),  # noqa: B008 - it does not change
        allow: AllowList = AllowList(),  # noqa: B008 - it does not change
    ) -> None:
        self.engine = engine
        self.transport = transport
        self.steering = steering
        self._disk_error: str | None = None
        #: Counters. ``rx_not_allowed``: packets that came from an address outside the allowed networks.
        #: ``documents_withdrawn``: versions removed from the disk because their publish failed; ``withdrawals_failed``:
        #: failed attempts to remove such versions. ``versions_given_up``: versions that will never be written to the
        #: disk (see ``unsaved``). ``state_file_repairs``: number of repairs of the state file when this node opened the
        #: file. ``*_not_stored``: failed attempts to write
        #: other nodes' documents, the incarnation or the known nodes. ``history_refused``: versions of the state file
        #: that were not shown, because their signatures are wrong.
        self.counters = dict.fromkeys(
            (
                *("rx_not_allowed", "documents_withdrawn", "withdrawals_failed", "versions_given_up"),
                *("state_file_repairs", "documents_not_stored", "incarnation_not_stored", "nodes_not_stored"),
                "history_refused",
            ),
            0,
        )
        self._allow = allow
        self._disk = disk
        self._on_event = on_event
        self._timer: asyncio.TimerHandle | None = None
        self._unsaved = Unsaved(self.counters)
        engine.unstored_source = lambda: self.unstored
        # waiting callers of saved(), each with the number of changes that must be on the disk
        self._saved: list[tuple[asyncio.Future[None], int]] = []
        self._work = asyncio.Event()
        # The new incarnation, until it has been written to the disk.
        self._raised: int | None = None
        self._was_raised = asyncio.Event()
        self.publisher = Publisher(self, disk)
        self._nodes_changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._warned: dict[str, tuple[float, int]] = {}
        # Number of consecutive timer runs that failed.
        self._timer_faults = 0
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    @staticmethod
    def now() -> Now:
        """Return the current time of every clock that the engine uses. A wall clock before 1970 counts as 1970."""
        mono = time.monotonic()
        slept = time.clock_gettime(_BOOT_CLOCK) - mono if _BOOT_CLOCK is not None else 0.0
        return Now(mono, max(0, time.time_ns()), slept)

    async def open(self) -> None:
        """Open the sockets. Packets that arrive before :meth:`start` are lost.

        Raises ``TransportError``, also if the settings request a kernel mode by name and no data plane is possible.
        """
        self._loop = asyncio.get_running_loop()
        await self.transport.open(self._receive)
        try:
            self.steering.open(self.now())
        except BaseException:
            self.steering.close()
            await self.transport.close()
            raise

    def start(self, snapshot: Snapshot) -> None:
        """Start the engine with the saved state of an earlier run."""
        work = (self._save_documents(), self._save_nodes(), self._save_incarnation(), self.publisher.run())
        self._tasks = [self._loop.create_task(job) for job in work]
        for task in self._tasks:
            watch(task, "state file")
        self.call(lambda _, now: self._begin(now, snapshot))

    def _begin(self, now: Now, snapshot: Snapshot) -> None:
        self.engine.start(now, snapshot.known, snapshot.documents)
        self.steering.begin(now, lambda: self.call(lambda _, later: self.steering.notice(later)))

    def call(self, operation: Callable[[Asked, Now], T]) -> T:
        """Call ``operation`` with the engine, then execute the engine's requests. Returns the operation's result."""
        try:
            return operation(self.engine, self.now())
        finally:
            self._carry_out()

    def replace_keys(self, keyring: Keyring) -> None:
        """Replace the keys of the engine and of the data plane.

        The order keeps every valid packet: first the kernel accepts the new keys, too. Then the engine and the kernel
        sign with the new key. Last, the kernel removes the keys that are not among the new ones.
        """
        self.steering.accept_keys(keyring.mac_keys, self.now())
        self.call(lambda engine, now: engine.replace_keys(keyring, now))
        self.steering.use_keys(keyring.mac_keys, keyring.active.id, self.now())

    async def saved(self) -> None:
        """Wait until all documents that were accepted before this call are on the disk. Raises ``StoreError``."""
        if self._unsaved.written >= self._unsaved.added:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._saved.append((done, self._unsaved.added))
        await done

    def note_disk(self, error: StoreError | None) -> None:
        """Record the result of a write to the state file. The disk counts as healthy again once all pending writes
        succeed.
        """
        if error is not None:
            self._disk_error = str(error)
        elif not self._unsaved and not self.publisher.owes and self._raised is None:
            self._disk_error = None
        if self._disk_error is not None:
            # write the known nodes again and again, until a success shows that the disk works
            self._nodes_changed.set()

    @property
    def unstored(self) -> Container[str]:
        """Keys of the documents that the engine holds but that are not on the disk yet."""
        return self._unsaved.keys

    @property
    def storage_error(self) -> str | None:
        """The reason why the disk rejects writes, with the number of documents that are only in memory; None if the
        disk works.
        """
        error = self._disk_error
        if error is None and (busy := self._disk.busy) > _HUNG:
            error = f"the state file has not answered for {busy:.0f} s"
        if error is None or not self._unsaved.keys:
            return error
        return f"{error}; the last versions of {len(self._unsaved.keys)} documents are in memory only"

    def healthy(self) -> bool:
        """Whether the engine's timers run in time and without errors."""
        due = self.engine.next_timer()
        in_time = due is None or time.monotonic() - due < _STUCK
        return not self._closed and in_time and self._timer_faults < _STUCK_FAULTS

    async def close(self) -> None:
        """Send queued packets, write pending data and release all resources.

        The close continues even if the caller is cancelled. A second call waits for the end of the first call.
        """
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def abandon(self) -> None:
        """Undo :meth:`open` if :meth:`start` failed or will not be called. The disk stays open."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.steering.close()
        await self.transport.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _close(self) -> None:
        await self.abandon()
        known = self._remembered()
        try:
            await self._disk.run(self._unsaved.take().write)
        except StoreError as error:
            _log.error("documents not stored at the end: %s", error)
            self._release(error)
        else:
            self._unsaved.done()
            self._release()
        try:
            await self._disk.save_nodes(known)
            await self._store_incarnation()
        except StoreError as error:
            _log.error("known nodes not stored at the end: %s", error)
        await self._disk.close()

    def _receive(self, data: bytes, source: Address, screened: bool = False) -> bool | None:
        if self._closed:
            return None
        if not self._allow.admits(source.ip):
            self.counters["rx_not_allowed"] += 1
            return False
        taken = self.engine.receive(data, source, self.now(), screened)
        self._carry_out()
        return taken

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.call(self._do_what_is_due)
        except Exception as error:
            RECORD.add("timer", error)
            self._timer_faults += 1
            # The failed timer may still be due, so running the timers at once would be a busy loop.
            if self._timer is not None:
                self._timer.cancel()
            if not self._closed:
                self._timer = self._loop.call_later(_AFTER_FAULT, self._on_timer)
        else:
            self._timer_faults = 0

    def _do_what_is_due(self, _: Asked, now: Now) -> None:
        self.steering.inform(now)
        self.engine.handle_timer(now)
        self.steering.handle_timer(now)

    def _carry_out(self) -> None:
        """Execute the engine's requests.

        Events are handled before packets are sent, so a document is queued for the disk before another member receives
        it.
        """
        for event in self.engine.take_events():
            self._handle(event)
        self.steering.attend(self.now())
        for transmit in self.engine.take_transmits():
            if isinstance(transmit, Rumor):
                self.transport.send_rumor(transmit)
            else:
                self.transport.send(transmit)
        self._set_timer()

    def _set_timer(self) -> None:
        due = self.steering.next_timer()
        wanted = self.engine.next_timer()
        if wanted is not None:
            due = min(due, wanted)
        if self._timer is not None:
            if self._timer.when() <= due < math.inf:
                return  # no new timer is needed, because the current timer fires early enough
            self._timer.cancel()
            self._timer = None
        if due < math.inf and not self._closed:
            self._timer = self._loop.call_at(due, self._on_timer)

    def _handle(self, event: Event) -> None:
        if isinstance(event, DocumentChanged) and self.publisher.has_stored(event.document):
            pass
        elif isinstance(event, (DocumentChanged, DocumentWithheld, TombstonesCollected)):
            self._unsaved.add(event)
            self._work.set()
        elif isinstance(event, IncarnationChanged):
            self._raised = event.incarnation
            self._was_raised.set()
        elif isinstance(event, Standing):
            self.steering.hold(event, self.now())
            return
        elif isinstance(event, (MemberChanged, MemberForgotten)):
            self._nodes_changed.set()
            self.steering.members_changed(self.now())
        elif isinstance(event, Warned):
            self._warn(event)
        self._on_event(event)

    def _remembered(self) -> list[Known]:
        now = self.now()
        return [*remembered(self.engine.members(now), now), *self.engine.former(now)]

    def authentic(self, versions: Sequence[Document]) -> list[Document]:
        """Return the ``versions``, read from the disk, without those whose signatures are wrong, and count the others.

        The state file may be one that somebody has restored or edited. See ``Signers.authentic``.
        """
        found = self.engine.documents.signers.authentic(versions)
        if len(found) < len(versions):
            self.counters["history_refused"] += len(versions) - len(found)
            text = f"document {versions[0].key!r}: {len(versions) - len(found)} versions of the history are not shown"
            self._warn(Warned("history_refused", f"{text}: their signatures are wrong; who changed the state file?"))
        return found

    def _warn(self, event: Warned, level: int = logging.WARNING, quiet: float = _QUIET) -> None:
        """Log a warning.

        At most one warning with the same code is logged within ``quiet`` seconds; the next log line reports how many
        warnings were suppressed.
        """
        since, hidden = self._warned.get(event.code, (-quiet, 0))
        if time.monotonic() - since < quiet:
            self._warned[event.code] = (since, hidden + 1)
            return
        self._warned[event.code] = (time.monotonic(), 0)
        _log.log(level, "%s%s", event.text, f" ({hidden} more like it before)" if hidden else "")

    def _not_stored(self, what: str, text: str) -> None:
        """Count a write that the disk rejected, and log a warning at a limited rate."""
        self.counters[f"{what}_not_stored"] += 1
        self._warn(Warned(f"{what}_not_stored", text), logging.ERROR, _DISK_QUIET)

    async def _save_documents(self) -> None:
        """Write new documents to the disk, until cancelled. Documents that arrive together share one transaction."""
        while True:
            await self._work.wait()
            self._work.clear()
            if not self._unsaved:
                continue
            try:
                await self._disk.run(self._unsaved.take().write)
            except StoreError as error:
                self._unsaved.put_back()
                self.note_disk(error)
                waiting, lost = len(self._unsaved.keys), self.counters["versions_given_up"]
                text = f"{waiting} documents wait, {lost} versions of the history were given up"
                self._not_stored("documents", f"documents not stored, next try in {_RETRY:g} s ({text}): {error}")
                self._release(error)
                await asyncio.sleep(_RETRY)
                self._work.set()
            except BaseException:
                # If this task is cancelled, close() writes the documents.
                self._unsaved.put_back()
                raise
            else:
                self._unsaved.done()
                self.note_disk(None)
                self._release()

    def _release(self, error: StoreError | None = None) -> None:
        """Wake callers of :meth:`saved`: after a failure all callers, otherwise the callers whose documents are on the
        disk.
        """
        waiting, self._saved = self._saved, []
        for done, count in waiting:
            if done.done():
                continue
            if error is not None:
                done.set_exception(error)
            elif count <= self._unsaved.written:
                done.set_result(None)
            else:
                self._saved.append((done, count))

    async def _save_incarnation(self) -> None:
        """Store each new incarnation, until cancelled, so that the next run starts with a later incarnation."""
        while True:
            await self._was_raised.wait()
            self._was_raised.clear()
            try:
                await self._store_incarnation()
            except StoreError as error:
                self.note_disk(error)
                self._not_stored("incarnation", f"incarnation not stored, next try in {_RETRY:g} s: {error}")
                await asyncio.sleep(_RETRY)
                self._was_raised.set()

    async def _store_incarnation(self) -> None:
        raised = self._raised
        if raised is not None:
            await self._disk.save_incarnation(raised)
            if self._raised == raised:
                self._raised = None

    async def _save_nodes(self) -> None:
        """Store the list of known nodes after changes, until cancelled, so that a restarted node needs no seeds."""
        while True:
            await self._nodes_changed.wait()
            await asyncio.sleep(_NODES_AFTER)
            self._nodes_changed.clear()
            known = self._remembered()
            try:
                await self._disk.save_nodes(known)
            except StoreError as error:
                self.note_disk(error)
                self._not_stored("nodes", f"known nodes not stored: {error}")
            else:
                self.note_disk(None)
            await asyncio.sleep(_NODES_EVERY)
