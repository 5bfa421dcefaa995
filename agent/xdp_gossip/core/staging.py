# SPDX-License-Identifier: MIT
"""Documents that were written together and are not all here yet: none of them is visible before the last one came."""

from __future__ import annotations

from collections.abc import Iterator

from .documents import DocumentTable
from .types import Document, Now, Version

#: Seconds for which an incomplete batch is kept since its last part came. An exchange brings it again.
LIFETIME = 60.0
#: Documents of the largest size that may wait: bounds what others can make this member hold.
LARGEST = 4


class Staging:
    """The parts of batches, by key; of two versions of one key the higher is kept.

    A batch is complete when of each of its keys its own version, or a later one that is visible, is here. A member that
    took a later version of one key never gets the earlier one any more, as nobody holds that.
    """

    def __init__(self, table: DocumentTable, max_document: int) -> None:
        self._table = table
        self._most = LARGEST * max_document
        self._parts: dict[str, Document] = {}
        self._since: dict[Version, float] = {}  # when the last part of a batch came
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._parts)

    def get(self, key: str) -> Document | None:
        """What waits under ``key``."""
        return self._parts.get(key)

    def add(self, document: Document, now: Now) -> int:
        """Keep a part; returns how many parts had to go for it."""
        self._drop(document.key)
        self._parts[document.key] = document
        self._bytes += document.size
        self._since.pop(document.version, None)
        self._since[document.version] = now.mono
        gone = 0
        while self._bytes > self._most and len(self._since) > 1:
            gone += self._forget(next(iter(self._since)))
        return gone

    def complete(self) -> Iterator[list[Document]]:
        """The parts of each batch that is complete, one batch after the other, as long as there are any.

        The caller makes them visible before it asks for the next.
        """
        while True:
            for version in list(self._since):
                parts = [part for part in self._parts.values() if part.version == version]
                if not parts or all(self._is_here(key, version) for key in parts[0].batch):
                    self._forget(version)
                    yield parts
                    break
            else:
                return

    def expire(self, now: Now) -> int:
        """Forget what was given up; returns how many parts."""
        old = [version for version, since in self._since.items() if now.mono - since > LIFETIME]
        return sum(self._forget(version) for version in old)

    def _is_here(self, key: str, version: Version) -> bool:
        part, held = self._parts.get(key), self._table.get(key)
        return (part is not None and part.version == version) or (held is not None and held.version >= version)

    def _forget(self, version: Version) -> int:
        keys = [key for key, part in self._parts.items() if part.version == version]
        for key in keys:
            self._drop(key)
        self._since.pop(version, None)
        return len(keys)

    def _drop(self, key: str) -> None:
        former = self._parts.pop(key, None)
        if former is not None:
            self._bytes -= former.size
