# SPDX-License-Identifier: MIT
"""The cast of the tests: a local node, an origin, the neighbour that rumors come from, and their packets."""

from __future__ import annotations

import time
from typing import Any

from tests.bpf import frames
from tests.bpf.harness import CODEC, Plane, inside, skb
from tests.bpf.wire import NAMESPACE, Wire
from tests.kernel_model import Config, Entry
from xdp_gossip.core.members.window import ReplayWindow
from xdp_gossip.core.messages import BODILESS, Ack, Alert, Alerts, Documents, Message, RecordRumor
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address, Document, EdgeState, Record, Version
from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.libbpf import RunResult

PORT = 8000
NET = {4: "198.18.60.", 6: "fd00:198:18:60::"}
XDP, TC = "xg_xdp_ingress", "xg_tc_ingress"
#: Newest round of the local node as an observer.
ASKED = 1 << 61


def address(family: int, number: int, port: int = PORT) -> Address:
    """A node of the test network."""
    return Address(f"{NET[family]}{number}" if family == 4 else f"{NET[family]}{number:x}", port)


def local(family: int) -> Address:
    """The node under test."""
    return address(family, 1)


def source(family: int) -> Address:
    """Whom packets come from."""
    return address(family, 2)


def origin(family: int) -> Address:
    """Whose rumors they are."""
    return address(family, 3)


def targets(family: int, count: int) -> list[Address]:
    """Members to relay to."""
    return [address(family, 10 + number) for number in range(count)]


_LIMITS = headers.constants()
_COARSE = 6  # CLOCK_MONOTONIC_COARSE, which Python does not name
_TICK = int(time.clock_getres(_COARSE) * 1e9)


def earliest_ns() -> int:
    """What programs note from here on, where a tick is exact enough for them, is not before this.

    They read the coarse clock once in a tick, and may do so between the count of the tick and the move of the clock:
    so it is up to two ticks behind.
    """
    return time.clock_gettime_ns(_COARSE) - 2 * _TICK


def wait_for_budget(number: int, rumors: int) -> None:
    """Before a round of so many ``rumors`` of one origin: rounds that its budget of a slot cannot hold wait for one."""
    if number % (_LIMITS["XG_RUMOR_LIMIT"] // rumors) == 0:
        time.sleep(2 ** _LIMITS["XG_SLOT_BITS"] / 1e9)


def config(family: int, **changes: Any) -> Config:
    """What the agent wrote. The cluster's time is the machine's."""
    clock = time.time_ns() - time.monotonic_ns()
    fields: dict[str, Any] = {
        "local": local(family),
        "incarnation": 5,
        "clock": clock,
        "documents_digest": 0x5D,
        "asked": ASKED,
        "wall": clock,
        "record_digest": 0xEF,
        "renewed": time.monotonic_ns(),
        "packet_flags": 4,
    }
    return Config(**{**fields, **changes})


def body(kind: PacketType, size: int = 0) -> Message | None:
    """A body of the right type; that of a document may be made larger."""
    if kind in BODILESS:
        return None
    if kind is PacketType.ALERT:
        return Alerts((Alert(address(4, 9), 7, EdgeState.FAILED),))
    if kind is PacketType.RECORD:
        return RecordRumor(Record("name", "data", "1.0.0", "XDP", (0, 1)))
    if kind is PacketType.METADATA:
        version = Version(1 << 16, address(4, 3))
        return Documents((Document("key", version, bytes(size), "text", "", "", False, None),))
    return Ack(7)


def packet(family: int, kind: PacketType = PacketType.HEARTBEAT, size: int = 0, **changes: Any) -> bytes:
    """An authentic packet of the origin, sent now."""
    fields: dict[str, Any] = {
        "type": kind,
        "origin": origin(family),
        "incarnation": 7,
        "sequence": 100,
        "wall_ns": time.time_ns(),
        "documents_digest": 0x5D,
        "record_digest": 0xAB,
        "ttl": 4,
        "hops": 2,
    }
    return CODEC.encode(Header(**{**fields, **changes}), body(kind, size))


def sized(family: int, length: int, **changes: Any) -> bytes:
    """A metadata rumor of exactly ``length`` bytes, at least 185."""
    empty = len(packet(family, PacketType.METADATA, 0, **changes))
    # The length of a longer value takes a byte or two more to write.
    for size in range(max(0, length - empty - 4), length - empty + 1):
        made = packet(family, PacketType.METADATA, size, **changes)
        if len(made) == length:
            return made
    raise ValueError(f"expected a body that makes a packet of {length} bytes, found none")


def known(**changes: Any) -> Entry:
    """The origin as one heartbeat before :func:`packet` left it."""
    window = ReplayWindow(64)
    window.commit(99)
    fields: dict[str, Any] = {
        "incarnation": 7,
        "window": window,
        "last_seen": 1,
        "clock": time.time_ns() - time.monotonic_ns(),
        "documents_digest": 0x5D,
        "record_digest": 0xAB,
    }
    return Entry(**{**fields, **changes})


def deliver(plane: Plane, program: str, payload: bytes, family: int, link: Wire | None = None, **how: Any) -> RunResult:
    """Let a program take a packet from the source."""
    return run(plane, program, frames.frame(payload, source(family), local(family), **how), link)


def run(plane: Plane, program: str, frame: bytes, link: Wire | None = None, **context: int) -> RunResult:
    """Let a program take a frame."""
    if program not in (TC, "xg_tc_egress"):
        return plane.run(program, frame)
    with inside(NAMESPACE):
        return plane.run(program, frame, skb(link.ifindex if link else 0, **context))
