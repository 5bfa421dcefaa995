# SPDX-License-Identifier: MIT
"""The structures of ``bpf/maps.h`` for Python: ``struct`` formats in native order, fields in the order of the C."""

from __future__ import annotations

import hashlib
import struct

from ..core.types import Address

#: addr 16s, port (big-endian bytes) 2s, amount, wide, flags, cluster (big-endian bytes) 4s, incarnation, state_digest,
#: lease, clock, timeout, max_clock_drift, ring_half, ring_size
CONFIG = struct.Struct("=16s2sHHH4sIQQqQQII")
#: present, eight words of midstate
KEY = struct.Struct("=I8I")
#: addr 16s, port (big-endian bytes) 2s, zero
NODE_KEY = struct.Struct("=16s2sH")
#: lock, incarnation, highest, window, last_seen, clock, state_digest, record_digest, standing, flags
NODE = struct.Struct("=IIQQQqQQBB6x")
#: addr 16s, port (big-endian bytes) 2s
TARGET = struct.Struct("=16s2s6x")
#: dst 6s, src 6s, ifindex, learnt
NEXTHOP = struct.Struct("=6s6sIQ")
#: time, addr 16s, port (big-endian bytes) 2s, length, kind
EVENT = struct.Struct("=Q16s2sHB3x")
#: addr 16s, verdict (index of the counter), zero
REFUSAL_KEY = struct.Struct("=16sII")
#: samples, last
REFUSAL = struct.Struct("=QQ")

_BLAKE2S_IV = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
_SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)
_WORD = 0xFFFFFFFF


def node_key(address: Address) -> bytes:
    """The key of a node in the map."""
    return NODE_KEY.pack(address.packed, address.port.to_bytes(2, "big"), 0)


def key_midstate(key: bytes, digest_size: int = 16) -> tuple[int, ...]:
    """The eight words of BLAKE2s's state after the block that holds ``key`` (1 to 32 bytes).

    RFC 7693, sections 2.5 and 3.2. ``hashlib`` does not give its state away, so the compression is written out
    here; it runs once for each key. :func:`midstate_digest` and a test compare it with ``hashlib``.
    """
    state = list(_BLAKE2S_IV)
    state[0] ^= 0x01010000 ^ len(key) << 8 ^ digest_size
    return _compress(state, key.ljust(64, b"\0"), 64, last=False)


def midstate_digest(midstate: tuple[int, ...], block: bytes, digest_size: int = 16) -> bytes:
    """The digest of one 64-byte ``block`` from a key's midstate: what the kernel computes."""
    words = _compress(list(midstate), block, 128, last=True)
    return struct.pack("<8I", *words)[:digest_size]


def _compress(state: list[int], block: bytes, count: int, last: bool) -> tuple[int, ...]:
    """RFC 7693, section 3.2."""
    message = struct.unpack("<16I", block)
    work = [*state, *_BLAKE2S_IV]
    work[12] ^= count & _WORD
    work[13] ^= count >> 32
    if last:
        work[14] ^= _WORD
    for schedule in _SIGMA:
        for column in range(8):
            a, b, c, d = _POSITIONS[column]
            x, y = message[schedule[2 * column]], message[schedule[2 * column + 1]]
            _mix(work, a, b, c, d, x, y)
    return tuple(state[i] ^ work[i] ^ work[i + 8] for i in range(8))


_POSITIONS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def _mix(v: list[int], a: int, b: int, c: int, d: int, x: int, y: int) -> None:
    v[a] = (v[a] + v[b] + x) & _WORD
    v[d] = _rotate(v[d] ^ v[a], 16)
    v[c] = (v[c] + v[d]) & _WORD
    v[b] = _rotate(v[b] ^ v[c], 12)
    v[a] = (v[a] + v[b] + y) & _WORD
    v[d] = _rotate(v[d] ^ v[a], 8)
    v[c] = (v[c] + v[d]) & _WORD
    v[b] = _rotate(v[b] ^ v[c], 7)


def _rotate(word: int, bits: int) -> int:
    return (word >> bits | word << (32 - bits)) & _WORD


def blake2s_agrees(key: bytes, block: bytes) -> bool:
    """Whether the midstate gives what ``hashlib`` gives; the agent checks this once before it hands a key over."""
    return midstate_digest(key_midstate(key), block) == hashlib.blake2s(block, key=key, digest_size=16).digest()
