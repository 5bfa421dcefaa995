# SPDX-License-Identifier: MIT
"""Zones: to whom a member sends its copies of a rumor, and what a data plane is given to choose from."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdp_gossip.core.events import ZoneChanged
from xdp_gossip.core.members.membership import Membership
from xdp_gossip.core.members.zones import LINKS, MOST_ZONES, Zones
from xdp_gossip.core.observers.rings import Rings
from xdp_gossip.core.types import Address, Now, Record, State
from xdp_gossip.core.zone_losses import ZoneLosses

NOW = Now(1000.0, 10**18)


def at(number: int) -> Address:
    return Address.of(f"198.18.{number // 250}.{number % 250 + 1}", 8000)


def view(sizes: Sequence[int], zone: int, seed: int = 0) -> tuple[Zones, dict[Address, int]]:
    """What one member of a zone knows of a fleet with ``sizes`` members in its zones; and the zone of each other."""
    zones = Zones(f"zone{zone}", random.Random(seed))
    others = {}
    for index, size in enumerate(sizes):
        for _ in range(size - (index == zone)):
            others[at(len(others))] = index
    for address, index in others.items():
        zones.place(address, f"zone{index}")
    return zones, others


def into(sizes: Sequence[int], copies: int, draws: int = 400, ring: bool = False) -> dict[tuple[int, int], float]:
    """Copies of one rumor from each zone into each, when every member of the fleet relays it once."""
    found: Counter[tuple[int, int]] = Counter()
    for zone, size in enumerate(sizes):
        zones, others = view(sizes, zone)
        for _ in range(draws):
            sample = zones.sample(256, copies, ()) if ring else []
            for address in sample if ring else zones.targets(copies, ()):
                found[zone, others[address]] += size * (copies / len(sample) if ring else 1)
    return {pair: count / draws for pair, count in found.items()}


def crossing(flows: dict[tuple[int, int], float]) -> float:
    return sum(count for (a, b), count in flows.items() if a != b) / sum(flows.values())


@pytest.mark.parametrize("ring", [False, True], ids=["agent", "kernel"])
@pytest.mark.parametrize("copies", [4, 12])
def test_three_zones_of_a_hundred_keep_their_copies_at_home(copies: int, ring: bool) -> None:
    flows = into([100, 100, 100], copies, draws=100 if ring else 3000, ring=ring)
    assert 0.02 < crossing(flows) < 0.04
    for zone in range(3):
        outside = sum(count for (a, b), count in flows.items() if b == zone and a != zone)
        assert LINKS * copies * 0.75 < outside < LINKS * copies * 1.25


@pytest.mark.parametrize("ring", [False, True], ids=["agent", "kernel"])
@pytest.mark.parametrize("sizes", [[100, 5], [60, 60, 1], [40, 3, 3, 3], [30] + [1] * 30, [2] * 40])
@pytest.mark.slow
def test_every_zone_gets_what_it_needs(sizes: list[int], ring: bool) -> None:
    """As many copies for each of its members, and from outside as much as agreed, or as without zones."""
    copies, everybody = 4, sum(sizes)
    flows = into(sizes, copies, ring=ring)
    for zone, size in enumerate(sizes):
        outside = sum(count for (a, b), count in flows.items() if b == zone and a != zone)
        without_zones = copies * size * (everybody - size) / (everybody - 1)
        assert outside > min(LINKS * copies, without_zones) * 0.7
        assert (outside + flows.get((zone, zone), 0.0)) / size > copies * 0.7


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=12),
    copies=st.integers(1, 64),
    excluded=st.integers(0, 2),
    seed=st.integers(0, 2**32),
)
def test_zones_never_reduce_the_copies(sizes: list[int], copies: int, excluded: int, seed: int) -> None:
    zones, others = view(sizes, 0, seed)
    exclude = random.Random(seed).sample(list(others), min(excluded, len(others)))
    targets = zones.targets(copies, exclude)
    assert len(set(targets)) == len(targets) == min(copies, len(others) - len(exclude))
    assert not set(targets) & set(exclude)


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=12), limit=st.sampled_from([16, 256]))
def test_a_sample_is_enough_for_the_widest_rumor(sizes: list[int], limit: int) -> None:
    zones, others = view(sizes, 0)
    sample: list[Address] = []
    for _ in range(3):
        sample = zones.sample(limit, 12, sample)
        assert len(set(sample)) == len(sample)
        assert min(12, len(others)) <= len(sample) <= limit


def test_a_sample_is_renewed_bit_by_bit() -> None:
    zones, others = view([600, 600, 600], 0)
    first = zones.sample(256, 12, ())
    second = zones.sample(256, 12, first)
    assert 256 * 0.75 < len(set(first) & set(second)) < 256
    seen = set(first)
    for _ in range(200):
        second = zones.sample(256, 12, second)
        seen |= set(second)
    assert {others[address] for address in seen} == {0, 1, 2}
    assert sum(others[address] == 0 for address in seen) > 500


def test_the_own_zone_alone_is_no_division() -> None:
    zones, _others = view([50], 0)
    assert not zones.several
    zones.place(at(200), "elsewhere")
    assert zones.several
    zones.place(at(200), None)
    assert not zones.several


def test_a_member_alone_in_its_zone_is_divided_from_one_other_zone() -> None:
    zones, _others = view([1, 50], 0)
    assert zones.several
    assert len(zones.targets(4, ())) == 4


def test_a_member_is_observed_from_several_zones() -> None:
    """The rings know no zones, so the observers are a random sample of all members."""
    rings, everybody = Rings(), [at(number) for number in range(300)]
    rings.update(everybody)
    for address in everybody:
        assert len({everybody.index(observer) % 3 for observer in rings.observers(address)}) > 1


def test_too_many_zones_are_none() -> None:
    zones = Zones("zone0", random.Random(0))
    for number in range(MOST_ZONES - 1):
        zones.place(at(number), f"zone{number + 1}")
    assert zones.several
    zones.place(at(MOST_ZONES), "one more")
    assert not zones.several


def member(membership: Membership, number: int, zone: str) -> Address:
    peer = membership.add(at(number), NOW)
    peer.record.value = Record(f"host{number}", zone=zone)
    membership.remember(peer, 7, 1)
    membership.changed(peer)
    return peer.address


def test_the_membership_sends_to_present_members_only() -> None:
    membership = Membership(at(0), 1000, random.Random(0), "a")
    near = {member(membership, number, "a") for number in range(1, 101)}
    far = {member(membership, number, "b") for number in range(101, 201)}
    hits: Counter[bool] = Counter()
    for _ in range(500):
        hits.update(address in far for address in membership.targets(4))
    assert hits[True] / sum(hits.values()) < 0.05
    for address in near:
        peer = membership.get(address)
        assert peer is not None
        peer.liveness.state = State.DEAD
        membership.changed(peer)
    for _ in range(50):
        assert set(membership.targets(4)) <= far
    for address in far:
        peer = membership.get(address)
        assert peer is not None
        membership.forget(peer)
    assert membership.targets(4) == []


def test_lost_zones_that_nobody_has_any_more_are_forgotten() -> None:
    membership = Membership(at(0), 1000, random.Random(0), "a")
    told: list[ZoneChanged] = []

    class Out:
        emit = staticmethod(told.append)

    losses = ZoneLosses(membership, Out())  # type: ignore[arg-type]
    for number in range(1, 40):
        peer = membership.get(member(membership, number, f"zone{number}"))
        assert peer is not None
        peer.liveness.state = State.DEAD
        membership.changed(peer)
        losses.moved(peer, State.ALIVE)
        membership.forget(peer)
    assert [(event.lost, event.members) for event in told] == [(True, 1)] * 39
    assert len(losses._lost) == 1


def test_a_member_whose_record_tells_another_zone_moves() -> None:
    membership = Membership(at(0), 1000, random.Random(0), "a")
    for number in range(1, 101):
        member(membership, number, "a")
    stray = member(membership, 101, "b")
    assert sum(stray in membership.targets(4) for _ in range(200)) < 50
    peer = membership.get(stray)
    assert peer is not None
    peer.record.value = Record("host101", zone="a")
    membership.zoned(peer)
    assert not membership.zones.several


def test_the_table_of_the_page() -> None:
    """docs/scaling.md has the shares of the protocol's formula; ``Zones`` computes them for its targets."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\d+) x ([\d,]+) \| ([\d.]+) % \| ([\d.]+) % \|$", page)
    assert len(rows) == 8
    for count, size, without, shares in rows:
        sizes = [int(size.replace(",", ""))] * int(count)
        zones, others = view(sizes, 0)
        zones.targets(1, ())
        foreign = sum(zone != 0 for zone in others.values()) / len(others)
        assert (float(without), float(shares)) == (round(foreign * 100, 1), round(zones._ends[-1] * 100, 1))
