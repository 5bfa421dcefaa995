# SPDX-License-Identifier: MIT
"""Record the call paths of one publish, from the handler of the HTTP API to the disk and the wire.

A path is the list of (file, function) of the package from the handler to one of three ends: the SQL statement that
stores the version, the encoder of a packet, and the call that sends a datagram. A function that a path does not pass,
such as a table that answers a question, is on no path.

A path may leave the stack of the handler. These links join the pieces:

- A task that is created during the walk continues the path of the code that created it.
- A task that existed before, such as the writer of ``Publisher``, continues the path of the code that completed the
  future which the task was waiting for.
- A call on a thread continues the path of the code that put the call into the queue of the thread.

Timers continue no path: what a timer does later, such as the next heartbeat, is not part of the publish.
"""

from __future__ import annotations

import asyncio
import collections
import queue
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import xdp_gossip

PACKAGE = Path(xdp_gossip.__file__).parent
Step = tuple[str, str]
Route = tuple[Step, ...]
SENDS = {"send", "sendall", "sendmsg", "sendto"}


class Tracer:
    """Records paths between :meth:`start` and :meth:`stop`. Install it before the threads of the program start."""

    def __init__(self, handler: CodeType, encoder: CodeType) -> None:
        self.paths: dict[str, list[Route]] = {"sql": [], "encoder": [], "socket": []}
        self._handler, self._encoder = handler, encoder
        self._on = False
        self._links: dict[asyncio.Task[Any], list[Step]] = {}
        self._born: set[asyncio.Task[Any]] = set()
        self._calls: dict[int, collections.deque[list[Step]]] = collections.defaultdict(collections.deque)
        self._thread = threading.local()

    def install(self) -> None:
        """Trace this thread, and every thread that is started from now on."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def remove(self) -> None:
        """Undo :meth:`install`, except for threads that are still running."""
        self._on = False
        threading.setprofile(None)
        sys.setprofile(None)

    def start(self) -> None:
        """Record from now on. Call it in the event loop of the program."""
        asyncio.get_running_loop().set_task_factory(self._new_task)
        self._on = True

    def stop(self) -> None:
        """Record nothing more."""
        self._on = False
        asyncio.get_running_loop().set_task_factory(None)

    def on_statement(self, statement: str) -> None:
        """Take a statement that SQLite executes on the calling thread (``Connection.set_trace_callback``)."""
        if statement.startswith("INSERT INTO document"):
            self._reached("sql", sys._getframe(1))

    def _new_task(self, loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Future[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
        self._born.add(task)
        self._links[task] = self._path(sys._getframe(1))
        return task

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take an event of ``sys.setprofile``."""
        if event == "call":
            if frame.f_code is self._encoder:
                self._reached("encoder", frame)
        elif event == "c_call":
            owner, name = getattr(argument, "__self__", None), getattr(argument, "__name__", "")
            if isinstance(owner, queue.SimpleQueue) and name == "put":
                self._calls[id(owner)].append(self._path(frame))
            elif name == "set_result" and isinstance(owner, asyncio.Future):
                self._wake(owner, frame)
            elif name in SENDS and isinstance(owner, socket.socket) and owner.type == socket.SOCK_DGRAM:
                self._reached("socket", frame)
        elif event == "c_return" and getattr(argument, "__name__", "") == "get":
            owner = getattr(argument, "__self__", None)
            if isinstance(owner, queue.SimpleQueue) and self._calls[id(owner)]:
                self._thread.link = self._calls[id(owner)].popleft()

    def _wake(self, future: asyncio.Future[Any], frame: FrameType) -> None:
        """Link the task that waits for ``future`` to the code that completes it."""
        path = self._path(frame) if self._on else []
        if path:
            for task in asyncio.all_tasks(future.get_loop()) - self._born:
                if getattr(task, "_fut_waiter", None) is future:
                    self._links[task] = path

    def _reached(self, end: str, frame: FrameType) -> None:
        path = tuple(self._path(frame))
        if path and path not in self.paths[end]:
            self.paths[end].append(path)

    def _path(self, frame: FrameType | None) -> list[Step]:
        """The path from the handler to ``frame``; empty if the handler did not cause this call."""
        if not self._on:
            return []
        steps: list[Step] = []
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if PACKAGE in file.parents:
                steps.insert(0, (str(file.relative_to(PACKAGE)), frame.f_code.co_name))
            if frame.f_code is self._handler:
                return steps
            frame = frame.f_back
        link = self._link()
        return [*link, *steps] if link else []

    def _link(self) -> list[Step]:
        if threading.current_thread() is not threading.main_thread():
            link: list[Step] = getattr(self._thread, "link", [])
            return link
        task = asyncio.current_task()
        return self._links.get(task, []) if task is not None else []


def stations(paths: list[Route]) -> list[str]:
    """The files that the paths pass, in the order of first entry."""
    return list(dict.fromkeys(file for path in paths for file, _ in path))


def climbs(paths: list[Route], floor_of: Callable[[str], int]) -> set[tuple[str, str]]:
    """The pairs (file, file) of calls from a file to one on a higher floor."""
    pairs = {(one, other) for path in paths for (one, _), (other, _) in zip(path, path[1:]) if one != other}
    return {(one, other) for one, other in pairs if floor_of(other) > floor_of(one)}
