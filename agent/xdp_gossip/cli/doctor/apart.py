# SPDX-License-Identifier: MIT
"""Runs work in a process of its own, so that a disk or a program that hangs does not hang the caller.

A thread would not do: one that waits for a dead disk keeps its process from ending, whatever signal that gets.
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
    """The work was not done in its time; the text says in which."""


class Broken(Exception):
    """The work ended with an exception, or its process did; the text says which, and where."""


def each(work: Callable[[], Iterable[T]], seconds: float) -> Iterator[T]:
    """The items of ``work()``, made in another process. Items have to be picklable.

    Raises :class:`TookTooLong` and :class:`Broken` behind the items that were made until then. What cannot be ended,
    as it waits for a disk, is left behind and ends when the disk answers.
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
            os.killpg(child, signal.SIGKILL)  # with what it has started
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)  # it may not have come to its group
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
    """All that comes until the other end closes, and whether it did before the deadline."""
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
    """Take the end of a process that was killed; one that cannot die yet is not waited for."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            if not os.waitpid(child, os.WNOHANG)[0]:
                time.sleep(0.01)
                continue
        return


def _work(work: Callable[[], Iterable[object]], writing: int) -> NoReturn:
    """Body of the child. Its standard streams are /dev/null: a hanging child must not keep the caller's pipes open."""
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
