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
    """Yield messages that each fit one datagram: first whole documents, then announcements of larger documents."""
    fits = [codec.size_of(Documents((document,))) <= LONG for document in documents]
    small = [document for document, fit in zip(documents, fits) if fit]
    large = [entry_of(document) for document, fit in zip(documents, fits) if not fit]
    yield from _grouped(small, Documents, codec)
    yield from _grouped(large, Announce, codec)


def _grouped(items: Sequence[T], message: Callable[[tuple[T, ...]], Message], codec: Codec) -> Iterator[Message]:
    """Yield messages that together carry all ``items`` in order.

    Each message has as many items as fit into one datagram.
    """
    group: list[T] = []
    for item in items:
        if group and codec.size_of(message((*group, item))) > LONG:
            yield message(tuple(group))
            group = []
        group.append(item)
    if group:
        yield message(tuple(group))
