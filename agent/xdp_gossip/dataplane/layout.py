# SPDX-License-Identifier: MIT
"""Python's view of the structures in ``bpf/maps.h``.

They are ``struct`` formats in native order, with the fields in the order of the C.
"""

from __future__ import annotations

import struct

from ..core.types import Address

#: addr 16s, port (big-endian bytes) 2s, amount, wide, flags, cluster (big-endian bytes) 4s, incarnation, state_digest,
#: lease, clock, timeout, max_clock_drift, ring_half, ring_size
CONFIG = struct.Struct("=16s2sHHH4sIQQqQQII")
#: present, key of the MAC 16s
KEY = struct.Struct("=I4x16s")
#: addr 16s, port (big-endian bytes) 2s, zero
NODE_KEY = struct.Struct("=16s2sH")
#: lock, incarnation, highest, window, last_seen, clock, state_digest, record_digest, standing, flags, rumors, slot
NODE = struct.Struct("=IIQQQqQQBBHI")
#: incarnation, slot, passed, highest, 32 words of window
DIRECT = struct.Struct("=IIQQ32Q")
#: prefix in bits, addr 16s
ALLOW_KEY = struct.Struct("=I16s")
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


def node_key(address: Address) -> bytes:
    """The key of a node in the map."""
    return NODE_KEY.pack(address.packed, address.port.to_bytes(2, "big"), 0)
