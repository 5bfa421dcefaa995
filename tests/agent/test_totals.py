# SPDX-License-Identifier: MIT
"""The counters of the programs belong together although they are read one by one."""

from __future__ import annotations

import random
import struct

import pytest

from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.health import COPY_ENDS, Health, Plane, Work
from xdp_gossip.dataplane.libbpf import processors
from xdp_gossip.dataplane.totals import Totals

NAMES = list(headers.counters())
COPIES = 4


class Busy:
    """A table in which rumors are relayed while it is read: after some of the lookups, by their numbers."""

    def __init__(self) -> None:
        self.numbers = dict.fromkeys(NAMES, 0)
        self.lookups = self.flying = 0
        self.relayed_after: set[int] = set()
        self.landed_after: set[int] = set()

    def lookup(self, key: bytes, flags: int = 0, size: int = 0) -> bytes:
        name = NAMES[struct.unpack("=I", key)[0]]
        assert size == 8 * processors()
        half = self.numbers[name] // 2
        shares = [self.numbers[name] - half, half] if processors() > 1 else [self.numbers[name]]
        value = struct.pack(f"={processors()}Q", *shares, *[0] * (processors() - len(shares)))
        if self.lookups in self.relayed_after:
            self.relay()
        if self.lookups in self.landed_after:
            self.land()
        self.lookups += 1
        return value

    def relay(self) -> None:
        """One rumor, all of whose copies end well and at once."""
        self.ask()
        self.land()

    def ask(self) -> None:
        """One whose copies are on their way."""
        self.numbers["relay"] += 1
        self.numbers["copy_due"] += COPIES
        self.flying += 1

    def land(self) -> None:
        """And arrive."""
        self.numbers["copy"] += 3 * self.flying
        self.numbers["copy_surplus"] += self.flying
        self.flying = 0


def balanced(found: dict[str, int]) -> bool:
    return found["copy_due"] == sum(found[name] for name in COPY_ENDS)


@pytest.mark.parametrize("at", range(len(NAMES) + 12))
def test_a_rumor_that_is_relayed_between_two_lookups_is_whole_or_not_there(at: int) -> None:
    table = Busy()
    table.relayed_after = {at}
    assert balanced(Totals(table).all())


@pytest.mark.parametrize("at", range(len(NAMES) + 12))
def test_copies_that_are_on_their_way_are_waited_for(at: int) -> None:
    table = Busy()
    totals = Totals(table)
    assert balanced(totals.all())
    table.ask()
    table.landed_after = {table.lookups + at}
    assert balanced(totals.all())


def test_copies_that_vanished_are_asked_for_once() -> None:
    """They stay missing: what was missing before is not waited for."""
    table = Busy()
    totals = Totals(table)
    table.ask()
    assert not balanced(totals.all())
    first, table.lookups = table.lookups, 0
    assert not balanced(totals.all())
    assert table.lookups < first
    table.ask()
    table.flying, table.lookups = 0, 0
    found = totals.all()
    assert (found["copy_due"] - sum(found[name] for name in COPY_ENDS), table.lookups) == (2 * COPIES, first)


def test_many_rumors_that_leave_no_pause_do_not_keep_the_reader() -> None:
    table = Busy()
    table.relayed_after = set(range(10_000))
    found = Totals(table).all()
    assert table.lookups < 200
    # Out of balance by no more than what came in the meantime.
    assert abs(found["copy_due"] - sum(found[name] for name in COPY_ENDS)) <= 10 * COPIES


def test_a_small_fleet_is_not_found_guilty_of_copies_that_it_made() -> None:
    """Two rumors in a cycle: one that is counted in two halves would be a quarter of the work, and more."""
    rng = random.Random(3)
    table, health = Busy(), Health(Plane("eth0", 2, 0, frozenset()))
    for _ in range(500):
        table.lookups, table.relayed_after = 0, {rng.randrange(len(NAMES) + 12)}
        assert health.judge(Work(Totals(table).all(), 0, 0, 0), None) is None
        table.relay()
