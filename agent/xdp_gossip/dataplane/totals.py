# SPDX-License-Identifier: MIT
"""Reads the programs' counters, summed over the processors, such that they balance."""

from __future__ import annotations

import struct
from typing import Literal

from . import headers
from .health import COPY_ENDS
from .libbpf import Map, processors

#: Copies of others' rumors: first what was asked for, then how they ended (health.py).
BALANCE = ("copy_due", *COPY_ENDS, "copy_lost")
#: How often those are read, at most, until they agree.
_READINGS = 8
_ENDIAN: Literal["little", "big"] = "little" if struct.pack("=H", 1)[0] else "big"


class Totals:
    """The counters by name. ``table`` is the pinned map: for each counter one number of 64 bits a processor."""

    def __init__(self, table: Map) -> None:
        self._table = table
        self._names = list(headers.counters())
        self._slots = 8 * processors()
        self._missing = 0  # copies that were asked for and had not ended, at the former reading

    def all(self) -> dict[str, int]:
        """Every counter. Raises ``MapError``.

        Those of :data:`BALANCE` are of one moment, where rumors leave a pause as long as a few calls. A rumor that is
        relayed while they are read would count among the copies and not among what was asked for, and be missed in the
        next cycle; one whose copies are on their way, which a virtual machine may stop for long, would be missed in
        this one. Where rumors leave no pause, one is little beside the others.
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
        """One counter. Raises ``ValueError`` for an unknown name, ``MapError``."""
        return self._sum(self._names.index(name))

    def _sum(self, index: int) -> int:
        value = self._table.lookup(index.to_bytes(4, _ENDIAN), size=self._slots)
        return sum(struct.unpack(f"={self._slots // 8}Q", value)) if value else 0
