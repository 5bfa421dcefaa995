# SPDX-License-Identifier: MIT
"""Every verdict of both ingress programs, one row each: what was known, what came, what it was taken for."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.bpf import scene
from tests.bpf.harness import (
    HOP_MAC,
    TC_NEXT,
    TC_SHOT,
    XDP_DROP,
    XDP_PASS,
    XDP_REDIRECT,
    Plane,
)
from tests.bpf.scene import TC, XDP, address, known, local, origin, packet, sized, source
from tests.bpf.wire import Wire
from tests.kernel_model import ASK, GONE, NEWS, SUSPECT, Entry
from tests.support.keys import KEY, with_id
from xdp_gossip.core.members.window import ReplayWindow
from xdp_gossip.core.packets import PacketType
from xdp_gossip.dataplane import layout
from xdp_gossip.wire.keys import Keyring, derive
from xdp_gossip.wire.native import NativeCodec

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

SECOND = 1_000_000_000
TICK = SECOND // 100
FOREIGN = NativeCodec(Keyring.single("another", KEY))


def patched(data: bytes, at: int, value: int, size: int = 1) -> bytes:
    """The packet with some bytes replaced."""
    return data[:at] + value.to_bytes(size, "big") + data[at + size :]


def flipped(data: bytes, at: int) -> bytes:
    """The packet with one bit changed. A fixed byte may be what stood there, once in 256 packets."""
    at %= len(data)
    return patched(data, at, data[at] ^ 1)


def grafted(family: int, kind: PacketType) -> bytes:
    """A header with the body of a later packet of the same node and type."""
    return packet(family, kind)[:84] + packet(family, kind, sequence=101)[84:]


def foreign(family: int) -> bytes:
    """A heartbeat of another cluster that has the same secret."""
    return FOREIGN.encode(_header(packet(family)), None)


def _header(data: bytes) -> Any:
    return scene.CODEC.parse(data)


@dataclass(frozen=True)
class Case:
    """``packet`` of ``family`` is delivered; ``node`` is what is known of its origin before. ``counters``: all that
    are expected to move, by one each. ``after`` names fields of the origin's entry that must have changed, to what."""

    name: str
    packet: Callable[[int], bytes]
    counters: tuple[str, ...]
    action: str = "drop"
    event: int | None = None
    node: Callable[[], Entry] | None = known
    config: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    ring: int = 0


def rumor(kind: PacketType = PacketType.HEARTBEAT, **changes: Any) -> Callable[[int], bytes]:
    return lambda family: packet(family, kind, **changes)


def at(seconds: float, kind: PacketType = PacketType.HEARTBEAT) -> Callable[[int], bytes]:
    """A packet whose time is off by so much."""
    return lambda family: packet(family, kind, wall_ns=time.time_ns() + int(seconds * SECOND))


def own(incarnation: int, **changes: Any) -> Callable[[int], bytes]:
    return lambda family: packet(family, origin=local(family), incarnation=incarnation, **changes)


def window(*sequences: int) -> ReplayWindow:
    made = ReplayWindow(64)
    for sequence in sequences:
        made.commit(sequence)
    return made


def nobody() -> None:
    return None


