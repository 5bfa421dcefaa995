# SPDX-License-Identifier: MIT
"""What counts as holding a document, or as having forgotten it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from xdp_gossip.core.events import QueryAnswered
from xdp_gossip.core.messages import Answer, Query
from xdp_gossip.core.queries import Queries
from xdp_gossip.core.types import Address, Document, Now, Version
from xdp_gossip.node.convergence import Wanted

HERE, THERE = Address("198.18.0.11", 8000), Address("198.18.0.12", 8000)
OLD, NEW = (str(Version(hlc, HERE)) for hlc in (0x9FFF, 0xA000))
A, B = ("sha256:" + letter * 64 for letter in "ab")
NOTHING = (None, None)


@pytest.mark.parametrize(
    "wanted, held, met",
    [
        (Wanted("k", NEW, None), (NEW, A), True),
        (Wanted("k", NEW, None), (OLD, A), False),
        (Wanted("k", NEW, None), NOTHING, False),
        (Wanted("k", NEW, None), (NEW, None), True),  # a tombstone is a version as any
        (Wanted("k", None, A), (OLD, A), True),
        (Wanted("k", None, A), (NEW, B), False),
        (Wanted("k", None, A), (NEW, None), False),
        (Wanted("k", None, None), (NEW, None), False),
        (Wanted("k", NEW, A), (NEW, B), False),
        (Wanted("k", None, None, True), NOTHING, True),
        (Wanted("k", None, None, True), (OLD, None), True),
        (Wanted("k", None, None, True), (OLD, A), False),
        (Wanted("k", OLD, None, True), NOTHING, False),
        (Wanted("k", OLD, None, True), (OLD, None), True),
        (Wanted("k", OLD, None, True), (NEW, None), True),
        (Wanted("k", NEW, None, True), (OLD, None), False),
        (Wanted("k", OLD, None, True), (NEW, A), False),  # published again since
    ],
)
def test_who_meets_it(wanted: Wanted, held: tuple[str | None, str | None], met: bool) -> None:
    assert wanted.met_by(*held) is met
    if not met and wanted.version != held[0]:
        assert wanted.missed_by(*held)


class Out:
    """What an engine would send and tell."""

    def __init__(self) -> None:
        self.local = SimpleNamespace(unstored=frozenset)
        self.rng = random.Random(1)
        self.sent: list[tuple[object, Address]] = []
        self.events: list[object] = []

    def send(self, message: object, to: Address, now: Now) -> None:
        self.sent.append((message, to))

    def emit(self, event: object) -> None:
        self.events.append(event)

    def count(self, name: str) -> None:
        raise AssertionError(name)


class Holdings:
    """A member's documents."""

    def __init__(self, *documents: Document) -> None:
        self.table = {document.key: document for document in documents}


def packet(origin: Address, now: Now) -> Any:
    """What a handler is told of the packet that carried a message."""
    return SimpleNamespace(origin=origin, now=now)


@pytest.mark.parametrize(
    "documents, told",
    [
        ([], NOTHING),
        ([Document("k", Version(0xA000, HERE), b"x")], (NEW, Document("k", Version(1, HERE), b"x").digest)),
        ([Document("k", Version(0xA000, HERE), deleted=True)], (NEW, None)),
        # An empty document is no deletion.
        ([Document("k", Version(0xA000, HERE))], (NEW, Document("k", Version(1, HERE)).digest)),
    ],
)
def test_a_question_and_its_answer(documents: list[Document], told: tuple[str | None, str | None]) -> None:
    now = Now(1.0, 1.0)
    asking, answering = Out(), Out()
    asker = Queries(Holdings(), asking)  # type: ignore[arg-type]
    asker.ask("k", [THERE], now)
    question = asking.sent[0][0]
    assert isinstance(question, Query)
    Queries(Holdings(*documents), answering).on_query(question, packet(HERE, now))  # type: ignore[arg-type]
    answer = answering.sent[0][0]
    assert isinstance(answer, Answer)
    asker.on_answer(answer, packet(THERE, now))
    assert asking.events == [QueryAnswered(question.nonce, THERE, *told)]
