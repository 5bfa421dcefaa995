# SPDX-License-Identifier: MIT
"""The interface of a store for an agent's durable state, whatever it keeps the state in."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..core.events import DocumentChanged, TombstonesCollected
from ..core.interface import Known
from ..core.members.seeds import MAX_FORMER
from ..core.types import Document
from . import rows

#: A node silent for this long is forgotten (docs/architecture.md, "Semantics").
FORGET_AFTER_S = 86400


@dataclass(frozen=True)
class Snapshot:
    """What an earlier run knew: nodes, and the current version of every document (all tombstones included)."""

    known: list[Known] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)


class Unread(NamedTuple):
    """A version that gave way to a ``successor`` of lower rank whose author had not read it."""

    document: Document
    successor: Document


class StateStore(Protocol):
    """What a node list needs of a store. :class:`Store` is durable; :class:`MemoryStore` forgets everything at exit."""

    problems: list[str]

    def next_incarnation(self, now_s: int) -> int:
        """Persist and return the incarnation of this run (``core.runs.first_after``)."""

    def save_incarnation(self, incarnation: int) -> None:
        """Persist a raised incarnation. One that is earlier than the stored one changes nothing."""

    def load(self) -> Snapshot:
        """Everything an engine starts from."""

    def save_documents(
        self, documents: Sequence[Document], withdrawn: Sequence[Document] = (), unread: Sequence[Unread] = ()
    ) -> None:
        """Persist document versions in one transaction. Versions older than the stored one go to the history only.

        ``withdrawn``: versions to forget, which were written under a wrong clock and were replaced by lower ones since.
        Such a version outranks all that follow, and would come back with the next start. A version in both lists is
        forgotten. ``unread``: such versions whose successor's author had not read them; they stay in the history.
        """

    def stage(self, documents: Sequence[Document], kept: Sequence[Document] = ()) -> None:
        """Persist versions that are not decided yet, at most one for each key, in one transaction.

        After a restart they hold like any other version. Until :meth:`settle` they take no place in the history, and no
        version leaves it for them. ``kept``: versions of an earlier call, see :meth:`settle`.
        """

    def settle(self, kept: Sequence[Document], withdrawn: Sequence[Document]) -> int:
        """Decide on staged versions in one transaction: ``kept`` ones count, ``withdrawn`` ones are forgotten.

        Returns how many withdrawn rows there were. If no row has to go, nothing is written, so this works on a full
        disk. Raises ``NotedError`` if the rows are still there but will be removed at the next start.
        """

    def collect(self, tombstones: Sequence[Document], dropped: Sequence[Document] = ()) -> None:
        """Forget the versions before ``tombstones``, and ``dropped`` with all before them, in one transaction."""

    def history(self, key: str) -> list[Document]:
        """The last versions of ``key``, newest first."""

    def save_nodes(self, known: Sequence[Known]) -> None:
        """Replace the known nodes, without those silent for a day. The first day of a run forgets no node."""

    def close(self) -> None:
        """Release the file. Idempotent."""


def persist(
    store: StateStore,
    batch: Sequence[DocumentChanged | TombstonesCollected],
    withdrawn: Mapping[tuple[object, ...], Document] | None = None,
) -> None:
    """Write events of documents to the disk, in order. Raises ``StoreError``.

    A version that is replaced by a lower one was written under a wrong clock and must not come back. If the lower one's
    author had not read it, it stays in the history, as :class:`Warned` tells the operator. ``withdrawn``: such versions
    of earlier events, by key and rank.
    """
    gone = dict(withdrawn or {})
    documents: list[DocumentChanged] = []
    for event in batch:
        if isinstance(event, DocumentChanged):
            documents.append(event)
            continue
        # What comes afterwards may have taken the place of a tombstone: not before that is where it belongs.
        _persist_documents(store, documents, gone)
        documents, gone = [], {}
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


def remembered(known: Sequence[Known], opened: float) -> list[Known]:
    """Drop nodes that were silent for a day, except the last ``MAX_FORMER``, once this run is a day old.

    Earlier, silence tells nothing: after a weekend without power every node was last heard three days ago. The run's
    age is monotonic, because setting the clock after boot would otherwise age all nodes at once.
    """
    if time.monotonic() - opened < FORGET_AFTER_S:
        return list(known)
    oldest = time.time_ns() - FORGET_AFTER_S * 10**9
    silent = [entry for entry in known if entry.last_heard_ns < oldest]
    silent.sort(key=lambda entry: entry.last_heard_ns)
    return [*(entry for entry in known if entry.last_heard_ns >= oldest), *silent[-MAX_FORMER:]]


def without(undecided: dict[str, bytes], settled: Iterable[Document]) -> dict[str, bytes]:
    gone = {(document.key, rows.rank_key(document)) for document in settled}
    return {key: rank for key, rank in undecided.items() if (key, rank) not in gone}