TAKEN = ("take_heartbeat", "relay_alone")
CASES = [
    # Left to the stack.
    Case("no agent ever", rumor(), ("pass_no_agent",), "pass", config={"running": False}),
    Case("lease over", rumor(), ("pass_no_agent",), "pass", config={"lease": 1}),
    Case("longer than a datagram", lambda f: packet(f) + bytes(1232), ("pass_odd",), "pass"),
    Case("swap request", rumor(PacketType.SWAP_REQUEST), ("pass_direct",), "pass"),
    Case("swap response", rumor(PacketType.SWAP_RESPONSE), ("pass_direct",), "pass"),
    Case("probe without body", lambda f: packet(f, PacketType.PROBE)[:104], ("drop_truncated",)),
    Case("probe", rumor(PacketType.PROBE), ("pass_direct",), "pass"),
    Case("probe of a stranger", rumor(PacketType.PROBE), ("pass_direct",), "pass", node=None),
    Case("forged probe", lambda f: flipped(packet(f, PacketType.PROBE), 70), ("drop_bad_mac",)),
    Case("probe, key unknown", lambda f: patched(packet(f, PacketType.PROBE), 8, 9), ("drop_unknown_key",)),
    # Shape.
    Case("empty", lambda f: b"", ("drop_truncated",)),
    Case("a byte short", lambda f: packet(f)[:-1], ("drop_truncated",)),
    Case("a byte long", lambda f: packet(f) + b"\0", ("drop_malformed",)),
    Case("leave, a byte long", lambda f: packet(f, PacketType.LEAVE) + b"\0", ("drop_malformed",)),
    Case("magic", lambda f: patched(packet(f), 0, 0x58), TAKEN),
    Case("other magic", lambda f: patched(packet(f), 0, 0x59), ("drop_malformed",)),
    Case("other version", lambda f: patched(packet(f), 2, 3), ("drop_foreign_version",)),
    Case("other cluster", foreign, ("drop_foreign_cluster",)),
    Case("type 0", lambda f: patched(packet(f), 3, 0), ("drop_malformed",)),
    Case("type 11", lambda f: patched(packet(f), 3, 11), ("drop_malformed",)),
    Case("port 0", lambda f: patched(packet(f), 10, 0, 2), ("drop_malformed",)),
    Case("incarnation 0", rumor(incarnation=0), ("drop_malformed",)),
    Case("sequence 0", rumor(sequence=0), ("drop_malformed",)),
    Case("metadata without body", lambda f: packet(f, PacketType.METADATA)[:104], ("drop_truncated",)),
    Case("version before cluster", lambda f: patched(foreign(f), 2, 9), ("drop_foreign_version",)),
    Case("magic before version", lambda f: patched(patched(packet(f), 2, 9), 0, 0), ("drop_malformed",)),
    # Own.
    Case("own", own(5), ("drop_own",)),
    Case("own, earlier", own(4), ("drop_own",)),
    Case("own, later", own(6), ("ask_own",), event=ASK),
    Case("own, later, forged", lambda f: patched(own(6)(f), 64, 0, 16), ("drop_bad_mac",)),
    Case(
        "own address, other port",
        lambda f: packet(f, origin=address(f, 1, 8001)),
        ("take_heartbeat", "take_newcomer", "news", "relay_alone"),
        event=NEWS,
    ),
    # Seen before.
    Case("same sequence", rumor(sequence=99), ("drop_duplicate",)),
    Case("same sequence, forged", lambda f: flipped(packet(f, sequence=99), 64), ("drop_duplicate",)),
    Case("at the window's end", rumor(sequence=36), TAKEN, after={"highest": 99, "bits": 1 | 1 << 63}),
    Case("beyond the window", rumor(sequence=35), ("drop_duplicate",)),
    Case(
        "within the window, seen",
        rumor(sequence=98),
        ("drop_duplicate",),
        node=lambda: known(window=window(98, 99)),
    ),
    Case("earlier run, forged", lambda f: patched(packet(f, incarnation=6), 64, 0, 16), ("drop_bad_mac",)),
    # Keys.
    Case("forged", lambda f: patched(packet(f), 64, 0, 16), ("drop_bad_mac",)),
    Case("last bit of the MAC", lambda f: flipped(packet(f), 79), ("drop_bad_mac",)),
    Case("digest changed", lambda f: patched(packet(f), 63, 0), ("drop_bad_mac",)),
    Case("salt changed", lambda f: flipped(packet(f, PacketType.METADATA), 84), ("drop_bad_mac",)),
    Case("metadata, body changed", lambda f: flipped(packet(f, PacketType.METADATA), 88), ("drop_bad_mac",)),
    Case("metadata, last bit changed", lambda f: flipped(packet(f, PacketType.METADATA), -1), ("drop_bad_mac",)),
    Case("metadata, another's body", lambda f: grafted(f, PacketType.METADATA), ("drop_bad_mac",)),
    Case("metadata, a body of full length", lambda f: flipped(sized(f, 1232), 1231), ("drop_bad_mac",)),
    Case("metadata, a byte more", lambda f: packet(f, PacketType.METADATA) + b"\0", ("drop_bad_mac",)),
    Case("metadata, a byte less", lambda f: packet(f, PacketType.METADATA)[:-1], ("drop_bad_mac",)),
    Case("node record, another's body", lambda f: grafted(f, PacketType.RECORD), ("drop_bad_mac",)),
    Case("probe, another's body", lambda f: grafted(f, PacketType.PROBE), ("drop_bad_mac",)),
    Case("stranger, body changed", lambda f: flipped(packet(f, PacketType.METADATA), 90), ("drop_bad_mac",), node=None),
    Case("key id 1", lambda f: patched(packet(f), 8, 1), ("drop_unknown_key",)),
    Case("key id 255", lambda f: patched(packet(f), 8, 255), ("drop_unknown_key",)),
    # The agent decides.
    Case("earlier run", rumor(incarnation=6), ("ask_incarnation",), event=ASK),
    Case("gone", rumor(), ("ask_gone",), event=ASK, node=lambda: known(standing=GONE)),
    Case("gone, later run", rumor(incarnation=8), ("ask_gone",), event=ASK, node=lambda: known(standing=GONE)),
    Case("gone, forged", lambda f: patched(packet(f), 64, 0, 9), ("drop_bad_mac",), node=lambda: known(standing=GONE)),
    Case("within the drift", at(59), TAKEN),
    Case("within the drift, past", at(-59), TAKEN),
    Case("future", at(61), ("ask_time",), event=ASK),
    Case("past", at(-61), ("ask_time",), event=ASK),
    Case("suspect, within", at(4), TAKEN, node=lambda: known(standing=SUSPECT)),
    Case("suspect, future", at(6), ("ask_time",), event=ASK, node=lambda: known(standing=SUSPECT)),
    Case("suspect, past", at(-6), ("ask_time",), event=ASK, node=lambda: known(standing=SUSPECT)),
    Case("timeout above drift", at(70), TAKEN, config={"timeout": 80 * SECOND}),
    Case("a clock far off, known", at(500), TAKEN, node=lambda: known(clock=known().clock + 500 * SECOND)),
    Case("a leap to the end of the range", rumor(incarnation=2**32 - 1), ("ask_incarnation",), event=ASK),
    Case("own address, a leap to the end", own(2**32 - 1), ("drop_own",)),
    Case("wall time 0", rumor(wall_ns=0), ("ask_time",), event=ASK),
    Case("wall time at the end", rumor(wall_ns=2**64 - 1), ("ask_time",), event=ASK),
    # Strangers.
    Case("stranger", rumor(), (*TAKEN, "take_newcomer", "news"), event=NEWS, node=None, after={"highest": 100}),
    Case("stranger, a little ahead", at(4), (*TAKEN, "take_newcomer", "news"), event=NEWS, node=None),
    Case("stranger, future", at(6), ("ask_time",), event=ASK, node=None),
    Case("stranger, past", at(-6), ("ask_time",), event=ASK, node=None),
    Case("stranger leaves", rumor(PacketType.LEAVE), ("drop_unknown_leave",), node=None),
    Case("stranger, forged", lambda f: patched(packet(f), 64, 0, 16), ("drop_bad_mac",), node=None),
    Case("stranger, paused", rumor(flags=1), (*TAKEN, "take_newcomer", "news"), event=NEWS, node=None),
    # Taken.
    Case("nothing new", rumor(), TAKEN, after={"highest": 100, "bits": 3}),
    Case("far ahead", rumor(sequence=2**64 - 1), TAKEN, after={"highest": 2**64 - 1, "bits": 1}),
    Case("64 ahead", rumor(sequence=163), TAKEN, after={"highest": 163, "bits": 1}),
    Case("63 ahead", rumor(sequence=162), TAKEN, after={"highest": 162, "bits": 1 | 1 << 63}),
    Case(
        "later run",
        rumor(incarnation=8, sequence=1),
        (*TAKEN, "news"),
        event=NEWS,
        after={"incarnation": 8, "highest": 1, "bits": 1},
    ),
    Case("other record", rumor(record_digest=1), (*TAKEN, "news"), event=NEWS, after={"record_digest": 1}),
    Case("other flags", rumor(flags=2), (*TAKEN, "news"), event=NEWS, after={"flags": 2}),
    Case("paused", rumor(flags=1), (*TAKEN, "news"), event=NEWS, after={"flags": 1, "last_seen": 1}),
    Case("other state", rumor(documents_digest=1), (*TAKEN, "news"), event=NEWS, after={"documents_digest": 1}),
    Case(
        "the local state",
        rumor(),
        TAKEN,
        node=lambda: known(documents_digest=1),
        after={"documents_digest": 0x5D},
    ),
    Case(
        "late, with another record",
        rumor(sequence=98, record_digest=1, documents_digest=1, flags=2),
        TAKEN,
        after={"record_digest": 0xAB, "documents_digest": 0x5D, "flags": 0, "bits": 3},
    ),
    Case("node record", rumor(PacketType.RECORD), ("take_record", "news", "relay_alone"), event=NEWS),
    Case("alert", rumor(PacketType.ALERT), ("take_alert", "news", "relay"), "relay", NEWS, ring=3),
    Case("metadata", rumor(PacketType.METADATA), ("take_metadata", "news", "relay_alone"), event=NEWS),
    Case(
        "leave",
        rumor(PacketType.LEAVE),
        ("take_leave", "news", "relay_alone"),
        event=NEWS,
        after={"standing": GONE, "last_seen": 1},
    ),
    *(
        Case(
            f"metadata of {length} bytes",
            lambda f, length=length: sized(f, length),
            ("take_metadata", "news", "relay"),
            "relay",
            NEWS,
            ring=3,
        )
        for length in (192, 193, 194, 195, 196, 197, 198, 199, 600, 1224, 1225, 1231, 1232)
    ),
    # Relayed.
    Case("relayed", rumor(), ("take_heartbeat", "relay"), "relay", ring=3),
    Case("last hop", rumor(ttl=0), ("take_heartbeat", "relay_ttl"), ring=3),
    Case("last but one", rumor(ttl=1), ("take_heartbeat", "relay"), "relay", ring=3),
    Case("a long way", rumor(ttl=255, hops=255), ("take_heartbeat", "relay"), "relay", ring=3),
]  # fmt: skip


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("program", [XDP, TC])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(plane: Plane, link: Wire, case: Case, program: str, family: int) -> None:
    plane.reset(scene.config(family, **case.config), scene.targets(family, case.ring))
    for target in plane.targets:
        plane.set_hop(target, link.ifindex)
    before = case.node() if case.node else None
    if before:
        plane.set_node(origin(family), before)
    data = case.packet(family)
    link.frames()
    start = scene.earliest_ns()
    ran = scene.deliver(plane, program, data, family, link)

    expected = dict.fromkeys(case.counters, 1)
    if program == TC and case.action == "relay":
        expected["copy"] = case.ring
        if plane_is_wide(data):
            expected["copy_surplus"] = 12 - case.ring
        else:
            expected["copy_surplus"] = 4 - case.ring
    assert plane.counted() == expected
    assert ran.value == action(program, case.action)
    if program == TC:
        check_copies(plane, link.frames(case.ring if case.action == "relay" else 0, rumor=data), case, data)
    check_events(plane, case, data, family, start)
    check_entry(plane, case, before, data, family, start)
    if case.action == "pass":
        assert ran.frame == scene.frames.frame(data, source(family), local(family)), "passed on, but changed"


