# SPDX-License-Identifier: MIT
"""A large document put together from pieces."""

from __future__ import annotations

import hashlib
import random

import pytest

from xdp_gossip.core.sync.reassembly import Pieces


@pytest.mark.parametrize("size", [1, 99, 100, 101, 1000, 4321])
def test_any_order_gives_the_value_and_its_hash(size: int) -> None:
    rng = random.Random(size)
    value = rng.randbytes(size)
    offsets = list(range(0, size, 100))
    rng.shuffle(offsets)
    pieces = Pieces(size, 100)
    for offset in offsets:
        assert pieces.left
        assert pieces.put(offset, value[offset : offset + 100]) is True
        assert pieces.put(offset, value[offset : offset + 100]) is False
    assert not pieces.left
    assert pieces.gap(0, pieces.count) is None
    assert pieces.digest() == hashlib.sha256(value).digest()
    assert pieces.value() == value


@pytest.mark.parametrize(("offset", "data"), [(50, b"x" * 100), (0, b"x" * 99), (300, b"x" * 100), (200, b"x" * 100)])
def test_what_is_no_piece_of_it_changes_nothing(offset: int, data: bytes) -> None:
    pieces = Pieces(250, 100)
    assert pieces.put(offset, data) is None
    assert pieces.left == 3
    assert pieces.gap(0, 3) == 0
