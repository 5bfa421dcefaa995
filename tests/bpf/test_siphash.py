# SPDX-License-Identifier: MIT
"""The MAC as the kernel computes it, against the agent's library; the library against the reference implementation."""

from __future__ import annotations

import os
import random

import pytest
from nacl.bindings import crypto_shorthash_siphashx24

from tests.bpf.harness import Plane
from xdp_gossip.dataplane import layout
from xdp_gossip.wire.native import HEADER_BYTES, mac

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

#: From the vectors of SipHash's reference implementation (vectors.h, vectors_sip128): key 00..0f, input 00.. of 0 and 1
#: bytes.
VECTORS = ("a3817f04ba25a8e66df67214c7550293", "da87c1d86b99af44347659119b22fc45")
LONGEST = 1232


def of(plane: Plane, key: bytes, packet: bytes) -> bytes:
    plane.write("keys", bytes(4), layout.KEY.pack(1, key))
    assert plane.run("test_siphash", packet).value == 2
    found = plane.read("digest", bytes(4), 16)
    assert found is not None
    return found


def test_vectors_of_the_reference_implementation() -> None:
    for length, expected in enumerate(VECTORS):
        assert crypto_shorthash_siphashx24(bytes(range(length)), bytes(range(16))).hex() == expected


def test_every_length_that_a_packet_may_have(plane: Plane) -> None:
    rng = random.Random(2012)
    for length in range(HEADER_BYTES, LONGEST + 1):
        key, packet = rng.randbytes(16), rng.randbytes(length)
        assert of(plane, key, packet) == mac(key, packet), (length, key.hex(), packet.hex())


@pytest.mark.parametrize("length", [HEADER_BYTES, HEADER_BYTES + 17, HEADER_BYTES + 20, LONGEST])
def test_every_bit_matters_but_those_of_mac_and_relay_area(plane: Plane, length: int) -> None:
    key, packet = b"sixteen bytes of", bytes(length)
    first = of(plane, key, packet)
    seen = {first}
    for at in range(length):
        for bit in range(8):
            changed = bytearray(packet)
            changed[at] ^= 1 << bit
            found = of(plane, key, bytes(changed))
            assert (found == first) == (64 <= at < 84), (at, bit)
            seen.add(found)
    assert len(seen) == 1 + 8 * (length - 20)
