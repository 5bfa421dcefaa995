# SPDX-License-Identifier: MIT
"""Framing alone: packets survive any cut of the stream, and a stream that is none ends at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdp_gossip.transport.frames import FrameDecoder, FrameError, encode


def drain(decoder: FrameDecoder) -> list[bytes]:
    packets = []
    while (packet := decoder.take()) is not None:
        packets.append(packet)
    return packets


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=12), st.lists(st.integers(1, 9), min_size=1))
def test_packets_survive_any_cut(packets: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(encode(packet) for packet in packets)
    decoder = FrameDecoder(40)
    got, at, turn = [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        decoder.feed(stream[at : at + size])
        got += drain(decoder)
        at, turn = at + size, turn + 1
    assert got == packets
    assert not decoder.partial


@given(st.binary(max_size=300))
def test_garbage_is_frames_or_an_error(garbage: bytes) -> None:
    decoder = FrameDecoder(64)
    decoder.feed(garbage)
    try:
        packets = drain(decoder)
    except FrameError as error:
        assert "expected 1 to 64" in str(error)
    else:
        assert garbage.startswith(b"".join(encode(packet) for packet in packets))


@pytest.mark.parametrize("length", [0, 65, 2**32 - 1])
def test_a_length_outside_the_limit_ends_the_stream(length: int) -> None:
    decoder = FrameDecoder(64)
    decoder.feed(length.to_bytes(4, "big"))
    with pytest.raises(FrameError, match=f"expected 1 to 64, got {length}"):
        decoder.take()


def test_an_empty_packet_is_no_frame() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        encode(b"")