def check_copies(plane: Plane, found: list[bytes], case: Case, data: bytes) -> None:
    """Each target got one, sound in every respect; nothing was sent if nothing should have been."""
    if case.action != "relay":
        assert not found
        return
    copies = [scene.frames.parse(frame) for frame in found]
    assert sorted(copy.target for copy in copies) == sorted(plane.targets)
    for copy in copies:
        assert copy.sound and copy.hops == 64 and copy.mac_target == HOP_MAC
        assert copy.payload == data[:80] + bytes([data[80] - 1, min(data[81] + 1, 255), 0]) + data[83:]


def plane_is_wide(data: bytes) -> bool:
    return data[3] in (PacketType.METADATA, PacketType.LEAVE, PacketType.ALERT)


def action(program: str, name: str) -> int:
    if program == TC:
        return TC_NEXT if name == "pass" else TC_SHOT
    return {"pass": XDP_PASS, "drop": XDP_DROP, "relay": XDP_REDIRECT}[name]


def check_events(plane: Plane, case: Case, data: bytes, family: int, start: int) -> None:
    """The packet as it came, and from where."""
    found = plane.events()
    assert [event.kind for event in found] == ([case.event] if case.event else [])
    for event in found:
        assert event.packet == data
        assert event.address == source(family)
        assert start <= event.time <= time.monotonic_ns()


