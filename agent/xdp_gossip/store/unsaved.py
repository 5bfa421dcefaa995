# SPDX-License-Identifier: MIT
"""A queue of document changes that other nodes published and that this node has not written to the disk yet.

The queue keeps the order in which this node accepted the changes. Changes stay in the queue while writes to the disk
fail. The current version of each document needs no additional memory, because the engine also refers to it, and limits
the size of all documents. Versions before the current version are needed only for the history. The queue limits the
total size of such versions, and drops the oldest of them if this limit is exceeded.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import NamedTuple, Union

from ..core.events import DocumentChanged, DocumentWithheld, TombstonesCollected
from ..core.types import Document
from .sqlite import StateStore, persist

#: ``_MOST``: maximum bytes of queued versions that have a later version in the queue. ``_EACH``: bytes that the queue
#: adds to the size of each of these versions.
_MOST = 32 * 1024 * 1024
_EACH = 1024

Change = Union[DocumentChanged, DocumentWithheld, TombstonesCollected]


class Batch(NamedTuple):
    """``changes``: number of the change -> change.

    ``withdrawn``: versions to delete because of changes that were dropped from the queue.
    """

    changes: dict[int, Change]
    withdrawn: dict[tuple[object, ...], Document]

    def write(self, store: StateStore) -> None:
        """Write all changes to ``store``. Raises ``StoreError``."""
        persist(store, list(self.changes.values()), self.withdrawn)


class Unsaved:
    """A queue of changes with one reader, which calls :meth:`take` and then :meth:`done` or :meth:`put_back`."""

    def __init__(self, counters: dict[str, int]) -> None:
        """``counters``: the runtime's counters, of which the queue increments ``versions_given_up``."""
        self._counters = counters
        #: ``added``: number of changes added so far. ``written``: all changes up to this number are on the disk or
        #: dropped.
        self.added = 0
        self.written = 0
        #: Keys of documents with changes that are not on the disk yet, including changes that are being written.
        self.keys: Counter[str] = Counter()
        self._waiting = Batch({}, {})
        self._taken = Batch({}, {})
        # Key -> number of the last waiting change of this key.
        self._newest: dict[str, int] = {}
        # Numbers of waiting changes that are followed by a waiting change of the same key.
        self._followed: deque[int] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        """Whether there are changes that are not on the disk yet."""
        return bool(self._waiting.changes or self._waiting.withdrawn or self._taken.changes)

    def add(self, change: Change) -> None:
        """Append a change to the queue.

        If the queue exceeds its limit, drop the oldest versions that are needed only for the history.
        """
        self.added += 1
        if isinstance(change, DocumentChanged):
            self.keys[change.document.key] += 1
            if change.replaced is not None and change.replaced.rank < change.document.rank:
                # Only a replaced version of higher rank must be deleted.
                change = replace(change, replaced=None)
        self._line_up(self.added, change)

    def take(self) -> Batch:
        """Take all waiting changes out of the queue and return them. Changes added later wait for the next call."""
        self._taken, self._waiting = self._waiting, Batch({}, {})
        self._newest, self._bytes = {}, 0
        self._followed.clear()
        return self._taken

    def done(self) -> None:
        """Drop the taken changes, because they are on the disk now."""
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
        if gone is not None:  # delete this version: it may be on the disk, with a higher rank than later versions
            self._waiting.withdrawn[gone.key, gone.rank] = gone
