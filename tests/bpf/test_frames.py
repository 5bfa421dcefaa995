# SPDX-License-Identifier: MIT
"""Which frames are the agent's, which are anybody else's, and which are left to the stack as odd."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import TC_NEXT, XDP_PASS, Plane
from tests.bpf.scene import TC, XDP, address, known, local, origin, packet, source
from tests.bpf.wire import Wire
from xdp_gossip.core.types import Address

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

MORE, HALFWAY = 0x2000, 0x0010
DONT = 0x4000
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60


def datagram(family: int, to: Address | None = None, **how: object) -> bytes:
    return frames.udp(packet(family), source(family), to or local(family), **how)  # type: ignore[arg-type]


def four(inner: bytes, to: Address | None = None, **how: object) -> bytes:
    return frames.ethernet(frames.ipv4(source(4), to or local(4), inner, **how), frames.ETH_IPV4)  # type: ignore[arg-type]


def six(inner: bytes, to: Address | None = None, **how: object) -> bytes:
    return frames.ethernet(frames.ipv6(source(6), to or local(6), inner, **how), frames.ETH_IPV6)  # type: ignore[arg-type]


def extended(kind: int, then: int = frames.UDP, size: int = 8, further: Sequence[int] = ()) -> bytes:
    """IPv6 with an extension header and, maybe, ``further`` ones; ``then`` follows."""
    chain = b""
    for this, following in zip((kind, *further), (*further, then)):
        chain += bytes([following, 0 if this == FRAGMENT else size // 8 - 1]).ljust(size, b"\0")
    return six(chain + datagram(6), following=kind)


@dataclass(frozen=True)
class Case:
    """``frame`` comes to a node with an address of ``family``; ``counter`` is what moves, if anything."""

    name: str
    family: int
    frame: Callable[[], bytes]
    counter: str | None = None


TAKEN = "take_heartbeat"
ODD = "pass_odd"
CASES = [
    Case("IPv4", 4, lambda: four(datagram(4)), TAKEN),
    Case("IPv4, DF", 4, lambda: four(datagram(4), fragment=DONT), TAKEN),
    Case("IPv4, half a checksum", 4, lambda: four(datagram(4, checksum="partial")), TAKEN),
    Case("IPv4, no checksum", 4, lambda: four(datagram(4, checksum="none")), TAKEN),
    Case("IPv4, trailer", 4, lambda: four(datagram(4)) + bytes(9), TAKEN),
    Case("IPv4, other address", 4, lambda: four(datagram(4), to=address(4, 9))),
    Case("IPv4, broadcast", 4, lambda: four(datagram(4), to=Address("255.255.255.255", 8000))),
    Case("IPv4, other port", 4, lambda: four(datagram(4, to=address(4, 1, 8001)))),
    Case("IPv4, TCP", 4, lambda: _patch(four(datagram(4)), 23, 6)),
    Case("IPv4, options", 4, lambda: four(datagram(4), options=bytes(4)), ODD),
    Case("IPv4, most options", 4, lambda: four(datagram(4), options=bytes(40)), ODD),
    Case("IPv4, options, other port", 4, lambda: four(datagram(4, to=address(4, 1, 8001)), options=bytes(8))),
    Case("IPv4, options, other address", 4, lambda: four(datagram(4), to=address(4, 9), options=bytes(8))),
    Case("IPv4, first fragment", 4, lambda: four(datagram(4), fragment=MORE), ODD),
    Case("IPv4, later fragment", 4, lambda: four(datagram(4), fragment=MORE | HALFWAY)),
    Case("IPv4, last fragment", 4, lambda: four(datagram(4), fragment=HALFWAY)),
    Case("IPv4, header too short", 4, lambda: _patch(four(datagram(4)), 14, 0x44)),
    Case("IPv4, UDP longer than IP", 4, lambda: four(datagram(4, length=97)), ODD),
    Case("IPv4, UDP shorter than IP", 4, lambda: four(datagram(4, length=95)), ODD),
    Case("IPv4, UDP shorter than its header", 4, lambda: four(datagram(4, length=7)), ODD),
    Case("IPv4, cut off", 4, lambda: four(datagram(4))[:-1], ODD),
    Case("IPv4, cut off in UDP's header", 4, lambda: four(datagram(4))[:41]),
    Case("IPv4, cut off in IP's header", 4, lambda: four(datagram(4))[:33]),
    Case("IPv4, IP shorter than its header", 4, lambda: _patch(four(datagram(4)), 16, 0, 10), ODD),
    Case("IPv4 in a VLAN", 4, lambda: _vlan(four(datagram(4)))),
    Case("IPv4, IPv6 node", 6, lambda: four(datagram(4))),
    Case("IPv4, IPv6 node with an address alike", 0, lambda: four(datagram(4))),
    Case("ARP", 4, lambda: _patch(four(datagram(4)), 12, 0x08, 0x06)),
    Case("IPv6", 6, lambda: six(datagram(6)), TAKEN),
    Case("IPv6, half a checksum", 6, lambda: six(datagram(6, checksum="partial")), TAKEN),
    Case("IPv6, trailer", 6, lambda: six(datagram(6)) + bytes(9), TAKEN),
    Case("IPv6, other address", 6, lambda: six(datagram(6), to=address(6, 9))),
    Case("IPv6, one bit of the address", 6, lambda: six(datagram(6), to=Address("fd00:198:18:60::8000:1", 8000))),
    Case("IPv6, first bit of the address", 6, lambda: six(datagram(6), to=Address("7d00:198:18:60::1", 8000))),
    Case("IPv6, other port", 6, lambda: six(datagram(6, to=address(6, 1, 8001)))),
    Case("IPv6, TCP", 6, lambda: _patch(six(datagram(6)), 20, 6)),
    Case("IPv6, hop-by-hop", 6, lambda: extended(HOP_BY_HOP), ODD),
    Case("IPv6, routing", 6, lambda: extended(ROUTING, size=24), ODD),
    Case("IPv6, options", 6, lambda: extended(OPTIONS, size=64), ODD),
    Case("IPv6, fragment", 6, lambda: extended(FRAGMENT), ODD),
    Case("IPv6, two extensions", 6, lambda: extended(HOP_BY_HOP, further=[OPTIONS]), ODD),
    Case("IPv6, options in a fragment", 6, lambda: extended(FRAGMENT, further=[OPTIONS]), ODD),
    Case("IPv6, six extensions", 6, lambda: extended(OPTIONS, further=[OPTIONS] * 5), ODD),
    Case("IPv6, more than anybody needs", 6, lambda: extended(OPTIONS, further=[OPTIONS] * 6), ODD),
    Case("IPv6, two extensions and TCP", 6, lambda: extended(HOP_BY_HOP, then=6, further=[OPTIONS])),
    Case("IPv6, fragment of TCP", 6, lambda: extended(FRAGMENT, then=6)),
    Case("IPv6, authentication", 6, lambda: extended(AUTHENTICATION)),
    Case("IPv6, extension cut off", 6, lambda: extended(OPTIONS)[:55]),
    Case("IPv6, options, UDP cut off", 6, lambda: extended(OPTIONS)[:69]),
    Case("IPv6, UDP longer than IP", 6, lambda: six(datagram(6, length=97)), ODD),
    Case("IPv6, UDP shorter than its header", 6, lambda: six(datagram(6, length=7)), ODD),
    Case("IPv6, cut off", 6, lambda: six(datagram(6))[:-1], ODD),
    Case("IPv6, cut off in IP's header", 6, lambda: six(datagram(6))[:53]),
    Case("IPv6 in a VLAN", 6, lambda: _vlan(six(datagram(6)))),
    Case("IPv6, IPv4 node", 4, lambda: six(datagram(6))),
    Case("a runt", 4, lambda: bytes(14)),
]


def _patch(frame: bytes, at: int, *values: int) -> bytes:
    return frame[:at] + bytes(values) + frame[at + len(values) :]


def _vlan(frame: bytes) -> bytes:
    return frame[:12] + struct.pack("!HH", frames.ETH_VLAN, 5) + frame[12:]


@pytest.mark.parametrize("program", [XDP, TC])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frame(plane: Plane, link: Wire, case: Case, program: str) -> None:
    family = case.family or 6
    # An IPv6 address whose last four bytes are those of the IPv4 frame's.
    here = scene.config(family) if case.family else scene.config(6, local=Address("fd00::c612:3c01", 8000))
    plane.reset(here)
    plane.set_node(origin(family), known())
    frame = case.frame()
    try:
        ran = scene.run(plane, program, frame, link)
    except OSError as error:
        pytest.skip(f"the kernel makes no skb of such a frame: {error}")
    counted = plane.counted()
    if case.counter == TAKEN:
        assert counted == {TAKEN: 1, "relay_alone": 1}
        return
    assert ran.value == (XDP_PASS if program == XDP else TC_NEXT)
    assert ran.frame == frame, "passed on, but changed"
    assert counted == ({case.counter: 1} if case.counter else {})
    assert not plane.events()


def test_a_frame_that_stands_for_many(plane: Plane, link: Wire) -> None:
    """A GSO skb is several datagrams in one; only the stack can take them apart."""
    plane.reset(scene.config(4))
    plane.set_node(origin(4), known())
    ran = scene.run(plane, TC, four(datagram(4)), link, gso_size=88)
    assert ran.value == TC_NEXT
    assert plane.counted() == {"pass_odd": 1}
