# SPDX-License-Identifier: MIT
"""Registers the message classes for the encoder, the decoder and the outbox.

The decorator :func:`message` registers a message class at its definition. The only other list of message classes is the
dispatcher's table of handlers (``dispatcher.py``).
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
    """The wire format of one message class.

    ``tag``: number of the class, which is the first item of each message body. ``kinds``: packet types that may carry
    the message. ``schema``: the format of the message's fields on the wire.
    """

    tag: int
    kinds: frozenset[PacketType]
    schema: Struct[Any]

    @property
    def direct(self) -> PacketType | None:
        """The packet type that carries the message to a single node; None if the message travels only as a rumor."""
        return next(iter(self.kinds - RUMORS), None)


#: The messages registered so far, by tag. Other modules use the complete tables ``BY_CLASS`` and ``BY_TAG`` of
#: ``messages.py``.
registered: dict[int, Registration] = {}


def message(
    tag: int, /, *kinds: PacketType, later: Sequence[str] = (), **fields: Field
) -> Callable[[type[M]], type[M]]:
    """Register a dataclass as a message.

    ``tag``: the permanent number of the message; never change or reuse a tag. ``kinds``: the packet types that may
    carry the message. At most one of ``kinds`` may be a type whose packets go to a single node. ``fields``: all fields
    of the dataclass in the order of their definition, which is also the order on the wire. ``later``: see
    :class:`.schema.Struct`. Raises ``TypeError`` if the fields are not those of the dataclass, the tag is in use, or
    ``kinds`` is wrong.
    """

    def register(cls: type[M]) -> type[M]:
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if list(fields) != names:
            raise TypeError(f"{cls.__name__}: fields {list(fields)} are registered, expected {names}")
        if tag in registered:
            owner = registered[tag].schema.cls.__name__
            raise TypeError(f"{cls.__name__}: tag {tag} belongs to {owner}, expected an unused tag")
        if not kinds or len(set(kinds) - RUMORS) > 1:
            raise TypeError(f"{cls.__name__}: packet types {kinds}, expected one or more, at most one of them direct")
        registered[tag] = Registration(tag, frozenset(kinds), Struct(cls, later, **fields))
        return cls

    return register
