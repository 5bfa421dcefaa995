# SPDX-License-Identifier: MIT
"""Documents that wait for the disk: nothing that holds is given up, and what is given up does not come back."""

from __future__ import annotations

import random

import pytest

from xdp_gossip.core.events import DocumentChanged, TombstonesCollected
from xdp_gossip.core.types import Address, Document, Version
from xdp_gossip.store import unsaved
from xdp_gossip.store.sqlite import MemoryStore, persist
from xdp_gossip.store.unsaved import Unsaved

ME = Address.of("198.18.0.1", 8000)


def version(key: str, hlc: int, size: int = 0, deleted: bool = False) -> Document:
    return Document(key, Version(hlc, ME), bytes(size), deleted=deleted)


def queue() -> tuple[Unsaved, dict[str, int]]:
    counters = {"versions_given_up": 0}
    return Unsaved(counters), counters


def write(waiting: Unsaved, store: MemoryStore) -> None:
    waiting.take().write(store)
    waiting.done()


def test_the_oldest_versions_that_others_followed_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsaved, "_MOST", 3 * 2024)
    waiting, counters = queue()
    held = None
    for hlc in range(1, 10):
        document = version("a", hlc, 1000)
        waiting.add(DocumentChanged(document, held, False))
        held = document
    waiting.add(DocumentChanged(version("b", 1, 50_000), None, False))
    assert counters["versions_given_up"] == 5
    assert waiting.keys == {"a": 4, "b": 1}
    store = MemoryStore()
    write(waiting, store)
    assert [entry.version.hlc for entry in store.history("a")] == [9, 8, 7, 6]
    assert store.history("b") == [version("b", 1, 50_000)]
    assert (waiting.written, waiting.added, bool(waiting), waiting.keys) == (10, 10, False, {})


def test_what_was_put_back_is_first_in_line_and_has_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsaved, "_MOST", 3 * 2024)
    waiting, counters = queue()
    for hlc in range(1, 5):
        waiting.add(DocumentChanged(version("a", hlc, 1000), None, False))
    waiting.take()
    for hlc in range(5, 9):
        waiting.add(DocumentChanged(version("a", hlc, 1000), None, False))
    assert waiting and counters["versions_given_up"] == 0
    waiting.put_back()
    assert counters["versions_given_up"] == 4
    store = MemoryStore()
    write(waiting, store)
    assert [entry.version.hlc for entry in store.history("a")] == [8, 7, 6, 5]
    assert not waiting


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_given_up_the_same_holds_after_a_restart(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tombstones of a wrong clock give way to lower versions; a disk that fails now and then; a collection."""
    monkeypatch.setattr(unsaved, "_MOST", 2500)
    rng = random.Random(seed)
    waiting, counters = queue()
    whole, part = MemoryStore(), MemoryStore()
    held: dict[str, Document] = {}
    taken = False
    for number in range(1, 200):
        key = rng.choice("abc")
        former = held.get(key)
        lower = former is not None and former.deleted and former.version.hlc % 10 == 0 and rng.random() < 0.5
        hlc = 10 * number
        if lower and former is not None:
            hlc = former.version.hlc - 5
        elif former is not None and former.version.hlc % 10 in (5, 6) and rng.random() < 0.5:
            hlc = former.version.hlc + 1  # and below that tombstone still
        held[key] = version(key, hlc, 0 if rng.random() < 0.3 else 500, deleted=not lower and rng.random() < 0.5)
        changes = [DocumentChanged(held[key], former, False, lower and rng.random() < 0.5)]
        if held[key].deleted and rng.random() < 0.2:
            changes.append(TombstonesCollected((held[key],)))
        for change in changes:
            waiting.add(change)
            persist(whole, [change])
        if rng.random() < 0.1:
            taken = taken or bool(waiting.take())
        elif taken and rng.random() < 0.2:
            waiting.put_back()
            taken = False
        elif not taken and rng.random() < 0.05:
            write(waiting, part)
            assert part.load().documents == whole.load().documents == [held[key] for key in sorted(held)]
    assert counters["versions_given_up"] > 20
