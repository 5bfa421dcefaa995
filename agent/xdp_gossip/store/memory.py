# SPDX-License-Identifier: MIT
"""A store in memory, whose content is lost at exit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..core.interface import Known
from ..core.runs import first_after, latest
from ..core.types import Document
from . import rows
from .base import Snapshot, Unread, without
from .statefile import HISTORY


def _standing(ranks: Iterable[bytes]) -> list[bytes]:
    """Sort ranks of versions: first the rank of the current version, then the other ranks, highest first.

    See :func:`xdp_gossip.store.tables.standing`.
    """
    ranks = list(ranks)
    holds = max((rank for rank in ranks if len(rank) == rows.RANK_BYTES), default=b"")
    return sorted(ranks, key=lambda rank: (rank == holds, rank), reverse=True)


class MemoryStore:
    """A store without a file, for a node list without a state directory. The content is lost when the program ends."""

    def __init__(self, history: int = HISTORY) -> None:
        self.problems: list[str] = []
        self._history = history
        self._incarnation = 0
        self._known: list[Known] = []
        #: key -> rank (``rows.rank_key``) -> version, newest first.
        self._versions: dict[str, dict[bytes, Document]] = {}
        self._undecided: dict[str, bytes] = {}

    def next_incarnation(self, now_s: int) -> int:
        """See :meth:`StateStore.next_incarnation`."""
        self._incarnation = first_after(self._incarnation, now_s)
        return self._incarnation

    def save_incarnation(self, incarnation: int) -> None:
        """See :meth:`StateStore.save_incarnation`."""
        self._incarnation = latest(incarnation, self._incarnation)

    def load(self) -> Snapshot:
        """See :meth:`StateStore.load`."""
        first = [next(iter(versions.items())) for _, versions in sorted(self._versions.items()) if versions]
        documents = [document for rank, document in first if len(rank) == rows.RANK_BYTES]
        return Snapshot(list(self._known), documents)

    def collect(self, tombstones: Sequence[Document], dropped: Sequence[Document] = ()) -> None:
        """See :meth:`StateStore.collect`."""
        for tombstone in (*tombstones, *dropped):
            versions, own = self._versions.pop(tombstone.key, {}), rows.rank_key(tombstone)
            kept = {rank: version for rank, version in versions.items() if rank >= own}
            if tombstone in dropped:
                kept.pop(own, None)
            if kept:
                self._versions[tombstone.key] = kept

    def save_documents(
        self, documents: Sequence[Document], withdrawn: Sequence[Document] = (), unread: Sequence[Unread] = ()
    ) -> None:
        """See :meth:`StateStore.save_documents`."""
        for document in documents:
            versions, own = self._versions.setdefault(document.key, {}), rows.rank_key(document)
            for rank in [rank for rank in versions if len(rank) > rows.RANK_BYTES and rank.endswith(own)]:
                del versions[rank]
            versions.setdefault(own, document)
        for document in withdrawn:
            self._versions.get(document.key, {}).pop(rows.rank_key(document), None)
        for document, successor in unread:
            versions = self._versions.setdefault(document.key, {})
            versions.pop(rows.rank_key(document), None)
            versions[rows.unread_key(document, successor)] = document
        self._prune([*documents, *withdrawn, *(lost.document for lost in unread)])

    def stage(self, documents: Sequence[Document], kept: Sequence[Document] = ()) -> None:
        """See :meth:`StateStore.stage`."""
        self._undecided = without(self._undecided, kept)
        for document in documents:
            self._undecided[document.key] = rows.rank_key(document)
            self._versions.setdefault(document.key, {}).setdefault(rows.rank_key(document), document)
        self._prune([*documents, *kept])

    def settle(self, kept: Sequence[Document], withdrawn: Sequence[Document]) -> int:
        """See :meth:`StateStore.settle`."""
        self._undecided = without(self._undecided, [*kept, *withdrawn])
        gone = [self._versions.get(each.key, {}).pop(rows.rank_key(each), None) for each in withdrawn]
        self._prune([*kept, *withdrawn])
        return len(gone) - gone.count(None)

    def _prune(self, documents: Sequence[Document]) -> None:
        for key in {document.key for document in documents}:
            versions, undecided = self._versions.pop(key, {}), self._undecided.get(key)
            newest = _standing(rank for rank in versions if rank != undecided)[: self._history]
            kept = _standing(rank for rank in versions if rank in newest or rank == undecided)
            if kept:
                self._versions[key] = {rank: versions[rank] for rank in kept}

    def history(self, key: str) -> list[Document]:
        """See :meth:`StateStore.history`."""
        return list(self._versions.get(key, {}).values())

    def save_nodes(self, known: Sequence[Known]) -> None:
        """See :meth:`StateStore.save_nodes`."""
        self._known = list(known)

    def close(self) -> None:
        """Do nothing, because there is no file to close."""