def check_entry(plane: Plane, case: Case, before: Entry | None, data: bytes, family: int, start: int) -> None:
    """Changed if, and only if, the packet was taken."""
    found = plane.node(origin(family))
    foreign_origin = (len(data) >= 40 and data[24:40] != origin(family).packed) or data[10:12] != b"\x1f\x40"
    if foreign_origin or not any(name.startswith("take_") for name in case.counters):
        assert (found and vars_of(found)) == (before and vars_of(before))
        return
    assert found is not None
    values = vars_of(found)
    for name, value in case.after.items():
        assert values[name] == value, name
    if not before or values["last_seen"] != before.last_seen:
        assert data[9] & 1 == 0 or found.last_seen == 0
        assert found.last_seen == 0 or start <= found.last_seen <= time.monotonic_ns()
    if "last_seen" not in case.after and not data[9] & 1:
        assert found.last_seen >= start
    if struct.unpack_from("!Q", data, 16)[0] == values["highest"]:
        wall = struct.unpack_from("!Q", data, 40)[0]
        assert start <= wall - found.clock <= time.monotonic_ns()


def vars_of(entry: Entry) -> dict[str, Any]:
    """An entry's fields, its window's among them."""
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__ if name != "window"}
    return {**fields, "highest": entry.window.highest, "bits": entry.window.bits}


