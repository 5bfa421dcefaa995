# SPDX-License-Identifier: MIT
"""Rumors of this member: their first targets, and documents as rumors of one datagram each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Callable, TypeVar

from ..documents.table import entry_of
from ..members.membership import Membership
from ..members.timing import Timing
from ..messages import Announce, Documents, Entry
from ..outbox import Local, Outbox
from ..packets import PacketType
from ..paths import LONG
from ..registry import Message
from ..types import Document, Now

T = TypeVar("T")


class Spreading:
    """Starts rumors: sends each to random members first."""

    def __init__(self, local: Local, membership: Membership, out: Outbox, timing: Timing) -> None:
        self._local = local
        self._membership = membership
        self._out = out
        self._timing = timing

    def rumor(self, kind: PacketType, message: Message | None, now: Now) -> None:
        """Start a rumor at random members."""
        ttl = math.ceil(math.log2(self._timing.members + 1)) + 4
        self._out.broadcast(kind, message, self._membership.pick(self._timing.copies(kind)), ttl, now)

    def documents(self, documents: Sequence[Document], now: Now) -> None:
        """Start rumors of one datagram each: as many small documents as fit, and announcements of larger ones."""
        if self._local.status != "running":
            return
        small: list[Document] = []
        large: list[Entry] = []
        for document in documents:
            if self._out.codec.size_of(Documents((document,))) > LONG:
                large.append(entry_of(document))
            else:
                small.append(document)
        for documents_message in self._packed(small, lambda group: Documents(group)):
            self.rumor(PacketType.METADATA, documents_message, now)
        for announcement in self._packed(large, lambda group: Announce(group)):
            self.rumor(PacketType.METADATA, announcement, now)

    def _packed(self, items: Sequence[T], message: Callable[[tuple[T, ...]], Message]) -> Iterator[Message]:
        """Messages that carry all ``items``, each in one datagram."""
        group: list[T] = []
        for item in items:
            if group and self._out.codec.size_of(message((*group, item))) > LONG:
                yield message(tuple(group))
                group = []
            group.append(item)
        if group:
            yield message(tuple(group))
