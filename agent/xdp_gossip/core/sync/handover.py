# SPDX-License-Identifier: MIT
"""Hands over what a leaving node announced a moment ago, because it cannot be fetched from that node any more."""

from __future__ import annotations

from ..documents.table import DocumentTable
from ..members.membership import Membership
from ..outbox import Outbox
from ..types import Document, Now
from .supply import Supply

#: Members that get the documents, and the most documents and bytes of values that are handed over, newest first.
_HEIRS = 3
_DOCUMENTS = 32
_BYTES = 64 * 1024


def hand_over(table: DocumentTable, membership: Membership, supply: Supply, out: Outbox, now: Now) -> None:
    """Push the newest documents of this node to some members that advertise another state than it holds.

    Large documents, which travel in chunks, are left out. Other members get them when this node is back.
    """
    lacking = [peer.address for peer in membership if peer.present and peer.sync.state_digest != table.digest]
    if not lacking:
        return
    ours = [d for d in table if d.version.origin == out.local.address and not supply.is_large(d)]
    ours.sort(key=lambda document: document.version, reverse=True)
    given: list[Document] = []
    size = 0
    for document in ours[:_DOCUMENTS]:
        size += document.size
        if size > _BYTES:
            break
        given.append(document)
    for to in out.rng.sample(lacking, min(len(lacking), _HEIRS)):
        supply.push(given, to, now)