@pytest.mark.parametrize("program", [XDP, TC])
def test_what_is_relayed(plane: Plane, link: Wire, program: str) -> None:
    """Test runs do not send an XDP broadcast: what it carries is in the frame that the program leaves."""
    for family in (4, 6):
        plane.reset(scene.config(family), scene.targets(family, 1))
        plane.set_hop(plane.targets[0], link.ifindex)
        plane.set_node(origin(family), known())
        data = patched(packet(family, ttl=4, hops=255), 82, 7)
        link.frames()
        ran = scene.deliver(plane, program, data, family, link)
        if program == XDP:
            found = ran.frame[scene.frames.HEADERS[family] :]
        else:
            (frame,) = link.frames(1)
            found = scene.frames.parse(frame).payload
        assert found == data[:80] + bytes([3, 255, 0]) + data[83:], "ttl one less, hops at its most, fanout cleared"


@pytest.mark.parametrize("program", [XDP, TC])
def test_a_full_ring_buffer_is_counted(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    plane.set_node(origin(4), known())
    room = 256 * 1024 // (8 + 32 + 1232)
    for number in range(room + 20):
        scene.deliver(plane, program, sized(4, 1232, sequence=200 + number), 4)
    counted = plane.counted()
    assert counted["take_metadata"] == counted["news"] == room + 20
    assert counted["news_lost"] >= 20
    assert len(plane.events()) == room + 20 - counted["news_lost"]


def test_a_full_map_of_nodes(plane: Plane) -> None:
    """Newcomers without room go to the agent; those known are still taken."""
    plane.reset(scene.config(4))
    made = 0
    # The kernel keeps a few entries aside for each CPU: not every one of them is there for us.
    for made in range(plane.nodes + 512):
        scene.deliver(plane, XDP, packet(4, origin=address(6, 1, 1 + made)), 4)
        if "ask_full" in (counted := plane.counted()):
            break
        assert counted["take_newcomer"] == 1
        plane.events()
    assert plane.nodes * 0.9 <= made <= plane.nodes + 512
    assert [event.kind for event in plane.events()] == [ASK]
    scene.deliver(plane, XDP, packet(4, origin=address(6, 1, 1), sequence=101), 4)
    assert plane.counted() == {"take_heartbeat": 1, "relay_alone": 1}


def test_a_reset_leaves_nothing_of_the_test_before(plane: Plane) -> None:
    """The programs serve a whole session, and which tests run before one another is nobody's promise."""
    plane.reset(scene.config(4))
    plane.add_key(with_id("default", 255, KEY))
    plane.set_hop(address(4, 9), 1)
    scene.deliver(plane, XDP, patched(packet(4), 8, 7), 4)
    scene.deliver(plane, XDP, packet(4), 4)
    plane.reset(scene.config(4))
    for key_id in {*range(256)} - {derive("default", KEY).id}:
        assert plane.read("keys", struct.pack("=I", key_id), layout.KEY.size) == bytes(layout.KEY.size)
    assert plane.node(scene.origin(4)) is None and plane.hop(address(4, 9)) is None
    assert not plane.refusals() and not plane.counted() and not plane.events()


def test_keys_are_found_by_their_ids(plane: Plane) -> None:
    """Three keys at once, as in a rotation; a key that is removed is unknown."""
    plane.reset(scene.config(4))
    secrets = {key_id: with_id("default", key_id, KEY) for key_id in (0, 7, 255)}
    for secret in secrets.values():
        plane.add_key(secret)
    for key_id, secret in secrets.items():
        codec = NativeCodec(Keyring.single("default", secret))
        data = codec.encode(_header(packet(4, sequence=1000 + key_id)), None)
        scene.deliver(plane, XDP, data, 4)
        assert "take_heartbeat" in plane.counted(), key_id
        wrong = patched(data, 8, 255 - key_id if key_id != 7 else 0)
        scene.deliver(plane, XDP, patched(wrong, 16, 5000, 8), 4)
        assert plane.counted() == {"drop_bad_mac": 1}, key_id
    plane.remove_key(7)
    codec = NativeCodec(Keyring.single("default", secrets[7]))
    scene.deliver(plane, XDP, codec.encode(_header(packet(4, sequence=9000)), None), 4)
    assert plane.counted() == {"drop_unknown_key": 1}
