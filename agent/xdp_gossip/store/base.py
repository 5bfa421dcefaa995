# SPDX-License-Identifier: MIT
"""The interface of a store for an agent's state, and functions that are common to all stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..core.events import DocumentChanged, DocumentWithheld, TombstonesCollected
from ..core.interface import Known
from ..core.types import Document
from . import rows


@dataclass(frozen=True)
class Snapshot:
    """The stored state of an earlier run: the known nodes, and the current version or tombstone of every document."""

    known: list[Known] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)


class Unread(NamedTuple):
    """The version ``document`` was replaced by the version ``successor``, which has a lower rank.

    The author of ``successor`` had not read ``document``. If both are the same version, the node holds the version no
    more, and no version has replaced it.
    """

    document: Document
    successor: Document


class StateStore(Protocol):
    """The interface of a store for a node list. :class:`Store` uses a file, :class:`MemoryStore` only memory."""

    problems: list[str]

    def next_incarnation(self, now_s: int) -> int:
        """Choose the incarnation of this run (``core.runs.first_after``), persist it and return it."""

    def save_incarnation(self, incarnation: int) -> None:
        """Persist a raised incarnation. An incarnation that is earlier than the stored incarnation is ignored."""

    def load(self) -> Snapshot:
        """Load the stored nodes and documents for the start of an engine."""

    def save_documents(
        self, documents: Sequence[Document], withdrawn: Sequence[Document] = (), unread: Sequence[Unread] = ()
    ) -> None:
        """Persist document versions in one transaction.

        A version older than the current version becomes part of the history only.

        ``withdrawn``: versions to delete, because they were written under a wrong clock and replaced by versions of
        lower rank. A withdrawn version that stayed on the disk would be the current version after the next start,
        because its rank is higher. A version in both ``documents`` and ``withdrawn`` is deleted. ``unread``: versions
        that were replaced by versions of lower rank, whose authors had not read the replaced versions. Unread versions
        stay in the history.
        """

    def stage(self, documents: Sequence[Document], kept: Sequence[Document] = ()) -> None:
        """Persist staged versions in one transaction, at most one version for each key.

        Staged versions may still be withdrawn.

        After a restart, staged versions count like any other version. Until :meth:`settle`, staged versions do not
        count toward the length of the history. ``kept``: versions that an earlier call staged; this call confirms them,
        like :meth:`settle`.
        """

    def settle(self, kept: Sequence[Document], withdrawn: Sequence[Document]) -> int:
        """Confirm the staged versions ``kept``, and delete the staged versions ``withdrawn``, in one transaction.

        Returns the number of deleted rows. If there is no row to delete, the method writes nothing, so it works on a
        full disk. Raises ``NotedError`` if the rows could not be deleted now but will be deleted at the next start.
        """

    def collect(self, tombstones: Sequence[Document], dropped: Sequence[Document] = ()) -> None:
        """Delete old versions of documents in one transaction.

        For each tombstone in ``tombstones``, delete all older versions of the same document. For each tombstone in
        ``dropped``, delete the tombstone and all older versions of the same document.
        """

    def history(self, key: str) -> list[Document]:
        """Return the stored versions of the document ``key``, newest first."""

    def save_nodes(self, known: Sequence[Known]) -> None:
        """Replace the stored nodes by ``known``. The engine decides which nodes stay known."""

    def close(self) -> None:
        """Close the state file, if the store has one, and release the lock of that file. Idempotent."""


def persist(
    store: StateStore,
    batch: Sequence[DocumentChanged | DocumentWithheld | TombstonesCollected],
    withdrawn: Mapping[tuple[object, ...], Document] | None = None,
) -> None:
    """Persist the documents of the events in ``batch`` in the same order. Raises ``StoreError``.

    If a version of lower rank replaces another version, the replaced version was written under a wrong clock, and is
    deleted. There is one exception: if the author of the version of lower rank had not read the replaced version, the
    replaced version stays in the history, and a :class:`Warned` event informs the operator. ``withdrawn``: (key, rank)
    -> version that must be deleted because of an earlier event.
    """
    gone = dict(withdrawn or {})
    documents: list[DocumentChanged] = []
    for event in batch:
        if isinstance(event, DocumentChanged):
            documents.append(event)
            continue
        # Persist the events that precede the collection of a tombstone first, because a later event may replace the
        # tombstone.
        _persist_documents(store, documents, gone)
        documents, gone = [], {}
        if isinstance(event, DocumentWithheld):
            store.save_documents((), (), [Unread(event.document, event.document)])
        else:
            store.collect(event.tombstones, event.dropped)
    _persist_documents(store, documents, gone)


def _persist_documents(
    store: StateStore, batch: Sequence[DocumentChanged], withdrawn: dict[tuple[object, ...], Document]
) -> None:
    kept: dict[tuple[object, ...], Document] = {}
    unread: dict[tuple[object, ...], Unread] = {}
    for event in batch:
        document, replaced = event.document, event.replaced
        kept[document.key, document.rank] = document
        withdrawn.pop((document.key, document.rank), None)
        unread.pop((document.key, document.rank), None)
        if replaced is not None and replaced.rank > document.rank:
            kept.pop((replaced.key, replaced.rank), None)
            if event.conflict:
                unread[replaced.key, replaced.rank] = Unread(replaced, document)
            else:
                withdrawn[replaced.key, replaced.rank] = replaced
    store.save_documents(list(kept.values()), list(withdrawn.values()), list(unread.values()))


def without(undecided: dict[str, bytes], settled: Iterable[Document]) -> dict[str, bytes]:
    gone = {(document.key, rows.rank_key(document)) for document in settled}
    return {key: rank for key, rank in undecided.items() if (key, rank) not in gone}
