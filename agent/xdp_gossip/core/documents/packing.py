# SPDX-License-Identifier: MIT
"""Packs documents into messages that each fit one datagram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable, TypeVar

from ..messages import Announce, Documents
from ..packets import LONG, Codec
from ..registry import Message
from ..types import Document
from .table import entry_of

T = TypeVar("T")


def packed(documents: Sequence[Document], codec: Codec) -> Iterator[Message]:
    """Yield messages of one datagram each: small documents as they are, then announcements of the larger ones."""
    small: list[Document] = []
    large: list[Document] = []
    for document in documents:
        (large if codec.size_of(Documents((document,))) > LONG else small).append(document)
    yield from _grouped(small, lambda group: Documents(group), codec)
    yield from _grouped([entry_of(document) for document in large], lambda group: Announce(group), codec)


def _grouped(items: Sequence[T], message: Callable[[tuple[T, ...]], Message], codec: Codec) -> Iterator[Message]:
    """Yield messages that carry all ``items`` in order, as many as fit in each."""
    group: list[T] = []
    for item in items:
        if group and codec.size_of(message((*group, item))) > LONG:
            yield message(tuple(group))
            group = []
        group.append(item)
    if group:
        yield message(tuple(group))
