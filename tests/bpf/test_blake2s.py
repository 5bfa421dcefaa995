# SPDX-License-Identifier: MIT
"""BLAKE2s as the kernel computes it, against RFC 7693 and hashlib."""

from __future__ import annotations

import hashlib
import os
import random
import struct

import pytest

from tests.bpf.harness import Plane
from xdp_gossip.dataplane import layout

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

#: From the BLAKE2 reference implementation's keyed vectors (blake2s-kat, key 00..1f): the digest of 00..3f, 32 bytes.
KAT_KEY, KAT_BLOCK = bytes(range(32)), bytes(range(64))
KAT_DIGEST = "8975b0577fd35566d750b362b0897a26c399136df07bababbde6203ff2954ed4"


def digest(plane: Plane, midstate: tuple[int, ...], block: bytes) -> bytes:
    plane.write("keys", bytes(4), layout.KEY.pack(1, *midstate))
    assert plane.run("test_blake2s", block).value == 2
    found = plane.read("digest", bytes(4), 16)
    assert found is not None
    return found


def test_a_vector_of_the_reference_implementation(plane: Plane) -> None:
    """With a digest of 32 bytes, of which the kernel computes the first 16."""
    assert digest(plane, layout.key_midstate(KAT_KEY, 32), KAT_BLOCK).hex() == KAT_DIGEST[:32]


def test_the_vector_of_the_rfc(plane: Plane) -> None:
    """RFC 7693, appendix B: BLAKE2s-256("abc"), unkeyed.

    The kernel has the count of bytes of a second block built in, so it cannot hash the vector itself. User space's
    compression can, and must give the same as the kernel's from the same state.
    """
    expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
    state = list(layout._BLAKE2S_IV)
    state[0] ^= 0x01010000 ^ 32
    block = b"abc".ljust(64, b"\0")
    assert struct.pack("<8I", *layout._compress(state, block, 3, last=True)).hex() == expected
    expected_words = layout._compress(state, block, 128, last=True)
    assert digest(plane, tuple(state), block) == struct.pack("<8I", *expected_words)[:16]


def test_random_keys_and_blocks_against_hashlib(plane: Plane) -> None:
    rng = random.Random(7693)
    for _ in range(2000):
        key, block = rng.randbytes(rng.randint(1, 32)), rng.randbytes(64)
        expected = hashlib.blake2s(block, key=key, digest_size=16).digest()
        assert digest(plane, layout.key_midstate(key), block) == expected, (key.hex(), block.hex())


def test_every_bit_of_the_block_matters(plane: Plane) -> None:
    midstate, block = layout.key_midstate(b"key"), bytes(64)
    seen = {digest(plane, midstate, block)}
    for bit in range(512):
        changed = bytearray(block)
        changed[bit // 8] ^= 1 << bit % 8
        seen.add(digest(plane, midstate, bytes(changed)))
    assert len(seen) == 513
