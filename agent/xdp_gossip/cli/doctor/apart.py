# SPDX-License-Identifier: MIT
"""Runs a function in a separate process, so that a hanging disk or program does not block the caller.

A thread would not be enough: a thread that waits for a dead disk prevents its process from ending, even by SIGKILL.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from typing import Callable, NoReturn, TypeVar

T = TypeVar("T")

_CHUNK = 1 << 20


class TookTooLong(Exception):
    """The work did not finish within its time limit; the text contains the limit."""


class Broken(Exception):
    """The work raised an exception, or its process died; the text names the exception and where it was raised."""


def each(work: Callable[[], Iterable[T]], seconds: float) -> Iterator[T]:
    """Yield the items of ``work()``, which runs in another process. The items must be picklable.

    After the items, raises :class:`TookTooLong` or :class:`Broken` if the work did not finish. A child that cannot be
    killed because it waits for a disk is left running; the child ends when the disk answers.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(work, writing)
    os.close(writing)
    try:
        raw, done = _read(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)  # the group includes the processes that the child started
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)  # the child may not have created its process group yet
        _reap(child)
    stream = io.BytesIO(raw)
    while True:
        try:
            kind, value = pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            break
        if kind == "item":
            yield value
        elif kind == "broken":
            raise Broken(value)
        else:
            return
    if not done:
        raise TookTooLong(f"no answer in {seconds:g} s")
    raise Broken("its process was ended")


def _read(reading: int, deadline: float) -> tuple[bytes, bool]:
    """Read from the pipe until the child closes it or the deadline passes.

    Returns the bytes that were read, and whether the child closed the pipe.
    """
    raw = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return bytes(raw), False
        chunk = os.read(reading, _CHUNK)
        if not chunk:
            return bytes(raw), True
        raw += chunk


def _reap(child: int) -> None:
    """Wait up to 0.2 seconds for a killed child to end; a child that is still alive then is left running."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            if not os.waitpid(child, os.WNOHANG)[0]:
                time.sleep(0.01)
                continue
        return


def _work(work: Callable[[], Iterable[object]], writing: int) -> NoReturn:
    """Run ``work`` in the child process and write its items to the pipe.

    The child's standard streams are /dev/null, because a hanging child must not keep the caller's pipes open.
    """
    try:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        with open(writing, "wb") as stream:
            try:
                for item in work():
                    stream.write(pickle.dumps(("item", item)))
                    stream.flush()
                stream.write(pickle.dumps(("done", None)))
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{os.path.basename(last.filename)}:{last.lineno} in {last.name}"
                stream.write(pickle.dumps(("broken", f"{type(error).__name__}: {error} ({place})")))
    finally:
        os._exit(0)
