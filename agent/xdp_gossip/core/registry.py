# SPDX-License-Identifier: MIT
"""Registration of messages: what the encoder, the decoder and the outbox know of a message class.

A message class is registered where it is defined, by the decorator :func:`message`. Nothing else lists messages but
the dispatcher's table of handlers (``dispatcher.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .packets import RUMORS, PacketType
from .schema import Field, Struct


class Message:
    """Base class of every message."""

    __slots__ = ()


M = TypeVar("M", bound=Message)


@dataclasses.dataclass(frozen=True)
class Registration:
    """How messages of one class travel.

    ``tag``: first item of the body. ``kinds``: packet types that may carry it. ``schema``: its fields on the wire.
    """

    tag: int
    kinds: frozenset[PacketType]
    schema: Struct[Any]

    @property
    def direct(self) -> PacketType | None:
        """Packet type that carries it to one node; None for a message that travels as a rumor only."""
        return next(iter(self.kinds - RUMORS), None)


#: The messages registered so far. ``messages.py`` exports the complete tables ``BY_CLASS`` and ``BY_TAG``: use these.
registered: dict[int, Registration] = {}


def message(
    tag: int, /, *kinds: PacketType, later: Sequence[str] = (), **fields: Field
) -> Callable[[type[M]], type[M]]:
    """Register a dataclass as a message.

    ``tag`` is the permanent number of the message: never change or reuse one. ``kinds``: the packet types that may
    carry it, of which at most one goes to a single node. ``fields``: every field of the dataclass, in the order of both
    the dataclass and the wire. ``later``: see :class:`.schema.Struct`. Raises ``TypeError`` if a registration
    contradicts itself or another one.
    """

    def register(cls: type[M]) -> type[M]:
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if list(fields) != names:
            raise TypeError(f"{cls.__name__}: fields {list(fields)} are registered, expected {names}")
        if tag in registered:
            owner = registered[tag].schema.cls.__name__
            raise TypeError(f"{cls.__name__}: tag {tag} belongs to {owner}, expected an unused one")
        if not kinds or len(set(kinds) - RUMORS) > 1:
            raise TypeError(f"{cls.__name__}: packet types {kinds}, expected one or more, at most one of them direct")
        registered[tag] = Registration(tag, frozenset(kinds), Struct(cls, later, **fields))
        return cls

    return register
