# SPDX-License-Identifier: MIT
"""Keys of the tests. They are generated keys: a passphrase costs each process a quarter of a second."""

from __future__ import annotations

import base64
import functools
import hashlib

from xdp_gossip.wire.keys import GENERATED, derive


def numbered(number: int) -> str:
    """A generated key that is the same in each run."""
    raw = hashlib.sha256(b"test key %d" % number).digest()
    return GENERATED + base64.urlsafe_b64encode(raw).decode().rstrip("=")


KEY, OTHER_KEY, THIRD_KEY = numbered(0), numbered(1), numbered(2)


@functools.lru_cache(maxsize=64)
def with_id(cluster: str, key_id: int, other_than: str) -> str:
    """A key with the id ``key_id`` in ``cluster``; another one than ``other_than``."""
    number = 3
    while derive(cluster, numbered(number)).id != key_id or numbered(number) == other_than:
        number += 1
    return numbered(number)
