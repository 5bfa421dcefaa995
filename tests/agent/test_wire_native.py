# SPDX-License-Identifier: MIT
"""The native wire: layout, golden vectors, keys, and whatever bytes may come."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_shorthash_siphashx24

import xdp_gossip
from tests.support.keys import KEY, OTHER_KEY, with_id
from xdp_gossip.common.hkdf import hkdf
from xdp_gossip.core import messages as m
from xdp_gossip.core.packets import Header, PacketType, Rejected
from xdp_gossip.core.types import Address, Document, EdgeState, Record, State, Version
from xdp_gossip.wire import bodies
from xdp_gossip.wire.keys import Keyring, cluster_id, derive
from xdp_gossip.wire.native import BLOCK_BYTES, HEADER_BYTES, NativeCodec

CODEC = NativeCodec(Keyring.single("default", KEY), b"salt")
CODEC_ID = derive("default", KEY).id
V4 = Address("198.18.0.11", 8000)

addresses = st.builds(
    Address.of,
    st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)),
    st.integers(1, 65535),
)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
keys = st.text("abc/.-ü", min_size=1, max_size=20).filter(
    lambda key: all(segment not in ("", ".", "..") for segment in key.split("/"))
)
versions = st.builds(Version, u64, addresses)
texts = st.text(max_size=20)
hashes = st.binary(min_size=32, max_size=32)
records = st.builds(
    Record, texts, texts, texts.filter(lambda t: len(t.encode()) <= 32), st.just("UDP"), st.tuples(u32, u64), texts
)
sightings = st.builds(m.Sighting, addresses, u32, u64)
infos = st.builds(m.MemberInfo, addresses, u32, u64, st.sampled_from(State), u64, u64, u64)
entries = st.builds(m.Entry, keys, versions, st.booleans(), hashes, u64)
documents = st.builds(
    Document,
    keys,
    versions,
    st.binary(max_size=99),
    st.just("json"),
    texts,
    texts,
    st.booleans(),
    st.none() | versions,
    st.just(0) | u64,
    st.lists(keys, max_size=4).map(tuple),
)


def some(strategy: st.SearchStrategy, most: int = 4) -> st.SearchStrategy:
    return st.lists(strategy, max_size=most).map(tuple)


BODIES = {
    PacketType.SWAP_REQUEST: st.one_of(
        st.builds(m.SyncRequest, u64, u64, some(sightings)),
        st.builds(m.ListRequest, some(st.integers(0, 255))),
        st.builds(m.FetchRequest, some(st.builds(m.Want, keys, versions, u64))),
        st.builds(m.RecordsRequest, some(addresses)),
        st.builds(m.NodeListRequest, some(st.integers(0, 127)), some(u64)),
    ),
    PacketType.SWAP_RESPONSE: st.one_of(
        st.builds(
            m.SyncResponse, u64, some(infos), st.booleans(), some(entries), st.booleans(), some(u32), some(u32), u32
        ),
        st.builds(m.MemberList, some(infos), st.booleans(), some(u64)),
        st.builds(m.ListResponse, some(entries), some(st.integers(0, 255))),
        st.builds(m.Documents, some(documents)),
        st.builds(m.Chunk, documents, u64, hashes, u64, st.binary(max_size=99)),
        st.builds(m.NotHere, some(keys)),
        st.builds(m.Announce, some(entries)),
        st.builds(m.Records, some(st.tuples(addresses, records))),
    ),
    PacketType.METADATA: st.one_of(st.builds(m.Documents, some(documents)), st.builds(m.Announce, some(entries))),
    PacketType.RECORD: st.builds(m.RecordRumor, records),
    PacketType.ALERT: st.builds(m.Alerts, some(st.builds(m.Alert, addresses, u32, st.sampled_from(EdgeState)))),
    PacketType.PROBE: st.one_of(
        st.builds(m.Ping, u64, addresses, u32, st.booleans()),
        st.builds(m.Ack, u64),
        st.builds(m.PingRequest, u64, addresses, u32),
        st.builds(m.IndirectAck, u64, sightings),
        st.builds(m.Query, u64, keys),
        st.builds(m.Answer, u64, keys, st.none() | versions, st.just(b"") | hashes),
    ),
}


def header(kind: PacketType = PacketType.HEARTBEAT, **changes: object) -> Header:
    fields: dict = {
        "type": kind,
        "origin": V4,
        "incarnation": 7,
        "sequence": 9,
        "wall_ns": 1_700_000_000_000_000_000,
        "documents_digest": 0x1122334455667788,
        "record_digest": 0x99AABBCCDDEEFF00,
        "flags": 0,
        "key_id": CODEC_ID,
        "ttl": 8,
    }
    return Header(**{**fields, **changes})


@st.composite
def packets(draw: st.DrawFn) -> tuple[Header, m.Message | None]:
    kind = draw(st.sampled_from(PacketType))
    head = header(
        kind,
        origin=draw(addresses),
        incarnation=draw(st.integers(1, 2**32 - 1)),
        sequence=draw(st.integers(1, 2**64 - 1)),
        wall_ns=draw(u64),
        documents_digest=draw(u64),
        record_digest=draw(u64),
        flags=draw(st.integers(0, 255)),
        ttl=draw(st.integers(0, 255)),
    )
    return head, draw(BODIES[kind]) if kind in BODIES else None


def read(codec: NativeCodec, data: bytes) -> tuple[Header, m.Message | None]:
    found = codec.parse(data)
    codec.verify(data, found)
    return found, codec.open(data, found)


def test_layout_is_the_documented_one() -> None:
    data = CODEC.encode(header(), None)
    assert (BLOCK_BYTES, HEADER_BYTES, len(data)) == (64, 88, 88)
    block = (
        "5847" "02" "01" f"{cluster_id('default'):08x}" f"{CODEC_ID:02x}" "00" "1f40" "00000007" "0000000000000009"
        "00000000000000000000ffffc612000b" "17979cfe362a0000" "1122334455667788" "99aabbccddeeff00"
    )  # fmt: skip
    assert data[:64].hex() == block
    keys = Keyring.single("default", KEY).active
    assert data[64:80] == crypto_shorthash_siphashx24(data[:64] + data[84:], keys.mac)
    assert data[80:].hex() == "0800000000000000"


def test_golden_vector() -> None:
    """Whoever changes these bytes changes the wire: raise the wire version and write down how to migrate."""
    data = CODEC.encode(header(PacketType.PROBE), m.Ack(5))
    assert hashlib.sha256(data).hexdigest() == GOLDEN


GOLDEN = "53ea0734d9cac9407ac14afd1794d45c88f689ef09f13d75f19123bf9e1afd60"


def test_two_runs_under_one_block_share_no_key() -> None:
    """A state directory was restored while the clock stood still: even so no two bodies have one key."""
    first, again = (NativeCodec(Keyring.single("default", KEY)) for _ in range(2))
    one, other = (codec.encode(header(PacketType.PROBE), m.Ack(5)) for codec in (first, again))
    assert one[:64] == other[:64] and one[64:80] != other[64:80] and one[88:] != other[88:]
    assert read(again, one)[1] == read(first, other)[1] == m.Ack(5)


@pytest.mark.slow
@given(packets())
def test_what_is_encoded_is_read_back(packet: tuple[Header, m.Message | None]) -> None:
    head, message = packet
    assert read(CODEC, CODEC.encode(head, message)) == packet


@pytest.mark.slow
@given(packets())
def test_relaying_changes_the_relay_area_only(packet: tuple[Header, m.Message | None]) -> None:
    data = CODEC.encode(*packet)
    onward = CODEC.relayed(data)
    if packet[0].ttl == 0:
        assert onward is None
    else:
        assert onward is not None and len(onward) == len(data)
        assert onward[:80] == data[:80] and onward[82:] == data[82:]
        assert onward[80] == data[80] - 1 and onward[81] == 1
        read(CODEC, onward)


@pytest.mark.slow
@given(packets(), st.data())
def test_no_bit_of_block_mac_or_body_can_be_changed(
    packet: tuple[Header, m.Message | None], data: st.DataObject
) -> None:
    original = CODEC.encode(*packet)
    position = data.draw(st.integers(0, len(original) - 1).filter(lambda at: not 80 <= at < 88))
    changed = bytearray(original)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Rejected):
        read(CODEC, bytes(changed))


@given(st.binary(max_size=300))
def test_random_bytes_are_rejected_and_nothing_else(data: bytes) -> None:
    with pytest.raises(Rejected):
        read(CODEC, data)


@pytest.mark.slow
@given(packets(), st.integers(0, 400))
def test_truncated_packets_are_rejected(packet: tuple[Header, m.Message | None], cut: int) -> None:
    data = CODEC.encode(*packet)
    if cut < len(data):
        with pytest.raises(Rejected):
            read(CODEC, data[:cut])


@given(st.sampled_from([kind for kind in PacketType if kind in BODIES]), st.binary(max_size=200))
def test_bodies_of_a_member_gone_mad_are_rejected(kind: PacketType, raw: bytes) -> None:
    """Right key, wrong content: the sender is a member, its message still proves nothing."""
    try:
        bodies.unpack(kind, raw)
    except Rejected as rejected:
        assert rejected.reason == "bad_body"


def test_mutated_bodies_give_a_message_or_a_rejection() -> None:
    rng = random.Random(4)
    document = Document("a/b", Version(1 << 16, V4), b"value", "text", "me", "why", False, Version(1, V4))
    message = m.Chunk(document, 5, bytes(32), 0, b"value")
    good = bodies.pack(message)
    for _ in range(3000):
        raw = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        try:
            bodies.unpack(PacketType.SWAP_RESPONSE, bytes(raw))
        except Rejected:
            pass


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (NativeCodec(Keyring.single("default", with_id("default", CODEC_ID, KEY))), "bad_mac"),
        (NativeCodec(Keyring.single("other", KEY)), "foreign_cluster"),
        (NativeCodec(Keyring.single("default", OTHER_KEY)), "unknown_key"),
    ],
)
def test_strangers_are_told_apart(codec: NativeCodec, reason: str) -> None:
    with pytest.raises(Rejected) as rejected:
        read(codec, CODEC.encode(header(), None))
    assert rejected.value.reason == reason


def test_a_body_under_another_header_is_rejected() -> None:
    one = CODEC.encode(header(PacketType.PROBE), m.Ack(1))
    two = CODEC.encode(header(PacketType.PROBE, sequence=10), m.Ack(1))
    with pytest.raises(Rejected):
        read(CODEC, two[:HEADER_BYTES] + one[HEADER_BYTES:])


def test_a_message_in_the_wrong_packet_type_is_rejected() -> None:
    with pytest.raises(Rejected):
        bodies.unpack(PacketType.PROBE, bodies.pack(m.RecordsRequest(())))


def test_no_secret_is_on_the_wire() -> None:
    data = CODEC.encode(header(PacketType.PROBE), m.Query(1, "a-very-visible-key"))
    assert b"a-very-visible-key" not in data
    assert hashlib.md5(KEY.encode()).hexdigest().encode() not in data


def test_rotation_has_no_gap() -> None:
    """Every step of one node understands the steps before and after it on the others."""
    steps = [
        Keyring.single("default", KEY),
        Keyring("default", [("active", KEY), ("staged", OTHER_KEY)]),
        Keyring("default", [("active", OTHER_KEY), ("retiring", KEY)]),
        Keyring.single("default", OTHER_KEY),
    ]
    for one, two in zip(steps, steps[1:]):
        for sender, receiver in ((one, two), (two, one)):
            packet = NativeCodec(sender).encode(header(PacketType.PROBE), m.Ack(1))
            assert read(NativeCodec(receiver), packet)[1] == m.Ack(1)


def test_an_older_member_reads_what_uses_nothing_new() -> None:
    plain = Document("app/a", Version(1 << 16, V4), b"x")
    expiring = dataclasses.replace(plain, expires=5)
    together = dataclasses.replace(plain, batch=("app/a", "app/b"))
    fields = [len(msgpack.unpackb(bodies.pack(m.Documents((each,))))[1][0]) for each in (plain, expiring, together)]
    assert fields == [8, 9, 10]
    successor = dataclasses.replace(plain, ancestors=(Version(2 << 16, V4), Version(1 << 16, V4)))
    assert bodies.unpack(PacketType.METADATA, bodies.pack(m.Documents((successor,)))) == m.Documents((successor,))


def test_fields_of_a_later_release_are_passed_over() -> None:
    tag, fields = msgpack.unpackb(bodies.pack(m.SyncRequest(1, 2, ())))[0], [1, 2, [], "of a later release"]
    read = bodies.unpack(PacketType.SWAP_REQUEST, msgpack.packb([tag, *fields]))
    assert read == m.SyncRequest(1, 2, ())


def test_hkdf_is_that_of_the_rfc() -> None:
    # RFC 5869, appendix A.1 (two blocks) and A.3 (the first block).
    found = hkdf(b"\x0b" * 22, bytes(range(0x0D)), bytes(range(0xF0, 0xFA)), 42)
    assert found.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert hkdf(b"\x0b" * 22, b"", b"", 32).hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


def test_an_agent_does_not_load_the_openssl_backend() -> None:
    program = "import sys, xdp_gossip.service.daemon; print([name for name in sys.modules if 'cryptography' in name])"
    agent = Path(xdp_gossip.__file__).parent.parent
    found = subprocess.run([sys.executable, "-c", program], cwd=agent, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
