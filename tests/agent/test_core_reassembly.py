# SPDX-License-Identifier: MIT
"""A large document put together from pieces."""

from __future__ import annotations

import hashlib
import random

import pytest

from xdp_gossip.core.sync.reassembly import Reassembly


@pytest.mark.parametrize("size", [1, 99, 100, 101, 1000, 4321])
def test_any_order_gives_the_value_and_its_hash(size: int) -> None:
    rng = random.Random(size)
    value = rng.randbytes(size)
    offsets = list(range(0, size, 100))
    rng.shuffle(offsets)
    reassembly = Reassembly(size, 100)
    for offset in offsets:
        assert reassembly.left
        assert reassembly.put(offset, value[offset : offset + 100]) is True
        assert reassembly.put(offset, value[offset : offset + 100]) is False
    assert not reassembly.left
    assert reassembly.gap(0, reassembly.count) is None
    assert reassembly.digest() == hashlib.sha256(value).digest()
    assert reassembly.value() == value


@pytest.mark.parametrize(("offset", "data"), [(50, b"x" * 100), (0, b"x" * 99), (300, b"x" * 100), (200, b"x" * 100)])
def test_what_is_no_piece_of_it_changes_nothing(offset: int, data: bytes) -> None:
    reassembly = Reassembly(250, 100)
    assert reassembly.put(offset, data) is None
    assert reassembly.left == 3
    assert reassembly.gap(0, 3) == 0
