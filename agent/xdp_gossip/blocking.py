# SPDX-License-Identifier: MIT
"""The node list for programs without an event loop: the methods of :class:`AsyncNodeList`, but blocking and
thread-safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .common.internal_errors import RECORD
from .node.changes import Change, Filter
from .nodelist import AsyncNodeList, NotReadyError

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")

#: Maximum seconds of one wait for a change, after which the iterator waits again.
_LONG = 3600.0


def _with_parameters_of(
    model: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Decorator that gives a function the signature of ``model``, for type checkers, editors and ``help()``."""

    def give(function: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        function.__signature__ = inspect.signature(model)  # type: ignore[attr-defined]
        return function

    return give


def _at_once(method: Callable[Concatenate[AsyncNodeList, P], T]) -> Callable[Concatenate[NodeList, P], T]:
    """Make a method of :class:`NodeList` from the non-blocking ``method``, with the same signature and docstring."""

    @functools.wraps(method)
    def call(self: NodeList, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._do(lambda: method(self._inner, *args, **kwargs))

    call.__qualname__ = f"NodeList.{method.__name__}"
    return call


def _waiting(
    method: Callable[Concatenate[AsyncNodeList, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[NodeList, P], T]:
    """Make a method of :class:`NodeList` that runs the coroutine ``method`` and waits for its result."""

    @functools.wraps(method)
    def call(self: NodeList, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._inner, *args, **kwargs))

    call.__qualname__ = f"NodeList.{method.__name__}"
    return call


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
        # This lock is reentrant, because a signal handler may call a method in a thread that already holds the lock.
        self._ending = threading.RLock()
        # This lock is held while join() or close() runs.
        self._changing = threading.RLock()
        self._ended = False

    new = _at_once(AsyncNodeList.new)
    unset = _at_once(AsyncNodeList.unset)
    set = _at_once(AsyncNodeList.set)

    def join(self) -> None:
        """Open the sockets, load the stored state, and start to gossip in the background.

        Raises ``StoreError``, or ``TransportError`` (for example if the address is in use).
        """
        # get() raises an error if new() was not called or the node list is closed.
        self.get()
        with self._changing:
            if self._loop is not None:
                raise NotReadyError("join() was called before")
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(_record)
            # Either the thread runs the loop, or join() closes the loop because an interrupt arrived while the thread
            # started. This queue has one item: the side that takes the item may use the loop.
            turn: queue.SimpleQueue[None] = queue.SimpleQueue()
            turn.put(None)
            thread = threading.Thread(target=_serve, args=[loop, turn], name="xdp-gossip", daemon=True)
            try:
                # A process with another id is a forked child.
                self._inner._process = os.getpid()
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
                        # If an interrupt arrived after the sockets and files were opened, close them again.
                        self._thread, self._loop = thread, loop
                        self._wait(self._inner._take_back())
                finally:
                    if self._loop is not None:
                        self._end_thread()
                    self._loop = self._thread = self._inner._process = None
                raise

    get = _at_once(AsyncNodeList.get)
    stop = _at_once(AsyncNodeList.stop)
    start = _at_once(AsyncNodeList.start)
    publish = _waiting(AsyncNodeList.publish)
    publish_many = _waiting(AsyncNodeList.publish_many)
    rollback = _waiting(AsyncNodeList.rollback)
    repair = _at_once(AsyncNodeList.repair)
    forget = _at_once(AsyncNodeList.forget)
    read = _at_once(AsyncNodeList.read)
    delete = _waiting(AsyncNodeList.delete)
    document = _at_once(AsyncNodeList.document)
    documents = _at_once(AsyncNodeList.documents)
    history = _waiting(AsyncNodeList.history)
    version = _waiting(AsyncNodeList.version)
    trust = _at_once(AsyncNodeList.trust)
    replace_keys = _at_once(AsyncNodeList.replace_keys)
    signed_by = _at_once(AsyncNodeList.signed_by)
    signature = _at_once(AsyncNodeList.signature)
    lineage = _at_once(AsyncNodeList.lineage)
    members = _at_once(AsyncNodeList.members)
    update_node = _at_once(AsyncNodeList.update_node)
    leave = _waiting(AsyncNodeList.leave)
    status = _at_once(AsyncNodeList.status)

    def watch(self, prefix: str = "", since: int | None = None, kind: str = "") -> Iterator[Change]:
        """Yield every change after revision ``since`` (None: the current revision), like :meth:`AsyncNodeList.watch`.

        The iterator blocks until the next change. If another thread closes the node list, the iterator ends after the
        last change. Several threads may watch at the same time. In a forked child the iterator raises
        ``NotReadyError``.
        """

        def first() -> int:
            # watch() checks the arguments at once.
            self._inner.watch(prefix, since, kind)
            return self._inner.revision if since is None else since

        return self._changes(self._do(first), prefix, kind)

    def _changes(self, revision: int, prefix: str, kind: str) -> Iterator[Change]:
        while True:
            over = False
            try:
                found = self._wait(self._inner.changes(revision, _LONG, prefix, kind))
            except NotReadyError:
                self._inner._not_forked()
                with self._changing:  # wait until close() has ended: after that, no change is added
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
        with self._changing:  # a second call of close() waits here for the first
            if self._loop is None:
                self._inner._closed = True  # join() was not called yet; a later join() will fail
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
            raise RuntimeError(
                "a log handler called a method that waits for the node list's own thread: call it in another thread"
            )

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._inner._forked:  # a forked child has no background thread, and copied locks may stay locked forever
            work.close()
            self._inner._usable()
        if threading.current_thread() is self._thread:
            work.close()
            self._elsewhere()
        # The lock ensures that no work is passed to a thread that has ended. When the thread ends, it cancels
        # unfinished work.
        with self._ending:
            if self._loop is None or self._ended:
                work.close()
                # _joined() raises an error if join() was not called.
                self._inner._joined()
                raise NotReadyError("the node list was closed")
            handed = _Handed(work, self._loop)
        try:
            return handed.result()
        except asyncio.CancelledError:
            raise NotReadyError("the node list was closed") from None
        except BaseException:
            # An interrupted wait must not leave work running in the thread.
            handed.give_up()
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
    that holds the lock, and the handler waits for the loop, the loop may wait for the lock: a deadlock. This class
    passes the result through a ``SimpleQueue``, whose operations are atomic.
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
        """Wait for the coroutine's result and return it.

        Raises the coroutine's errors, or ``CancelledError`` if the loop ended.
        """
        return self._done.get().result()

    def give_up(self) -> None:
        """Cancel the coroutine if it is not finished yet."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, so the work has ended
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())


def _serve(loop: asyncio.AbstractEventLoop, turn: queue.SimpleQueue[None]) -> None:
    """Run the event loop in the background thread, or return at once if an interrupted join() has claimed the loop."""
    if _taken(turn):
        loop.run_forever()


def _taken(turn: queue.SimpleQueue[None]) -> bool:
    """Take the item out of the queue ``turn``. Returns False if the queue is empty, because another thread has taken
    the item; otherwise True.
    """
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
