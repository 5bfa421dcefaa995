# SPDX-License-Identifier: MIT
"""The node list for programs without an event loop: the same methods, but blocking and thread-safe."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from .common.internal_errors import RECORD
from .core.types import DEFAULT_KEY, PRESENT, Document, Member, Node, State, Version, Write
from .node.changes import Change, Filter
from .nodelist import AsyncNodeList, NotReadyError, Published

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")

#: Seconds after which a wait for a change returns and is repeated.
_LONG = 3600.0


def _with_parameters_of(
    model: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Decorator that gives a function the signature of ``model``, for type checkers, editors and ``help()``."""

    def give(function: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        function.__signature__ = inspect.signature(model)  # type: ignore[attr-defined]
        return function

    return give


class NodeList:
    """A member of a gossip cluster, running in a background thread. The parameters are those of :class:`AsyncNodeList`.

    ``with NodeList(...) as node_list:`` closes the node list at the end of the block. The background thread is a daemon
    thread: a program that ends without :meth:`close` may lose its last publish. Log handlers run in the background
    thread, where blocking methods such as :meth:`publish` raise ``RuntimeError``. Signal handlers may call any method.
    """

    @_with_parameters_of(AsyncNodeList.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._inner = AsyncNodeList(*args, **kwargs)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.RLock()  # reentrant: a signal handler may call in a thread that holds the lock
        self._changing = threading.RLock()  # only one join() or close() runs at a time
        self._ended = False

    def new(self, node: Node) -> None:
        """Declare the local node. Call this once, before every other method."""
        self._do(lambda: self._inner.new(node))

    def unset(self, node: Node) -> None:
        """Remove a node from the seeds; see ``AsyncNodeList.unset``."""
        self._do(lambda: self._inner.unset(node))

    def set(self, node: Node) -> None:
        """Add another node of the cluster as a seed, which is contacted whenever it is absent."""
        self._do(lambda: self._inner.set(node))

    def join(self) -> None:
        """Open the sockets, load the stored state, and start to gossip in the background.

        Raises ``StoreError``, or ``TransportError`` (for example if the address is in use).
        """
        self.get()  # raises if new() was not called or the node list is closed, before a thread is started
        with self._changing:
            if self._loop is not None:
                raise NotReadyError("join() was called before")
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(_record)
            # The loop belongs to the one that takes the item out of this queue: the thread, or a join() that was
            # interrupted while the thread started.
            turn: queue.SimpleQueue[None] = queue.SimpleQueue()
            turn.put(None)
            thread = threading.Thread(target=_serve, args=[loop, turn], name="xdp-gossip", daemon=True)
            try:
                self._inner._process = os.getpid()  # set before the thread starts, so that any later fork is detected
                self._ended = False
                # Set the loop last, because a signal handler must not wait for the loop before the thread runs.
                thread.start()
                self._thread, self._loop = thread, loop
                self._wait(self._inner.join())
            except BaseException:
                try:
                    if _taken(turn):
                        loop.close()
                    elif not self._ended:
                        # If an interrupt arrived after everything was opened, close everything again.
                        self._thread, self._loop = thread, loop
                        self._wait(self._inner._take_back())
                finally:
                    if self._loop is not None:
                        self._end_thread()
                    self._loop = self._thread = self._inner._process = None
                raise

    def get(self) -> list[Node]:
        """Return all present nodes, the local node first."""
        return self._do(self._inner.get)

    def stop(self) -> bool:
        """Stop publishing heartbeats. Returns False if heartbeats were stopped already."""
        return self._do(self._inner.stop)

    def start(self) -> bool:
        """Publish heartbeats again. Returns False if heartbeats were not stopped."""
        return self._do(self._inner.start)

    def publish(
        self,
        data: bytes,
        key: str = DEFAULT_KEY,
        *,
        expected: Version | str | None = None,
        absent: bool = False,
        content_type: str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | None = None,
    ) -> Published:
        """Write a document; see :meth:`AsyncNodeList.publish`."""
        return self._wait(
            self._inner.publish(
                data,
                key,
                expected=expected,
                absent=absent,
                content_type=content_type,
                author=author,
                comment=comment,
                expires_in=expires_in,
            )
        )

    def publish_many(self, writes: Sequence[Write], *, author: str = "", comment: str = "") -> list[Published]:
        """Write and delete several documents: all or none. On each node the changes become visible together."""
        return self._wait(self._inner.publish_many(writes, author=author, comment=comment))

    def rollback(
        self,
        key: str,
        version: Version | str,
        *,
        expected: Version | str | None = None,
        author: str = "",
        comment: str = "",
        expires_in: float | Literal["never"] | None = None,
    ) -> Published:
        """Publish the value of an earlier ``version`` again; see :meth:`AsyncNodeList.rollback`."""
        return self._wait(
            self._inner.rollback(key, version, expected=expected, author=author, comment=comment, expires_in=expires_in)
        )

    def repair(self) -> int:
        """Sync at once with every node whose documents digest differs. Returns the number of nodes asked."""
        return self._do(self._inner.repair)

    def read(self, key: str = DEFAULT_KEY) -> bytes:
        """Return the value of the document ``key``; empty if there is no such document."""
        return self._do(lambda: self._inner.read(key))

    def delete(
        self, key: str, *, expected: Version | str | None = None, author: str = "", comment: str = ""
    ) -> Published:
        """Delete a document everywhere; see :meth:`AsyncNodeList.delete`."""
        return self._wait(self._inner.delete(key, expected=expected, author=author, comment=comment))

    def document(self, key: str) -> Document | None:
        """Return this node's version of the document ``key``; None if there is none."""
        return self._do(lambda: self._inner.document(key))

    def documents(self, prefix: str = "", after: str = "", limit: int | None = None) -> list[Document]:
        """Return documents whose keys start with ``prefix``, sorted by key.

        Only the first ``limit`` documents (None: all) whose keys come after ``after`` are returned.
        """
        return self._do(lambda: self._inner.documents(prefix, after, limit))

    def history(self, key: str) -> list[Document]:
        """Return the latest versions of a document that this node has stored, newest first."""
        return self._wait(self._inner.history(key))

    def version(self, key: str, version: Version | str) -> Document:
        """Return one of the versions in :meth:`history`; see :meth:`AsyncNodeList.version`."""
        return self._wait(self._inner.version(key, version))

    def members(self, states: frozenset[State] | None = PRESENT) -> list[Member]:
        """Return all nodes whose state is in ``states`` (None: all nodes), the local node first."""
        return self._do(lambda: self._inner.members(states))

    def update_node(self, name: str | None = None, private_data: str | None = None) -> bool:
        """Change name or private data of this node. Returns False if nothing changed."""
        return self._do(lambda: self._inner.update_node(name, private_data))

    def leave(self) -> bool:
        """Leave the cluster. The other members drop this node at once. Returns False if the node had left already."""
        return self._wait(self._inner.leave())

    def status(self) -> dict[str, Any]:
        """Return the status of the node list; see :meth:`AsyncNodeList.status`."""
        return self._do(self._inner.status)

    def watch(self, prefix: str = "", since: int | None = None, kind: str = "") -> Iterator[Change]:
        """Yield every change from now on; see :meth:`AsyncNodeList.watch`.

        The iterator blocks until the next change. The iterator ends after the last change when another thread closes
        the node list. Several threads may watch at the same time. In a forked child the iterator raises
        ``NotReadyError``.
        """

        def first() -> int:
            self._inner.watch(prefix, since, kind)  # raises for wrong arguments now, not at the first change
            return self._inner.revision if since is None else since

        return self._changes(self._do(first), prefix, kind)

    def _changes(self, revision: int, prefix: str, kind: str) -> Iterator[Change]:
        while True:
            over = False
            try:
                found = self._wait(self._inner.changes(revision, _LONG, prefix, kind))
            except NotReadyError:
                self._inner._not_forked()
                with self._changing:  # wait until close() has ended, so that no change is added any more
                    found, over = self._inner._log.since(revision, Filter(prefix, kind)), True
            if found.gap:
                yield Change(found.revision, "resync", "gap")
            yield from found.changes
            if over:
                return
            revision = found.revision

    def close(self) -> None:
        """Stop gossiping, and close all sockets and files. Idempotent. In a forked child the method has no effect."""
        if self._inner._forked:
            return
        self._elsewhere()
        with self._changing:  # a second call waits for the first
            if self._loop is None:
                self._inner._closed = True  # not joined, and join() fails from now on
            elif not self._ended:
                self._wait(self._inner.close())
                self._end_thread()

    def __enter__(self) -> NodeList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, call: Callable[[], T]) -> T:
        """Run a non-blocking call in the background thread, or directly if there is no such thread yet."""
        if self._loop is None or threading.current_thread() is self._thread:
            return call()

        async def run() -> T:
            return call()

        return self._wait(run())

    def _elsewhere(self) -> None:
        """Raise ``RuntimeError`` if the caller runs in the background thread, which cannot wait for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("expected a call in another thread than the node list's, in which its log handlers run")

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._inner._forked:  # a forked child has no background thread, and its locks may be held forever
            work.close()
            self._inner._usable()
        if threading.current_thread() is self._thread:
            work.close()
            self._elsewhere()
        # With the lock held, no work is handed over after the thread has ended. The end of the thread cancels earlier
        # work.
        with self._ending:
            if self._loop is None or self._ended:
                work.close()
                self._inner._joined()  # raises an error that names the missing call
                raise NotReadyError("the node list was closed")
            handed = _Handed(work, self._loop)
        try:
            return handed.result()
        except asyncio.CancelledError:
            raise NotReadyError("the node list was closed") from None
        except BaseException:
            handed.give_up()  # an interrupted wait must not leave work running in the thread
            raise

    def _end_thread(self) -> None:
        with self._ending:
            if self._ended:
                return
            self._ended = True
        assert self._loop is not None
        if self._thread is not None and self._thread.is_alive():
            _Handed(_cancel_others(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()


class _Handed(Generic[T]):
    """Runs a coroutine in another thread's event loop, and passes its result back.

    ``run_coroutine_threadsafe`` is not used, because its future has a lock. If a signal handler interrupts the code
    that holds the lock, and then waits for the loop, the loop can never set the result: a deadlock. Operations of
    ``SimpleQueue`` are atomic.
    """

    def __init__(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self._done: queue.SimpleQueue[asyncio.Task[T]] = queue.SimpleQueue()
        loop.call_soon_threadsafe(self._begin, work)

    def _begin(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._done.put)

    def result(self) -> T:
        """Wait for the result and return it. Raises errors of the work, or ``CancelledError`` if the loop ended."""
        return self._done.get().result()

    def give_up(self) -> None:
        """Cancel the work if it is not finished yet."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, so the work has ended
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())


def _serve(loop: asyncio.AbstractEventLoop, turn: queue.SimpleQueue[None]) -> None:
    """Run the event loop in the background thread, unless join() was interrupted and has taken the loop back."""
    if _taken(turn):
        loop.run_forever()


def _taken(turn: queue.SimpleQueue[None]) -> bool:
    """Take the item out of the queue ``turn``. Returns False if another thread has taken the item."""
    try:
        turn.get_nowait()
    except queue.Empty:
        return False
    return True


def _record(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exception handler of the event loop: record an exception that no task or callback caught."""
    error = context.get("exception")
    if isinstance(error, Exception) and not isinstance(error, OSError):
        RECORD.add("event loop", error)
    else:
        loop.default_exception_handler(context)


async def _cancel_others() -> None:
    """Cancel all other tasks of this loop, so that no thread waits for their results forever."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
