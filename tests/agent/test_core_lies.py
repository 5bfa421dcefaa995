# SPDX-License-Identifier: MIT
"""Whatever authentic packets a member sends, in whatever order and at whatever times: no exception, and bounds hold."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.test_wire_native import BODIES, header
from tests.support.keys import KEY
from xdp_gossip.core import messages as m
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import Rumor
from xdp_gossip.core.packets import Header, PacketType, Rejected
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, Document, Node, Now, State, Version
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

CODEC = NativeCodec(Keyring.single("test", KEY))
WALL = 1_700_000_000 * 10**9
OWN = Address("198.18.0.1", 8000)
#: Few of everything, so that messages meet: this node, others, and what a liar may think of.
ADDRESSES = st.sampled_from([OWN, *(Address(f"198.18.0.{n}", 8000) for n in (2, 3, 4)), Address("224.0.0.1", 9)])
NUMBERS = st.sampled_from([0, 1, 5, 6, 7, 2**31, 2**32 - 1])
U32 = NUMBERS | st.integers(0, 2**32 - 1)
U64 = NUMBERS | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
KEYS = st.sampled_from(["a", "b", "c/d"])
VERSIONS = st.builds(Version, st.sampled_from([1, WALL // 10**6 << 16, 2**63 - 2, 2**63 - 1, 2**64 - 1]), ADDRESSES)
HASHES = st.sampled_from([bytes(32), b"\1" * 32])
SIZES = st.sampled_from([0, 1, 900, 9000, 2**24, 2**63])
ENTRIES = st.lists(st.builds(m.Entry, KEYS, VERSIONS, st.booleans(), HASHES, SIZES), max_size=3).map(tuple)
INFOS = st.lists(st.builds(m.MemberInfo, ADDRESSES, U32, U64, st.sampled_from(State), U64, U64, U64), max_size=3)
DOCUMENTS = st.builds(
    Document,
    KEYS,
    VERSIONS,
    st.sampled_from([b"", b"x", bytes(900)]),
    st.just("raw"),
    st.just("who"),
    st.just("why" * 300),
    st.booleans(),
    st.none() | VERSIONS,
    U64,
    st.sampled_from([(), ("a", "b"), ("a", "b", "c/d")]),
    st.lists(VERSIONS, max_size=7).map(tuple),
)
NEAR = {
    PacketType.SWAP_REQUEST: st.one_of(
        st.builds(m.SyncRequest, U64, U64, st.lists(st.builds(m.Sighting, ADDRESSES, U32, U64), max_size=3).map(tuple)),
        st.builds(m.ListRequest, st.just(tuple(range(256))), st.lists(U64, max_size=3).map(tuple)),
        st.builds(m.FetchRequest, st.lists(st.builds(m.Want, KEYS, VERSIONS, U64), max_size=3).map(tuple)),
        st.builds(m.RecordsRequest, st.lists(ADDRESSES, max_size=3).map(tuple)),
        st.builds(m.NodeListRequest, st.just(tuple(range(128))), st.lists(U64, max_size=3).map(tuple)),
    ),
    PacketType.SWAP_RESPONSE: st.one_of(
        st.builds(m.MemberList, INFOS.map(tuple), st.booleans(), st.lists(U64, max_size=3).map(tuple)),
        st.builds(m.ListResponse, ENTRIES, st.just(tuple(range(256)))),
        st.builds(m.Documents, st.lists(DOCUMENTS, max_size=3).map(tuple)),
        st.builds(m.Chunk, DOCUMENTS, SIZES, HASHES, U64, st.sampled_from([b"", b"x", bytes(9000)])),
        st.builds(m.NotHere, st.lists(KEYS, max_size=3).map(tuple)),
        st.builds(m.Announce, ENTRIES),
    ),
    PacketType.METADATA: st.builds(m.Announce, ENTRIES) | st.builds(m.Documents, st.lists(DOCUMENTS).map(tuple)),
    PacketType.PROBE: st.one_of(
        st.builds(m.Ping, U64, ADDRESSES, U32, st.booleans()),
        st.builds(m.PingRequest, U64, ADDRESSES, U32),
        st.builds(m.IndirectAck, U64, st.builds(m.Sighting, ADDRESSES, U32, U64)),
    ),
}


@st.composite
def steps(draw: st.DrawFn) -> tuple[Header, m.Message | None, Address, float]:
    """A packet, where it comes from, and the seconds until the next one."""
    kind = draw(st.sampled_from(PacketType))
    head = header(
        kind,
        origin=draw(ADDRESSES),
        incarnation=draw(st.sampled_from([5, 7, 2**31, 2**32 - 1])),
        sequence=draw(st.integers(1, 9) | st.sampled_from([2**63, 2**64 - 1])),
        wall_ns=draw(st.sampled_from([0, WALL, WALL, WALL, 2**63, 2**64 - 1])),
        documents_digest=draw(U64),
        record_digest=draw(U64),
        flags=draw(st.integers(0, 255)),
        ttl=draw(st.integers(0, 255)),
    )
    bodies = [strategies[kind] for strategies in (BODIES, NEAR) if kind in strategies]
    return head, draw(st.one_of(bodies)) if bodies else None, draw(ADDRESSES), draw(st.sampled_from([0, 0.01, 1, 90]))


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from([4096, 16384]), st.lists(steps(), min_size=1, max_size=25))
def test_no_sequence_of_packets_breaks_a_node(
    size: int, sequence: list[tuple[Header, m.Message | None, Address, float]]
) -> None:
    engine = Engine(
        Node(OWN.ip, OWN.port, "self"), Settings(cycle=1.0, size=size), CODEC, random.Random(1), incarnation=5
    )
    mono = 100.0

    def now() -> Now:
        return Now(mono, WALL + int((mono - 100.0) * 1e9))

    engine.start(now())
    engine.documents.publish("mine", b"value", now())
    for head, message, source, pause in sequence:
        try:
            data = CODEC.encode(head, message)
            CODEC.open(data, head)
        except Rejected:
            continue  # the wire does not let it in
        engine.receive(data, source, now())
        mono += pause
        for _ in range(3):
            engine.handle_timer(now())
        for item in engine.take_transmits():
            for to in item.targets if isinstance(item, Rumor) else [item.to]:
                assert to != OWN and not to.is_group
        engine.take_events()
        engine.members(now())
    held = engine.documents.get("mine")
    assert held is not None and held.value == b"value"
    document, _ = engine.documents.publish("mine", b"again", now())
    assert document.value == b"again"
