# SPDX-License-Identifier: MIT
"""The member views of running agents, recorded from their event streams, and figures computed from these records.

A member *removes* another member when its view no longer counts the other member as present. In the view of this
project's agent, ``alive`` and ``suspect`` are present, and every other state is not. In the view of Serf, a member is
present until it is reported as failed, left or reaped.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

#: Returns the changes in a piece of an event stream: pairs of the number of a member and whether it is present now.
Parse = Callable[[bytes], Iterable[tuple[int, bool]]]
#: Does the same for one line of a stream.
LineParser = Callable[[bytes], Iterator[tuple[int, bool]]]
#: Nice value of the thread that reads the streams, so that busy processes do not delay its time stamps.
_NICE = -10
_PIECE = 1 << 16


class Records(Protocol):
    """What a :class:`Watcher` writes its findings to."""

    problems: dict[int, str]

    def record(self, when: float, observer: int, subject: int, present: bool) -> None:
        """Record a finding in the stream of ``observer`` at the time ``when`` (CLOCK_MONOTONIC, s)."""


@dataclass(frozen=True)
class Change:
    """At the time ``when`` (CLOCK_MONOTONIC, s), member ``observer`` began or ended to count ``subject`` as present."""

    when: float
    observer: int
    subject: int
    present: bool


@dataclass
class Views:
    """The views of all members of one system.

    ``problems``: why the record of a member's view is incomplete, such as a stream that ended early.
    """

    changes: list[Change] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    _present: dict[int, set[int]] = field(default_factory=dict)

    def record(self, when: float, observer: int, subject: int, present: bool) -> None:
        """Record a change, unless it changes nothing, or is about the observer itself."""
        seen = self._present.setdefault(observer, set())
        if subject == observer or (subject in seen) == present:
            return
        (seen.add if present else seen.discard)(subject)
        self.changes.append(Change(when, observer, subject, present))

    def present(self, observer: int) -> set[int]:
        """The other members that ``observer`` counts as present."""
        return set(self._present.get(observer, ()))

    def forget(self) -> None:
        """Forget everything, before the members are started again."""
        self.changes.clear()
        self.problems.clear()
        self._present.clear()


@dataclass(frozen=True)
class Removal:
    """How one fault changed the views of the healthy members of one system.

    ``first``, ``last``: seconds from the start of the fault until the first and until the last healthy member had
    removed all faulty members; None if no healthy member, or not every healthy member, removed them all.
    ``removed_in``, ``views``: number of views of a faulty member by a healthy member in which the faulty member was
    removed, and the number of all such views. ``healthy_removed``: number of healthy members that at least one other
    healthy member removed. ``healthy_views``: the number of views in which this happened. ``flaps``: number of times
    that a member was removed, returned, and was removed again in the view of a healthy member. ``most_flaps``: the
    greatest number of flaps in one view.
    """

    first: float | None
    last: float | None
    removed_in: int
    views: int
    healthy_removed: int
    healthy_views: int
    flaps: int
    most_flaps: int


def removal(changes: Iterable[Change], hosts: int, faulty: Collection[int], since: float) -> Removal:
    """Compute the figures from the changes after the time ``since``, at which every member counted all as present.

    ``hosts``: the number of all members, which are numbered from 0. ``faulty``: the numbers of the faulty members.
    The views of faulty members do not count.
    """
    healthy = [number for number in range(hosts) if number not in faulty]
    removed: Counter[tuple[int, int]] = Counter()
    when: dict[tuple[int, int], float] = {}
    for change in changes:
        if change.when >= since and not change.present and change.observer not in faulty:
            view = (change.observer, change.subject)
            removed[view] += 1
            when.setdefault(view, change.when - since)
    complete = [
        max(when[observer, subject] for subject in faulty)
        for observer in healthy
        if faulty and all((observer, subject) in when for subject in faulty)
    ]
    wrong = [view for view in removed if view[1] not in faulty]
    flaps = [times - 1 for times in removed.values()]
    return Removal(
        first=min(complete, default=None),
        last=max(complete) if complete and len(complete) == len(healthy) else None,
        removed_in=sum(1 for view in removed if view[1] in faulty),
        views=len(healthy) * len(faulty),
        healthy_removed=len({subject for _, subject in wrong}),
        healthy_views=len(wrong),
        flaps=sum(flaps),
        most_flaps=max(flaps, default=0),
    )


class Watcher:
    """A thread that reads event streams, and records the time and content of each change."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="bench views", daemon=True)
        self._thread.start()

    def add(self, descriptor: int, views: Records, observer: int, parse: Parse) -> None:
        """Read ``descriptor`` until it ends, and record in ``views`` what ``parse`` finds.

        The watcher reads a duplicate of ``descriptor``, which the caller may close.
        """
        own = os.dup(descriptor)
        os.set_blocking(own, False)
        with self._lock:
            self._selector.register(own, selectors.EVENT_READ, (views, observer, parse))

    def clear(self) -> None:
        """Stop reading all streams."""
        with self._lock:
            for key in list(self._selector.get_map().values()):
                self._drop(key.fd)

    def close(self) -> None:
        """Stop reading all streams, and end the thread."""
        self._over.set()
        self._thread.join()
        self.clear()
        self._selector.close()

    def _drop(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # without the privilege, the thread keeps the usual priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._over.is_set():
            ready = self._selector.select(0.1)
            now = time.monotonic()
            with self._lock:
                for key, _ in ready:
                    if key.fd in self._selector.get_map():  # the main thread may have dropped it
                        self._take(key, now)

    def _take(self, key: selectors.SelectorKey, now: float) -> None:
        views, observer, parse = key.data
        try:
            piece = os.read(key.fd, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        try:
            for subject, present in parse(piece):
                views.record(now, observer, subject, present)
        except ValueError as error:
            views.problems[observer] = str(error)
        if not piece:
            views.problems.setdefault(observer, "the event stream ended")
            self._drop(key.fd)


class Lines:
    """Splits the pieces of a stream into lines, and passes each complete line to ``parse``."""

    def __init__(self, parse: LineParser) -> None:
        self._parse = parse
        self._rest = b""

    def __call__(self, piece: bytes) -> Iterator[tuple[int, bool]]:
        """Yield what ``parse`` yields for each line that ``piece`` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._parse(line)


def incomplete(views: Views, hosts: Sequence[int]) -> str | None:
    """Say which of ``hosts`` does not count all the others as present; None if each of them does."""
    everybody = set(hosts)
    for observer in hosts:
        if missing := everybody - {observer} - views.present(observer):
            return (
                f"host{observer} does not count {', '.join(f'host{number}' for number in sorted(missing))} as present"
            )
    return None
