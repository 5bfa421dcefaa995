# SPDX-License-Identifier: MIT
"""Sends the newest documents of a leaving node to other members, which cannot fetch these documents later."""

from __future__ import annotations

from ..documents.table import DocumentTable
from ..members.membership import Membership
from ..outbox import Outbox
from ..types import Document, Now
from .supply import Supply

#: Number of members to which documents are sent, maximum number of documents, and maximum bytes of their values
#: together. The newest documents come first.
_HEIRS = 3
_DOCUMENTS = 32
_BYTES = 64 * 1024


def hand_over(table: DocumentTable, membership: Membership, supply: Supply, out: Outbox, now: Now) -> None:
    """Push the newest documents of this node to some members whose documents digest differs from this node's digest.

    The function does not push large documents, which travel in chunks. Other members get large documents when this node
    comes back.
    """
    lacking = [peer.address for peer in membership if peer.present and peer.sync.documents_digest != table.digest]
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
