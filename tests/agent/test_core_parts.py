# SPDX-License-Identifier: MIT
"""The small parts of the core: clocks, replay window, document table, values."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdp_gossip.core.documents.clock import LEAP_HOLDS, HybridClock, SteadyTime, cluster_offset
from xdp_gossip.core.documents.table import DocumentTable, bucket_of
from xdp_gossip.core.members.window import ReplayWindow
from xdp_gossip.core.timers import Timers
from xdp_gossip.core.types import Address, Document, Node, Now, Version, check_key

A = Address("198.18.0.11", 8000)
B = Address("198.18.0.12", 8000)
NOW_MS = 1_700_000_000_000


class TestHybridClock:
    def test_readings_grow_while_the_wall_stands_still_or_goes_back(self) -> None:
        clock = HybridClock(60_000)
        readings = [clock.tick(wall) for wall in (1_000, 1_000, 999, 500, 1_000)]
        assert readings == sorted(set(readings))
        assert readings[0] == 1_000 << 16

    def test_a_reading_follows_every_one_observed(self) -> None:
        clock = HybridClock(60_000)
        clock.observe(5_000 << 16)
        assert clock.tick(1_000) == (5_000 << 16) + 1

    def test_a_clock_that_was_put_right_does_not_keep_writing_into_the_future(self) -> None:
        clock = HybridClock(60_000)
        clock.tick(NOW_MS + 3_600_000)
        assert clock.tick(NOW_MS) >> 16 == NOW_MS

    def test_a_clock_that_cannot_be_right_sets_nothing_back(self) -> None:
        clock = HybridClock(60_000)
        before = clock.tick(NOW_MS)
        assert clock.tick(1_000) == before + 1

    def test_far_ahead_is_told_from_a_little_ahead(self) -> None:
        clock = HybridClock(60_000)
        assert not clock.too_far_ahead(61_000 << 16, 1_000)
        assert clock.too_far_ahead(61_001 << 16, 1_000)

    def test_one_wrong_clock_moves_nobody_but_itself(self) -> None:
        assert cluster_offset([0.01, 3600.0]) == pytest.approx(0.01)
        assert cluster_offset([-3600.0, -3600.0]) == -3600.0

    def test_of_two_that_disagree_each_keeps_its_own_time(self) -> None:
        assert cluster_offset([10.0]) == cluster_offset([-10.0]) == cluster_offset([]) == 0.0
        assert cluster_offset([600.0, 600.0, 0.0]) == 0.0
        assert cluster_offset([600.0, 600.0, 5.0]) == 5.0
        assert cluster_offset([-600.0, -600.0, -0.1]) == -0.1


class TestSteadyTime:
    def test_a_leap_ahead_counts_when_it_has_held(self) -> None:
        time = SteadyTime()
        leap = 7_200_000
        read = [(time.read(NOW_MS + at * 1000 + leap * (at > 0), Now(at, 0)) - NOW_MS) / 1000 for at in (0, 10, 69, 70)]
        assert LEAP_HOLDS == 60.0 and read == [0, 10, 69, 7270]

    def test_a_leap_that_was_put_right_counts_for_nothing(self) -> None:
        time = SteadyTime()
        for at, leap in ((0, 0), (1, 7_200_000), (50, 7_200_000), (51, 0), (52, 7_200_000), (111, 7_200_000)):
            assert time.read(NOW_MS + at * 1000 + leap, Now(at, 0)) == NOW_MS + at * 1000

    def test_of_a_leap_that_fell_into_a_small_one_only_that_counts(self) -> None:
        time = SteadyTime()
        read = []
        for at, leap in ((0, 0), (10, 5), (60, 7_200_000), (70, 7_200_000), (71, 7_200_000), (130, 7_200_000)):
            read.append(time.read(NOW_MS + at * 1000 + leap, Now(at, 0)) - NOW_MS - at * 1000)
        assert read == [0, 0, 0, 5, 5, 5]

    def test_a_step_back_counts_at_once(self) -> None:
        time = SteadyTime()
        assert time.read(NOW_MS, Now(0, 0)) == NOW_MS
        assert time.read(NOW_MS - 3_600_000, Now(1, 0)) == NOW_MS - 3_600_000

    def test_a_suspended_machine_makes_no_leap(self) -> None:
        time = SteadyTime()
        time.read(NOW_MS, Now(0, 0))
        assert time.read(NOW_MS + 3_600_000, Now(1, 0, slept=3599.0)) == NOW_MS + 3_600_000


class TestReplayWindow:
    @given(st.lists(st.integers(1, 300), max_size=200), st.sampled_from([8, 64]))
    def test_agrees_with_a_set_within_the_window(self, sequence: list[int], width: int) -> None:
        window, seen = ReplayWindow(width), set()
        for number in sequence:
            highest = max(seen, default=0)
            fresh = number not in seen and number > highest - width
            assert window.fresh(number) is fresh
            if fresh:
                window.commit(number)
                seen.add(number)

    def test_looking_marks_nothing(self) -> None:
        window = ReplayWindow(64)
        assert window.fresh(5)
        assert window.fresh(5)

    def test_zero_is_never_fresh(self) -> None:
        assert not ReplayWindow(64).fresh(0)


def document(key: str, hlc: int = 1 << 16, value: bytes = b"v", origin: Address = A, deleted: bool = False) -> Document:
    return Document(key, Version(hlc, origin), value, deleted=deleted)


class TestDocumentTable:
    @given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9), st.booleans()), max_size=40), st.randoms())
    def test_digest_tells_contents_and_nothing_else(
        self, writes: list[tuple[str, int, bool]], rng: random.Random
    ) -> None:
        documents = [document(key, n << 16, b"" if gone else b"v%d" % n, deleted=gone) for key, n, gone in writes]
        one, two = DocumentTable(), DocumentTable()
        for item in documents:
            one.put(item)
        finals = list(one)
        rng.shuffle(finals)
        for item in finals:
            two.put(item)
        assert (one.digest, one.buckets, one.live) == (two.digest, two.buckets, two.live)
        assert one.digest == sum(item.state_hash for item in finals) % 2**64
        assert one.live == sum(not item.deleted for item in finals)

    def test_a_difference_shows_in_one_bucket(self) -> None:
        one, two = DocumentTable(), DocumentTable()
        for table in (one, two):
            table.put(document("app/a"))
        two.put(document("app/b"))
        differing = [i for i in range(256) if one.buckets[i] != two.buckets[i]]
        assert differing == [bucket_of("app/b")]


class TestValues:
    @pytest.mark.parametrize("text", ["198.18.0.11:8000", "[fd00::1]:1", "[::1]:65535"])
    def test_addresses_read_what_they_print(self, text: str) -> None:
        assert str(Address.parse(text)) == text
        address = Address.parse(text)
        assert Address.unpack(address.packed, address.port) == address

    @pytest.mark.parametrize(
        "text",
        ["", "198.18.0.11", "198.18.0.11:", "198.18.0.11:0", "198.18.0.11:65536", "fd00::1:8000", "host:8000", "1:²"],
    )
    def test_what_is_no_address_is_named(self, text: str) -> None:
        with pytest.raises(ValueError, match="expected"):
            Address.parse(text)

    def test_mapped_addresses_are_ipv4(self) -> None:
        assert Address.of("::ffff:198.18.0.11", 8000) == A

    def test_versions_read_what_they_print_and_have_one_order(self) -> None:
        versions = [Version(2, A), Version(1, B), Version(1, A), Version(1, Address("fd00::1", 8000))]
        assert [Version.parse(str(v)) for v in versions] == versions
        assert sorted(versions)[:2] == [Version(1, A), Version(1, B)]

    def test_one_version_with_two_contents_still_has_one_winner(self) -> None:
        one, two = document("a", value=b"1"), document("a", value=b"2")
        assert one.rank != two.rank
        assert max(one, two, key=lambda d: d.rank) is max(two, one, key=lambda d: d.rank)

    def test_nodes_are_checked(self) -> None:
        assert Node("::ffff:198.18.0.11", 8000).addr == "198.18.0.11"
        for bad in (
            {"addr": "host", "port": 1},
            {"addr": "198.18.0.1", "port": 0},
            {"addr": "198.18.0.1", "port": True},
        ):
            with pytest.raises(ValueError):
                Node(**bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="private_data: expected at most 4096"):
            Node("198.18.0.1", 1, private_data="ä" * 2049)
        with pytest.raises(ValueError, match="valid Unicode"):
            Node("198.18.0.1", 1, name="\ud800")

    @pytest.mark.parametrize("key", ["a", "app/prod/web.yml", "schlüssel", "x" * 512])
    def test_good_keys(self, key: str) -> None:
        assert check_key(key) == key

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\nb", "x" * 513, 5, "\ud800"])
    def test_bad_keys(self, key: object) -> None:
        with pytest.raises(ValueError, match="document key"):
            check_key(key)


def test_timers_run_in_order_and_only_when_due() -> None:
    timers, ran = Timers(), []
    for when, name in ((3.0, "c"), (1.0, "a"), (1.0, "b")):
        timers.at(when, lambda now, name=name: ran.append(name))
    timers.run(Now(0.5, 0))
    assert ran == [] and timers.next() == 1.0
    timers.run(Now(2.0, 0))
    assert ran == ["a", "b"] and timers.next() == 3.0
