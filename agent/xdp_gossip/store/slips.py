# SPDX-License-Identifier: MIT
"""Records which rows the next start must delete from the state file. Recording a row works even on a full disk.

SQLite needs new blocks for the journal of each transaction. On a full disk even a transaction that only deletes rows
fails. Overwriting an existing file needs no new blocks on file systems that write in place. Therefore this module
writes slips to a file of fixed size. A slip is a digest of a row's key and rank. A partly written slip, or a slip of a
row that does not exist, matches no row.
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
    """The slips in an open file. The constructor extends the file to its full size."""

    def __init__(self, descriptor: int) -> None:
        """Read the slips of the file ``descriptor``. Raises ``OSError`` if the disk has no room for the file."""
        self._descriptor = descriptor
        found = os.pread(descriptor, _ROOM, 0)
        if len(found) < _ROOM:
            found = found.ljust(_ROOM, b"\0")
            os.pwrite(descriptor, found, 0)
            os.fsync(descriptor)
        slips = (found[at : at + _BYTES] for at in range(0, _ROOM, _BYTES))
        self._slips = [slip for slip in slips if slip != _NONE]

    def __bool__(self) -> bool:
        """Whether the file contains any slips."""
        return bool(self._slips)

    def names(self, name: Name) -> bool:
        """Whether the file contains a slip for the row ``name``."""
        return _slip(name) in self._slips

    def add(self, names: Iterable[Name]) -> None:
        """Add slips for the rows ``names``, and sync the file. Raises ``OSError``, also if there are too many slips."""
        self._write(list(dict.fromkeys([*self._slips, *(_slip(name) for name in names)])))

    def discard(self, names: Iterable[Name]) -> None:
        """Remove the slips of deleted rows.

        Raises ``OSError`` if the slips cannot be removed; slips of deleted rows are harmless.
        """
        gone = {_slip(name) for name in names}
        if not gone.isdisjoint(self._slips):
            self._write([slip for slip in self._slips if slip not in gone])

    def clear(self) -> None:
        """Remove all slips. Raises ``OSError`` if the slips cannot be removed."""
        self._write([])

    def _write(self, slips: list[bytes]) -> None:
        data = b"".join(slips)
        if len(data) > _ROOM:
            raise OSError(f"expected at most {_ROOM // _BYTES} slips, got {len(slips)}")
        os.pwrite(self._descriptor, data.ljust(_ROOM, b"\0"), 0)
        os.fdatasync(self._descriptor)
        self._slips = slips
