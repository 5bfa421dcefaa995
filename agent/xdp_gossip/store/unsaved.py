# SPDX-License-Identifier: MIT
"""Documents of others that are held but not on the disk yet, in the order in which they were accepted.

They wait here while the disk fails. The winning version of each document costs nothing, because the engine has it, too,
and limits it. Earlier versions are for the history only. Their number is limited here, and the oldest are given up.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import NamedTuple, Union

from ..core.events import DocumentChanged, TombstonesCollected
from ..core.types import Document
from .sqlite import StateStore, persist

#: Bytes of versions that another one followed, and what each of them counts beside its value.
_MOST = 32 * 1024 * 1024
_EACH = 1024

Change = Union[DocumentChanged, TombstonesCollected]


class Batch(NamedTuple):
    """Changes by number, and ``withdrawn``: versions withdrawn by earlier changes that were dropped."""

    changes: dict[int, Change]
    withdrawn: dict[tuple[object, ...], Document]

    def write(self, store: StateStore) -> None:
        """Bring all to the disk. Raises ``StoreError``."""
        persist(store, list(self.changes.values()), self.withdrawn)


class Unsaved:
    """A queue with one reader, which calls :meth:`take` and then :meth:`done` or :meth:`put_back`."""

    def __init__(self, counters: dict[str, int]) -> None:
        """``counters``: where ``versions_given_up`` is counted."""
        self._counters = counters
        #: Changes that were added, and how many of the first of them are on the disk or given up.
        self.added = 0
        self.written = 0
        #: Keys of documents that are held and not on the disk, those that are being written among them.
        self.keys: Counter[str] = Counter()
        self._waiting = Batch({}, {})
        self._taken = Batch({}, {})
        self._newest: dict[str, int] = {}  # by key, the number of the last change that waits
        self._followed: deque[int] = deque()  # numbers of those that wait, and another one of that key after them
        self._bytes = 0

    def __bool__(self) -> bool:
        """Whether anything is not on the disk."""
        return bool(self._waiting.changes or self._waiting.withdrawn or self._taken.changes)

    def add(self, change: Change) -> None:
        """Queue a change."""
        self.added += 1
        if isinstance(change, DocumentChanged):
            self.keys[change.document.key] += 1
            if change.replaced is not None and change.replaced.rank < change.document.rank:
                change = replace(change, replaced=None)  # is on the disk, or in line itself
        self._line_up(self.added, change)

    def take(self) -> Batch:
        """Take all waiting changes. Later changes wait behind them."""
        self._taken, self._waiting = self._waiting, Batch({}, {})
        self._newest, self._bytes = {}, 0
        self._followed.clear()
        return self._taken

    def done(self) -> None:
        """Note that the taken changes are on the disk."""
        taken, self._taken = self._taken, Batch({}, {})
        self.written = max(taken.changes, default=self.written)
        documents = [change.document for change in taken.changes.values() if isinstance(change, DocumentChanged)]
        self.keys.subtract(document.key for document in documents)
        self.keys = +self.keys

    def put_back(self) -> None:
        """Put the taken changes back at the head of the queue, because they are not on the disk."""
        again, since = self._taken, self._waiting
        self._taken, self._waiting = Batch({}, {}), Batch({}, {**again.withdrawn, **since.withdrawn})
        self._newest, self._bytes = {}, 0
        self._followed.clear()
        for number, change in (*again.changes.items(), *since.changes.items()):
            self._line_up(number, change)

    def _line_up(self, number: int, change: Change) -> None:
        self._waiting.changes[number] = change
        if not isinstance(change, DocumentChanged):
            return
        before = self._newest.get(change.document.key)
        self._newest[change.document.key] = number
        if before is None:
            return
        self._followed.append(before)
        self._bytes += self._weight(before)
        while self._bytes > _MOST:
            self._give_up(self._followed.popleft())

    def _weight(self, number: int) -> int:
        change = self._waiting.changes[number]
        return _EACH + (change.document.size if isinstance(change, DocumentChanged) else 0)

    def _give_up(self, number: int) -> None:
        self._bytes -= self._weight(number)
        change = self._waiting.changes.pop(number)
        assert isinstance(change, DocumentChanged)
        self._counters["versions_given_up"] += 1
        self.keys[change.document.key] -= 1
        gone = change.replaced
        if gone is not None:  # it outranks all that follow, and may be on the disk
            self._waiting.withdrawn[gone.key, gone.rank] = gone
