# SPDX-License-Identifier: MIT
"""The node list for programs without an event loop: the same calls, blocking, safe to use from any thread."""

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

#: Seconds of one wait for a change; there is no end to how many follow each other.
_LONG = 3600.0


def _with_parameters_of(
    model: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Give a function the signature of ``model``: for type checkers, editors and ``help()``."""

    def give(function: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        function.__signature__ = inspect.signature(model)  # type: ignore[attr-defined]
        return function

    return give


def _at_once(method: Callable[Concatenate[AsyncNodeList, P], T]) -> Callable[Concatenate[NodeList, P], T]:
    """Make a method of :class:`NodeList` of one that does not wait, with its signature and its docstring."""

    @functools.wraps(method)
    def call(self: NodeList, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._do(lambda: method(self._inner, *args, **kwargs))

    call.__qualname__ = f"NodeList.{method.__name__}"
    return call


def _waiting(
    method: Callable[Concatenate[AsyncNodeList, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[NodeList, P], T]:
    """Make a method of :class:`NodeList` of one that waits: it blocks until the result is there."""

    @functools.wraps(method)
    def call(self: NodeList, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._inner, *args, **kwargs))

    call.__qualname__ = f"NodeList.{method.__name__}"
    return call


class NodeList:
    """A member of a gossip cluster that works in a background thread; takes the parameters of :class:`AsyncNodeList`.

    ``with NodeList(...) as node_list:`` closes it at the end of the block. The thread is a daemon: a program that ends
    without :meth:`close` is not kept alive, but its last publish may not have been sent. A log handler runs in that
    thread: calls that wait, such as :meth:`publish`, raise ``RuntimeError`` there. A signal handler may make every
    call.
    """

    @_with_parameters_of(AsyncNodeList.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._inner = AsyncNodeList(*args, **kwargs)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.RLock()  # a signal's handler may call while its thread holds it
        self._changing = threading.RLock()  # one join() or close() at a time
        self._ended = False

    new = _at_once(AsyncNodeList.new)
    unset = _at_once(AsyncNodeList.unset)
    set = _at_once(AsyncNodeList.set)

    def join(self) -> None:
        """Open the sockets, load the stored state and start to gossip in the background.

        Raises ``StoreError``, ``TransportError`` (the address is in use, say).
        """
        self.get()  # says when new() is missing or all is over, before a thread is started
        with self._changing:
            if self._loop is not None:
                raise NotReadyError("join() was called before")
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(_record)
            # Whoever takes it out has the loop: the thread, or a join() that was interrupted while that started.
            turn: queue.SimpleQueue[None] = queue.SimpleQueue()
            turn.put(None)
            thread = threading.Thread(target=_serve, args=[loop, turn], name="xdp-gossip", daemon=True)
            try:
                self._inner._process = os.getpid()  # of a fork from here on, too
                self._ended = False
                # The loop comes last: until the thread runs, the handler of a signal cannot wait for it.
                thread.start()
                self._thread, self._loop = thread, loop
                self._wait(self._inner.join())
            except BaseException:
                try:
                    if _taken(turn):
                        loop.close()
                    elif not self._ended:
                        # An interrupt may come when all is open: then it is to be closed again.
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
    read = _at_once(AsyncNodeList.read)
    delete = _waiting(AsyncNodeList.delete)
    document = _at_once(AsyncNodeList.document)
    documents = _at_once(AsyncNodeList.documents)
    history = _waiting(AsyncNodeList.history)
    version = _waiting(AsyncNodeList.version)
    members = _at_once(AsyncNodeList.members)
    update_node = _at_once(AsyncNodeList.update_node)
    leave = _waiting(AsyncNodeList.leave)
    status = _at_once(AsyncNodeList.status)

    def watch(self, prefix: str = "", since: int | None = None, kind: str = "") -> Iterator[Change]:
        """Yield every change from now on; see :meth:`AsyncNodeList.watch`.

        Blocks between changes, and ends when another thread closes the node list, after the last change before that.
        Several threads may watch at one time. In a forked child it raises ``NotReadyError``.
        """

        def first() -> int:
            self._inner.watch(prefix, since, kind)  # says what is wrong now, not at the first change
            return self._inner.revision if since is None else since

        return self._changes(self._do(first), prefix, kind)

    def _changes(self, revision: int, prefix: str, kind: str) -> Iterator[Change]:
        while True:
            over = False
            try:
                found = self._wait(self._inner.changes(revision, _LONG, prefix, kind))
            except NotReadyError:
                self._inner._not_forked()
                with self._changing:  # whoever closes it has come to the end: nothing is added any more
                    found, over = self._inner._log.since(revision, Filter(prefix, kind)), True
            if found.gap:
                yield Change(found.revision, "resync", "gap")
            yield from found.changes
            if over:
                return
            revision = found.revision

    def close(self) -> None:
        """Stop gossiping and release everything. Idempotent; in a forked child without effect."""
        if self._inner._forked:
            return
        self._elsewhere()
        with self._changing:  # whoever comes second waits for the first
            if self._loop is None:
                self._inner._closed = True  # nothing runs yet, and nothing will
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
        """Run a call that does not wait, on the loop's thread once there is one."""
        if self._loop is None or threading.current_thread() is self._thread:
            return call()

        async def run() -> T:
            return call()

        return self._wait(run())

    def _elsewhere(self) -> None:
        """Raise ``RuntimeError`` on the node list's own thread, which cannot wait for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("expected another thread than the node list's own, which a handler of its log runs in")

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._inner._forked:  # neither the thread nor whoever held the lock is here
            work.close()
            self._inner._usable()
        if threading.current_thread() is self._thread:
            work.close()
            self._elsewhere()
        # Under the lock: what is handed over before the thread ends is ended by it, and nothing is handed over later.
        with self._ending:
            if self._loop is None or self._ended:
                work.close()
                self._inner._joined()  # says what is missing
                raise NotReadyError("the node list was closed")
            handed = _Handed(work, self._loop)
        try:
            return handed.result()
        except asyncio.CancelledError:
            raise NotReadyError("the node list was closed") from None
        except BaseException:
            handed.give_up()  # an interrupted wait leaves nothing behind in the thread
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
    """Work handed to another thread's loop, and the way back for its result.

    ``run_coroutine_threadsafe`` is not used: its future has a lock. A signal handler that interrupts the lock's holder
    and then waits for the loop would keep the loop from handing the result over, forever. ``SimpleQueue`` operations
    cannot be interrupted half way.
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
        """Wait for the result. Raises what the work raises, and ``CancelledError`` if the loop ended first."""
        return self._done.get().result()

    def give_up(self) -> None:
        """Cancel the work if it still runs."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the work with it
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())


def _serve(loop: asyncio.AbstractEventLoop, turn: queue.SimpleQueue[None]) -> None:
    """Run the background thread."""
    if _taken(turn):
        loop.run_forever()


def _taken(turn: queue.SimpleQueue[None]) -> bool:
    """Whether it was still there to be taken."""
    try:
        turn.get_nowait()
    except queue.Empty:
        return False
    return True


def _record(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The loop's exception handler, for what no task or callback caught."""
    error = context.get("exception")
    if isinstance(error, Exception) and not isinstance(error, OSError):
        RECORD.add("event loop", error)
    else:
        loop.default_exception_handler(context)


async def _cancel_others() -> None:
    """Cancel all other tasks of this loop, so that nobody waits for them forever."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
