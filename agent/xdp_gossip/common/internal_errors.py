# SPDX-License-Identifier: MIT
"""Records unexpected exceptions as internal errors. The log, ``status``, ``doctor`` and the metrics show the errors.

An unexpected exception fails only the packet, timer or request in which it occurs, but must not go unnoticed. All node
lists and APIs of a process report their errors to the same :data:`RECORD`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

_log = logging.getLogger("xdp_gossip.internal_errors")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: Seconds between two log lines about errors at the same place in the code.
QUIET = 60.0
#: Maximum number of places in the code whose errors are counted separately. Errors at all places beyond the maximum
#: share one entry.
MAX_PLACES = 200

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class InternalError:
    """The internal errors at one place in the code.

    ``task``: the work that failed (packet, timer, ...). ``place``: file, line and function of this package in which the
    exception occurred. ``error``: the last exception, in one line. ``count``: number of errors at ``place`` since the
    process started.
    """

    task: str
    place: str
    error: str
    count: int


class Record:
    """All internal errors of a process, by task and place. ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[tuple[str, str], InternalError] = {}
        # For each task and place: the time of the last log line, and the number of errors that had occurred by then.
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    @property
    def count(self) -> int:
        """Number of all errors since the process started."""
        return sum(found.count for found in self._found.values())

    def all(self) -> list[InternalError]:
        """All recorded errors, with one entry for each task and place. The entry with the highest count comes first."""
        return sorted(self._found.values(), key=lambda found: -found.count)

    def add(self, task: str, error: BaseException) -> None:
        """Count ``error``, which occurred in ``task``. Log the traceback, at most once a minute for each place."""
        key = (task, _place(error))
        if key not in self._found and len(self._found) >= MAX_PLACES:
            key = ("other", "other places")
        former = self._found.get(key)
        count = former.count + 1 if former else 1
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        self._found[key] = InternalError(*key, text, count)
        now = self._clock()
        when, before = self._logged.get(key, (-QUIET, 0))
        if now - when < QUIET and former is not None:
            return
        self._logged[key] = (now, count)
        hidden = count - before - 1
        more = f" ({hidden} more since the last such line)" if hidden else ""
        trace = (type(error), error, error.__traceback__)
        _log.error("internal error in %s at %s: %s%s", *key, text, more, exc_info=trace)

    def clear(self) -> list[InternalError]:
        """Remove all errors from the record and return them. Tests use this method."""
        found = self.all()
        self._found.clear()
        self._logged.clear()
        return found


#: The record of all internal errors in this process.
RECORD = Record()


def guarded(task: str, callback: F) -> F:
    """Wrap ``callback`` so that an exception is not raised but recorded as an internal error in ``task``."""

    @functools.wraps(callback)
    def call(*args: Any) -> Any:
        try:
            return callback(*args)
        except Exception as error:
            RECORD.add(task, error)

    return cast(F, call)


def watch(task: asyncio.Future[Any], name: str, *foreseen: type[Exception]) -> None:
    """Record the exception with which ``task`` ends, if any, unless its type is in ``foreseen``."""

    def ended(done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None and not isinstance(error, foreseen):
            RECORD.add(name, error)

    task.add_done_callback(ended)


def is_own(error: BaseException) -> bool:
    """Whether the traceback of ``error`` contains a line of this package."""
    return bool(_own(traceback.extract_tb(error.__traceback__)))


def without_frames(error: BaseException | None) -> None:
    """Remove the traceback of ``error``, and the tracebacks of the exceptions in its cause or context chain.

    The frames in a traceback and the error form a reference cycle. The cycle keeps all objects in the frames alive
    until the garbage collector runs, and the collector seldom runs.
    """
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _own(frames: traceback.StackSummary) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if os.path.abspath(frame.filename).startswith(_PACKAGE + os.sep)]


def _place(error: BaseException) -> str:
    """The innermost line of this package in a traceback of ``error``, such as ``core/engine/drive.py:12 in f``."""
    frames = traceback.extract_tb(error.__traceback__)
    own = _own(frames)
    if not own and not frames:
        return "unknown place"
    frame = own[-1] if own else frames[-1]
    name = os.path.relpath(frame.filename, _PACKAGE) if own else os.path.basename(frame.filename)
    return f"{name}:{frame.lineno} in {frame.name}"
