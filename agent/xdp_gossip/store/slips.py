# SPDX-License-Identifier: MIT
"""Notes rows that the state file must forget where a full disk has room: in blocks that were allocated before.

A transaction needs new blocks for its journal, so a full disk refuses even one that only deletes. Overwriting the
contents of a file needs none, on file systems that write in place. A slip names a row by a digest of its key and rank:
a torn slip, or one of a row that is gone, names nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

_BYTES = 32
_ROOM = 4096
_NONE = bytes(_BYTES)

#: Key and rank of a row in table ``document``.
Name = tuple[str, bytes]


def _slip(name: Name) -> bytes:
    key, rank = name
    data = len(rank).to_bytes(2, "big") + rank + key.encode()
    return hashlib.blake2b(data, digest_size=_BYTES, person=b"xg-slip").digest()


class Slips:
    """The slips in an open file that contains nothing else. The file grows to its full size at once."""

    def __init__(self, descriptor: int) -> None:
        """Raises ``OSError`` when there is no room for them."""
        self._descriptor = descriptor
        found = os.pread(descriptor, _ROOM, 0)
        if len(found) < _ROOM:
            found = found.ljust(_ROOM, b"\0")
            os.pwrite(descriptor, found, 0)
            os.fsync(descriptor)
        slips = (found[at : at + _BYTES] for at in range(0, _ROOM, _BYTES))
        self._slips = [slip for slip in slips if slip != _NONE]

    def __bool__(self) -> bool:
        """Whether there are any slips."""
        return bool(self._slips)

    def names(self, name: Name) -> bool:
        """Whether there is a slip for this row."""
        return _slip(name) in self._slips

    def add(self, names: Iterable[Name]) -> None:
        """Note rows. The slips are durable on return. Raises ``OSError``, also if there are too many."""
        self._write(list(dict.fromkeys([*self._slips, *(_slip(name) for name in names)])))

    def discard(self, names: Iterable[Name]) -> None:
        """Remove the slips of rows that are gone. Raises ``OSError``; then the slips stay, which does no harm."""
        gone = {_slip(name) for name in names}
        if not gone.isdisjoint(self._slips):
            self._write([slip for slip in self._slips if slip not in gone])

    def clear(self) -> None:
        """Remove all slips. Raises ``OSError``, as :meth:`discard` does."""
        self._write([])

    def _write(self, slips: list[bytes]) -> None:
        data = b"".join(slips)
        if len(data) > _ROOM:
            raise OSError(f"expected at most {_ROOM // _BYTES} slips, got {len(slips)}")
        os.pwrite(self._descriptor, data.ljust(_ROOM, b"\0"), 0)
        os.fdatasync(self._descriptor)
        self._slips = slips
