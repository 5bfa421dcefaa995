# SPDX-License-Identifier: MIT
"""PekoNode's wire format: the bytes that Go's encoder makes, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdp_gossip.pekonode.codec import DEFAULT_SIZE, Packet, PekoNodeId, Swap, WireError, decode, encode, secret_digest
from xdp_gossip.pekonode.packet import MAX_STAMP

# Written by Go 1.19's encoding/json from the same values.
FROM_GO = [
    (
        Packet(
            PekoNodeId("198.18.0.11", 8000, "A-server", "A"),
            frozenset({"198.18.0.11:8000"}),
            secret=secret_digest("test_key"),
        ),
        '{"Node":{"Addr":"198.18.0.11","Port":8000,"Name":"A-server","PrivateData":"A"},'
        '"Infected":{"198.18.0.11:8000":true},"Metadata":{"Data":null,"Update":0},"IsUpdate":false,"IsSwap":0,'
        '"SecretKey":"8c32d1183251df9828f929b935ae0419"}',
    ),
    (
        Packet(
            PekoNodeId("fd00::1", 8000, "", "x<y>&z\u2028\u2029"),
            frozenset({"fd00::1:8000", "198.18.0.9:8000", "198.18.0.10:8000"}),
            data=b"\x00\xff\x10a",
            stamp=1653050000123456789,
            is_update=True,
        ),
        '{"Node":{"Addr":"fd00::1","Port":8000,"Name":"","PrivateData":'
        '"x\\u003cy\\u003e\\u0026z\\u2028\\u2029"},"Infected":{"198.18.0.10:8000":true,"198.18.0.9:8000":true,'
        '"fd00::1:8000":true},"Metadata":{"Data":"AP8QYQ==","Update":1653050000123456789},"IsUpdate":true,'
        '"IsSwap":0,"SecretKey":""}',
    ),
    (
        Packet(
            PekoNodeId("0.0.0.0", 65535, 'quote" back\\ nl\n tab\t cr\r nul\0 esc\x1b del\x7f é 节点 😀'),
            data=b"",
            swap=Swap.REQUEST,
        ),
        '{"Node":{"Addr":"0.0.0.0","Port":65535,"Name":"quote\\" back\\\\ nl\\n tab\\t cr\\r nul\\u0000 esc\\u001b '
        'del\x7f é 节点 😀","PrivateData":""},"Infected":{},"Metadata":{"Data":"","Update":0},"IsUpdate":false,'
        '"IsSwap":1,"SecretKey":""}',
    ),
    (
        Packet(PekoNodeId("127.0.0.1", 1, "n"), data=b"v", stamp=MAX_STAMP, swap=Swap.RESPONSE),
        '{"Node":{"Addr":"127.0.0.1","Port":1,"Name":"n","PrivateData":""},"Infected":{},'
        '"Metadata":{"Data":"dg==","Update":9223372036854775807},"IsUpdate":false,"IsSwap":2,"SecretKey":""}',
    ),
]


@pytest.mark.parametrize(("packet", "text"), FROM_GO)
def test_same_bytes_as_go(packet: Packet, text: str) -> None:
    assert encode(packet).decode() == text
    assert decode(text.encode()) == packet


def test_secret_digest() -> None:
    assert secret_digest("") == ""  # PekoNode's New hashes only a key that is set
    assert secret_digest("test_key") == "8c32d1183251df9828f929b935ae0419"


def test_missing_and_null_fields_are_zero_as_in_go() -> None:
    bare = decode(b'{"Node":{"Port":5}}')
    assert bare == Packet(PekoNodeId("", 5))
    nulls = (
        b'{"Node":{"Addr":null,"Port":5,"Name":null,"PrivateData":null},"Infected":null,"Metadata":null,'
        b'"IsUpdate":null,"IsSwap":null,"SecretKey":null}'
    )
    assert decode(nulls) == bare
    assert bare.node.address.ip == "0.0.0.0"  # PekoNode's default address


def test_unknown_fields_are_ignored_and_false_is_not_infected() -> None:
    packet = decode(b'{"Type":1,"Node":{"Addr":"1.2.3.4","Port":5,"Mac":[1]},"Infected":{"a":true,"b":false}}')
    assert packet == Packet(PekoNodeId("1.2.3.4", 5), frozenset({"a"}))


BAD = [
    b"",
    b"x",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"Node":null}',
    b'{"Node":[]}',
    b'{"Node":{}}',
    b'{"Node":{"Port":0}}',
    b'{"Node":{"Port":65536}}',
    b'{"Node":{"Port":5.0}}',
    b'{"Node":{"Port":"5"}}',
    b'{"Node":{"Port":true}}',
    b'{"Node":{"Port":1e999}}',
    b'{"Node":{"Port":NaN}}',
    b'{"Node":{"Port":' + b"9" * 9000 + b"}}",
    b'{"Node":{"Port":5,"Addr":7}}',
    b'{"Node":{"Port":5,"Name":"\\ud800"}}',
    b'{"Node":{"Port":5,"Name":"\xff"}}',
    b'{"Node":{"Port":5},"Infected":[]}',
    b'{"Node":{"Port":5},"Infected":{"a":1}}',
    b'{"Node":{"Port":5},"Infected":{"\\udfff":true}}',
    b'{"Node":{"Port":5},"Metadata":[]}',
    b'{"Node":{"Port":5},"Metadata":{"Data":5}}',
    b'{"Node":{"Port":5},"Metadata":{"Data":"QQ"}}',
    b'{"Node":{"Port":5},"Metadata":{"Data":"Q==="}}',
    b'{"Node":{"Port":5},"Metadata":{"Data":"QQ=Q"}}',
    b'{"Node":{"Port":5},"Metadata":{"Data":"Q*=="}}',
    b'{"Node":{"Port":5},"Metadata":{"Update":-1}}',
    b'{"Node":{"Port":5},"Metadata":{"Update":9223372036854775808}}',
    b'{"Node":{"Port":5},"IsUpdate":1}',
    b'{"Node":{"Port":5},"IsSwap":3}',
    b'{"Node":{"Port":5},"IsSwap":true}',
    b'{"Node":{"Port":5},"SecretKey":5}',
    b'{"Node":{"Port":5}} x',
    b'{"Node":{"Port":5}',
    b'\xef\xbb\xbf{"Node":{"Port":5}}',
    '{"Node":{"Port":5}}'.encode("utf-16"),
    b"[" * 16000,
    b'{"a":' * 3000,
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_malformed(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode(data)
    assert caught.value.reason == "malformed"
    assert len(str(caught.value)) < 400  # an error is a line, not the packet


def test_size_is_what_a_go_node_drops() -> None:
    packet = Packet(PekoNodeId("1.2.3.4", 5))
    data = encode(packet)
    assert decode(data, len(data) + 1) == packet
    with pytest.raises(WireError) as caught:
        decode(data, len(data))
    assert caught.value.reason == "oversized"
    with pytest.raises(WireError):
        decode(b" " * DEFAULT_SIZE)


# Every text that UTF-8 can carry.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
packets = st.builds(
    Packet,
    node=st.builds(PekoNodeId, addr=texts, port=st.integers(1, 65535), name=texts, private_data=texts),
    infected=st.frozensets(texts, max_size=8),
    data=st.none() | st.binary(max_size=200),
    stamp=st.integers(0, MAX_STAMP),
    is_update=st.booleans(),
    swap=st.sampled_from(Swap),
    secret=texts,
)


@given(packets)
def test_round_trip(packet: Packet) -> None:
    data = encode(packet)
    assert decode(data, 65536) == packet
    assert b"<" not in data and b">" not in data and b"&" not in data
    assert json.loads(data)["Infected"] == dict.fromkeys(packet.infected, True)


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        packet = decode(data)
    except WireError:
        return
    assert decode(encode(packet)) == packet


@pytest.mark.slow
@settings(max_examples=500)
@given(packets, st.data())
def test_damaged_packets_decode_or_are_refused(packet: Packet, data: st.DataObject) -> None:
    raw = bytearray(encode(packet))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    try:
        decoded = decode(bytes(raw))
    except WireError:
        return
    assert decode(encode(decoded), 65536) == decoded
