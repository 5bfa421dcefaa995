# SPDX-License-Identifier: MIT
"""The packets of ``golden/wire-2.json``, byte for byte: whoever changes one changes the wire (docs/wire.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from xdp_gossip.core.messages import Header, PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.wire import bodies
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

VECTORS = json.loads((Path(__file__).parent / "golden" / "wire-2.json").read_text())
PACKETS = VECTORS["packets"]
KEYRING = Keyring(VECTORS["cluster"], {VECTORS["key_slot"]: (VECTORS["secret"], "active")})
CODEC = NativeCodec(KEYRING, VECTORS["salt"].encode())


def raw(described: Any) -> Any:
    """An array as the vectors describe it, with its bytes."""
    if isinstance(described, list):
        return [raw(item) for item in described]
    return bytes.fromhex(described["hex"]) if isinstance(described, dict) else described


@pytest.mark.parametrize("vector", PACKETS, ids=lambda vector: f"{vector['sequence']} {vector['message']}")
def test_a_vector_is_read_and_written(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["packet"])
    header = CODEC.parse(data)
    CODEC.verify(data, header)
    message = CODEC.open(data, header)
    expected = Header(
        type=PacketType(vector["type"]),
        origin=Address.parse(vector["origin"]),
        incarnation=vector["incarnation"],
        sequence=vector["sequence"],
        wall_ns=vector["wall_ns"],
        state_digest=vector["metadata_digest"],
        record_digest=vector["record_digest"],
        flags=vector["flags"],
        key_id=VECTORS["key_slot"],
        ttl=vector["ttl"],
        hops=vector["hops"],
    )
    assert header == expected
    assert (type(message).__name__ if message else None) == vector["message"]
    if message is not None:
        assert msgpack.unpackb(bodies.pack(message)) == raw(vector["body"])
    assert CODEC.encode(expected, message) == data


def test_there_is_one_of_each_type_and_message() -> None:
    assert {vector["type"] for vector in PACKETS} == {int(kind) for kind in PacketType}
    assert {vector["body"][0] for vector in PACKETS if vector["body"]} == set(bodies._BY_TAG)
