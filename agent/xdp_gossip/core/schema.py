# SPDX-License-Identifier: MIT
"""Building blocks for message bodies.

Each building block converts a value of one type to plain values and back. When a building block converts plain values
back, it checks each of them. Plain values are the values that msgpack can encode: integers, booleans, texts, bytes,
lists and None. The module :mod:`.messages` defines the fields of every message and their order; ``wire/bodies.py``
encodes the list of fields as bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, Generic, NamedTuple, TypeVar

from .settings import KEY_STATES
from .types import Address, EdgeState, State, Version, check_key

T = TypeVar("T")


class Field(NamedTuple):
    """Packs and unpacks values of one type.

    ``unpack`` checks the value completely, and raises ``ValueError`` if it is wrong.
    """

    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


class Struct(Generic[T]):
    """Packs an instance of the dataclass ``cls`` as an array of its fields.

    ``later`` names the fields that were added after the first release. The method :meth:`pack` omits ``later`` fields
    at the end of the array while they have their default, so that a member with an older release can read the array.
    """

    def __init__(self, cls: type[T], later: Sequence[str] = (), **fields: Field) -> None:
        self.cls = cls
        self._fields = fields
        self._least = len(fields) - len(later)
        self._defaults = [_default_of(cls, name) for name in list(fields)[self._least :]]

    def pack(self, value: T) -> list[Any]:
        """Pack ``value``, an instance of the dataclass, into an array."""
        values = [getattr(value, name) for name in self._fields]
        while len(values) > self._least and values[-1] == self._defaults[len(values) - self._least - 1]:
            values.pop()
        return [field.pack(item) for field, item in zip(self._fields.values(), values)]

    def unpack(self, raw: Any) -> T:
        """Build an instance of the dataclass from an array. Raises ``ValueError``."""
        # Ignore additional items at the end of the array: they are fields of a later release.
        if not isinstance(raw, (list, tuple)) or len(raw) < self._least:
            raise ValueError(f"{self.cls.__name__}: expected {len(self._fields)} fields")
        pairs = zip(self._fields.items(), raw)
        return self.cls(**{name: field.unpack(item) for (name, field), item in pairs})

    @property
    def field(self) -> Field:
        """A :class:`Field` for this struct, so that another struct can contain it."""
        return Field(self.pack, self.unpack)


def _default_of(cls: type[Any], name: str) -> Any:
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)


def _same(value: Any) -> Any:
    return value


def uint(bits: int) -> Field:
    """A field for an unsigned integer of ``bits`` bits."""
    limit = 1 << bits

    def unpack(raw: Any) -> int:
        if type(raw) is not int or not 0 <= raw < limit:
            raise ValueError(f"expected an integer of {bits} bits")
        return raw

    return Field(_same, unpack)


def raw_bytes(limit: int, exact: bool = False) -> Field:
    """A field for at most ``limit`` bytes. If ``exact`` is set, the field is for exactly ``limit`` bytes."""

    def unpack(raw: Any) -> bytes:
        if not isinstance(raw, bytes) or len(raw) > limit or (exact and len(raw) != limit):
            raise ValueError(f"expected {'' if exact else 'at most '}{limit} bytes")
        return raw

    return Field(_same, unpack)


def text(limit: int) -> Field:
    """A field for text of at most ``limit`` bytes of UTF-8."""

    def unpack(raw: Any) -> str:
        if not isinstance(raw, str) or len(raw.encode()) > limit:
            raise ValueError(f"expected text of at most {limit} bytes")
        return raw

    return Field(_same, unpack)


def _boolean(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError("expected a boolean")
    return raw


def many(item: Field, limit: int = 20_000) -> Field:
    """A field for a tuple of at most ``limit`` items, each packed by ``item``."""

    def unpack(raw: Any) -> tuple[Any, ...]:
        if not isinstance(raw, (list, tuple)) or len(raw) > limit:
            raise ValueError(f"expected a list of at most {limit}")
        return tuple(item.unpack(element) for element in raw)

    return Field(lambda value: [item.pack(element) for element in value], unpack)


def pair(first: Field, second: Field) -> Field:
    """A field for a tuple of two items. :attr:`Field.unpack` ignores additional items of a later release."""

    def unpack(raw: Any) -> tuple[Any, Any]:
        if not isinstance(raw, (list, tuple)) or len(raw) < 2:
            raise ValueError("expected a pair")
        return (first.unpack(raw[0]), second.unpack(raw[1]))

    return Field(lambda value: [first.pack(value[0]), second.pack(value[1])], unpack)


def optional(item: Field) -> Field:
    """A field for None or for a value of the field ``item``."""
    return Field(
        lambda value: None if value is None else item.pack(value), lambda raw: None if raw is None else item.unpack(raw)
    )


def _pack_address(value: Address) -> bytes:
    return value.packed + value.port.to_bytes(2, "big")


def _unpack_address(raw: Any) -> Address:
    if not isinstance(raw, bytes) or len(raw) != 18:
        raise ValueError("expected an address of 18 bytes")
    return Address.unpack(raw[:16], int.from_bytes(raw[16:], "big"))


def _unpack_version(raw: Any) -> Version:
    if not isinstance(raw, bytes) or len(raw) != 26:
        raise ValueError("expected a version of 26 bytes")
    return Version(int.from_bytes(raw[:8], "big"), _unpack_address(raw[8:]))


def _unpack_key(raw: Any) -> str:
    return check_key(raw)


_STATES = list(State)


def _unpack_state(raw: Any) -> State:
    index: int = uint(8).unpack(raw)
    if index >= len(_STATES):
        raise ValueError(f"state {index}: expected one below {len(_STATES)}")
    return _STATES[index]


def _unpack_key_state(raw: Any) -> str:
    index: int = uint(8).unpack(raw)
    if index >= len(KEY_STATES):
        raise ValueError(f"state of a key {index}: expected one below {len(KEY_STATES)}")
    return KEY_STATES[index]


U7, U8, U32, U64 = uint(7), uint(8), uint(32), uint(64)
BOOLEAN = Field(_same, _boolean)
ADDRESS = Field(_pack_address, _unpack_address)
VERSION = Field(lambda value: value.hlc.to_bytes(8, "big") + _pack_address(value.origin), _unpack_version)
KEY = Field(_same, _unpack_key)
HASH = raw_bytes(32, exact=True)
STATE = Field(_STATES.index, _unpack_state)
KEY_STATE = Field(KEY_STATES.index, _unpack_key_state)
EDGE_STATE = Field(int, lambda raw: EdgeState(uint(8).unpack(raw)))
