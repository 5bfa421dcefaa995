# SPDX-License-Identifier: MIT
"""HKDF with SHA-256 (RFC 5869).

The HKDF of the library ``cryptography`` would load its OpenSSL backend, which takes 6.5 MB of every agent's memory.
"""

from __future__ import annotations

import hmac

_BLOCK = 32


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract (section 2.2). Returns a key of 32 bytes."""
    return hmac.digest(salt, secret, "sha256")


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (section 2.3). Returns ``length`` bytes, at most 255 x 32."""
    block, found = b"", b""
    for number in range(1, -(-length // _BLOCK) + 1):
        block = hmac.digest(key, block + info + bytes((number,)), "sha256")
        found += block
    return found[:length]


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Derive ``length`` bytes, at most 255 x 32, for the purpose ``info``."""
    return expand(extract(salt, secret), info, length)
