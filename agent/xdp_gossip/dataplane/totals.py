# SPDX-License-Identifier: MIT
"""Reads the programs' counters, summed over the processors, such that the numbers of requested and of finished copies
match.
"""

from __future__ import annotations

import struct
from typing import Literal

from . import headers
from .health import COPY_ENDS
from .libbpf import Map, processors

#: Counters of copies of other members' rumors: first the requested copies, then their outcomes (health.py).
BALANCE = ("copy_due", *COPY_ENDS, "copy_lost")
#: Maximum attempts to read consistent counters of ``BALANCE``.
_READINGS = 8
_ENDIAN: Literal["little", "big"] = "little" if struct.pack("=H", 1)[0] else "big"


class Totals:
    """The counters by name. ``table`` is the pinned map, with one 64-bit number per counter and processor."""

    def __init__(self, table: Map) -> None:
        self._table = table
        self._names = list(headers.counters())
        self._slots = 8 * processors()
        self._missing = 0  # number of requested copies without an outcome at the last reading

    def all(self) -> dict[str, int]:
        """All counters, summed over the processors. Raises ``MapError``.

        The counters of :data:`BALANCE` are read again until they are consistent, that is, until no rumor is relayed
        during a reading. If a rumor is relayed during the reading, the totals may contain the rumor's copies but not
        the request for these copies, and copies would seem to be missing in the next cycle. If the kernel
        has not finished the copies yet, which may take long on a virtual machine, copies would seem to be missing in
        this cycle. The number of readings is limited: if rumors arrive without a pause, the error is small, because the
        copies of one rumor are few compared with the total.
        """
        found = {name: self._sum(index) for index, name in enumerate(self._names)}
        for _ in range(_READINGS):
            for name in BALANCE:
                found[name] = self.one(name)
            missing = found["copy_due"] - sum(found[name] for name in COPY_ENDS) + found["copy_lost"]
            if self.one("copy_due") == found["copy_due"] and missing <= self._missing:
                break
        self._missing = missing
        return found

    def one(self, name: str) -> int:
        """One counter, summed over the processors. Raises ``MapError``, and ``ValueError`` for an unknown name."""
        return self._sum(self._names.index(name))

    def _sum(self, index: int) -> int:
        value = self._table.lookup(index.to_bytes(4, _ENDIAN), size=self._slots)
        return sum(struct.unpack(f"={self._slots // 8}Q", value)) if value else 0
