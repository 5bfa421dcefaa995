# SPDX-License-Identifier: MIT
"""Python declarations of the structures in ``bpf/maps.h``.

Each declaration is a ``struct`` format in native byte order, with the fields in the order of the C structure.
"""

from __future__ import annotations

import struct

from ..core.types import Address

#: Fields of struct xg_config: addr (16s), port (2s, big-endian), amount, wide, flags, cluster (4s, big-endian),
#: incarnation, documents_digest, lease, clock, timeout, max_clock_drift, ring_half, ring_size, asked, wall,
#: record_digest, renewed, key_id, packet_flags
CONFIG = struct.Struct("=16s2sHHH4sIQQqQQIIQqQQBB6x")
#: Fields of struct xg_key: present, key of the MAC (16s)
KEY = struct.Struct("=I4x16s")
#: Fields of struct xg_node_key: addr (16s), port (2s, big-endian), zero
NODE_KEY = struct.Struct("=16s2sH")
#: Fields of struct xg_node: lock, incarnation, highest, window, last_seen, clock, documents_digest, record_digest,
#: standing, flags, rumors, slot
NODE = struct.Struct("=IIQQQqQQBBHI")
#: Fields of struct xg_direct: incarnation, slot, passed, highest, 32 words of window
DIRECT = struct.Struct("=IIQQ32Q")
#: Fields of struct xg_asker: incarnation, slot, answered, round
ASKER = struct.Struct("=IIQQ")
#: Fields of struct xg_ack: incarnation, lease_age, newest, window, last_seen, clock, documents_digest, record_digest,
#: flags
ACK = struct.Struct("=IIQQQqQQB7x")
#: Fields of struct xg_allow_key: prefix in bits, addr (16s)
ALLOW_KEY = struct.Struct("=I16s")
#: Fields of struct xg_target: addr (16s), port (2s, big-endian)
TARGET = struct.Struct("=16s2s6x")
#: Fields of struct xg_nexthop: dst (6s), src (6s), ifindex, learnt
NEXTHOP = struct.Struct("=6s6sIQ")
#: Fields of struct xg_event: time, addr (16s), port (2s, big-endian), length, kind
EVENT = struct.Struct("=Q16s2sHB3x")
#: Fields of struct xg_refusal_key: addr (16s), verdict (index of the counter), zero
REFUSAL_KEY = struct.Struct("=16sII")
#: Fields of struct xg_refusal: samples, last
REFUSAL = struct.Struct("=QQ")


def node_key(address: Address) -> bytes:
    """Return the key under which the BPF maps store the node with this address."""
    return NODE_KEY.pack(address.packed, address.port.to_bytes(2, "big"), 0)
