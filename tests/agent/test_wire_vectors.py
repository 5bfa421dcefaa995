# SPDX-License-Identifier: MIT
"""The packets of ``golden/wire-2.json``, byte for byte: whoever changes one changes the wire (docs/wire.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from xdp_gossip.core.messages import BY_TAG
from xdp_gossip.core.packets import Header, PacketType, Rejected
from xdp_gossip.core.structures import DOCUMENT, RECORD
from xdp_gossip.core.types import Address
from xdp_gossip.wire import bodies
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

VECTORS = json.loads((Path(__file__).parent / "golden" / "wire-2.json").read_text())
PACKETS = VECTORS["packets"]
KEYRING = Keyring.single(VECTORS["cluster"], VECTORS["secret"])
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
        documents_digest=vector["documents_digest"],
        record_digest=vector["record_digest"],
        flags=vector["flags"],
        key_id=VECTORS["key_id"],
        ttl=vector["ttl"],
        hops=vector["hops"],
        lease_age_ms=vector.get("lease_age_ms", 0),
    )
    assert header == expected
    assert (type(message).__name__ if message else None) == vector["message"]
    if message is not None:
        assert msgpack.unpackb(bodies.pack(message)) == raw(vector["body"])
    assert CODEC.encode(expected, message) == data


def test_there_is_one_of_each_type_and_message() -> None:
    assert {vector["type"] for vector in PACKETS} == {int(kind) for kind in PacketType}
    assert {vector["body"][0] for vector in PACKETS if vector["body"]} == set(BY_TAG)


LATER = ["of a later release", 7, [1, [True, None]], b"bytes", 1.5]


def structures(described: Any) -> list[list[Any]]:
    """Every array within that stands for a structure, not for a list of things of one kind."""
    found = []
    for item in described:
        if isinstance(item, list):
            kinds = {type(element) for element in item}
            is_stamp = isinstance(described[0], str) and len(described) in (5, 6) and item is described[4]
            if len(kinds) > 1 or is_stamp:
                found.append(item)
            found += structures(item)
    return found


def whole(item: list[Any], fields: list[Any], defaults: list[Any]) -> None:
    """Add the fields that were left off."""
    missing = len(fields) - len(item)
    item += [list(value) if isinstance(value, tuple) else value for value in defaults[len(defaults) - missing :]]


@pytest.mark.parametrize("vector", [v for v in PACKETS if v["body"]], ids=lambda vector: vector["message"])
def test_what_a_later_release_adds_is_passed_over(vector: dict[str, Any]) -> None:
    """Behind the fields of the message, and of every structure in it: the rule can never be mended afterwards."""
    kind, body = PacketType(vector["type"]), raw(vector["body"])
    message = bodies.unpack(kind, msgpack.packb(body))
    own = BY_TAG[body[0]].schema
    for structure in structures(body):
        if isinstance(structure[0], str) and len(structure) >= RECORD._least and type(structure[1]) is not bool:
            known = RECORD if isinstance(structure[1], str) else DOCUMENT
            whole(structure, list(known._fields), known._defaults)
        structure += LATER
    fields = body[1:]
    whole(fields, list(own._fields), own._defaults)
    assert bodies.unpack(kind, msgpack.packb([body[0], *fields, *LATER])) == message


@pytest.mark.parametrize("tag", [True, 1.0, "1", None, [1]])
def test_a_tag_is_a_whole_number(tag: object) -> None:
    with pytest.raises(Rejected):
        bodies.unpack(PacketType.SWAP_REQUEST, msgpack.packb([tag, 1, 2, []]))
