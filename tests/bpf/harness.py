# SPDX-License-Identifier: MIT
"""The programs, compiled once and run packet by packet with BPF_PROG_TEST_RUN, and their maps.

They are loaded as on a host without a compiler: from the bytes of a program container.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel_model import Acknowledged, Config, Entry
from tests.support.keys import KEY
from xdp_gossip.core.allowlist import AllowList
from xdp_gossip.core.members.window import ReplayWindow
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane import headers, layout, libbpf
from xdp_gossip.dataplane.libbpf.binding import SAMPLE
from xdp_gossip.dataplane.loader import compile, container
from xdp_gossip.dataplane.loader.loading import Programs
from xdp_gossip.dataplane.loader.programs import MAIN, SOURCES
from xdp_gossip.wire.keys import Keyring, cluster_id, derive
from xdp_gossip.wire.native import NativeCodec

SECRET = KEY
KEYRING = Keyring.single("default", SECRET)
CODEC = NativeCodec(KEYRING)
#: enum xdp_action, and TC's.
XDP_DROP, XDP_PASS, XDP_REDIRECT = 1, 2, 4
TC_NEXT, TC_SHOT, TC_REDIRECT = 0xFFFFFFFF, 2, 7
#: Of next hops that tests write.
HOP_MAC = bytes.fromhex("020000000077")
#: Room for origins in the programs under test.
NODES = 4096
TEXT = Path(__file__).with_name("extra.c")
#: The programs in it.
_TEST_PROGRAMS = dict.fromkeys(("test_siphash", "test_xdp_egress", "test_xdp_nothing"), "XDP")

_RUNNING, _GENERIC, _ALLOW = 1, 2, 4
_EVERYBODY = AllowList()
#: ``struct __sk_buff``: its size, and what a test may say of a frame.
_SKB_BYTES, _SKB_MARK, _SKB_IFINDEX, _SKB_GSO_SIZE = 192, 8, 40, 176


@dataclass(frozen=True)
class Event:
    """``struct xg_event`` and the packet after it."""

    kind: int
    address: Address
    packet: bytes
    time: int


class Plane:
    """The compiled programs. ``programs`` are loaded at their first use; maps are written in the model's terms."""

    def __init__(self, nodes: int = NODES) -> None:
        copies, layout_number = headers.constants()["XG_COPIES"], headers.constants()["XG_LAYOUT"]
        part = compile.part(MAIN, extra=TEXT.read_text(), programs={**SOURCES[MAIN], **_TEST_PROGRAMS})
        built = container.Container(headers.sources_digest(), layout_number, compile.compiler(), (part,))
        loaded = container.parse(container.pack(built)).part(MAIN)
        assert loaded == part
        sizes = {"nodes": nodes}
        self._specs = {spec.name: spec for spec in part.maps}
        self._programs = Programs(part, built.compiler, {"amount": copies, "wide": copies}, sizes)
        self._ring: Any = None
        self._events: list[Event] = []
        self.nodes = nodes
        self.targets: list[Address] = []

    @functools.cache  # noqa: B019 - there is one for a session
    def program(self, name: str) -> int:
        """Descriptor of a program, by the name of its function."""
        return self._programs.load(name)

    def watch(self) -> int:
        """Attach xg_watch to the flushes of device queues, until the returned descriptor is closed."""
        return libbpf.tracepoint_open("xdp_devmap_xmit", self.program("xg_watch"))

    def run(self, name: str, frame: bytes, context: bytes = b"", repeat: int = 1) -> libbpf.RunResult:
        """Run a program on a frame. ``context``: ``struct __sk_buff`` for TC. Raises ``OSError``."""
        return libbpf.run(self.program(name), frame, context=context, repeat=repeat)

    def map(self, name: str) -> int:
        """Descriptor of a map."""
        return self._programs.map(name)

    def keys(self, name: str) -> list[bytes]:
        """All keys of a map."""
        spec = self._specs[name]
        return libbpf.keys(self.map(name), spec.key, spec.entries or self.nodes)

    def write(self, name: str, key: bytes, value: bytes) -> None:
        """One entry of a map. Raises ``OSError``."""
        libbpf.update(self.map(name), key, value)

    def read(self, name: str, key: bytes, size: int) -> bytes | None:
        """One entry of a map of values of ``size`` bytes, None if there is none."""
        try:
            return libbpf.lookup(self.map(name), key, size)
        except FileNotFoundError:
            return None

    def delete(self, name: str, key: bytes) -> None:
        """Remove an entry of a map if it is there."""
        libbpf.delete(self.map(name), key)

    def reset(self, config: Config, targets: Sequence[Address] = (), generic: bool = False) -> None:
        """As if just loaded, with one key; counters and events as of now."""
        for name in ("nodes", "directs", "askers", "acks", "nexthops", "refusals", "allow"):
            for key in self.keys(name):
                self.delete(name, key)
        scratch = (self._specs["scratch"].value + 7) // 8 * 8 * libbpf.processors()
        self.write("scratch", bytes(4), bytes(scratch))
        # Where answers go; any interface will do, as a test run sends nothing.
        self.write("relay", bytes(4), struct.pack("=Ii", 1, self.program("xg_xdp_egress")))
        for key_id in range(256):
            self.remove_key(key_id)
        self.add_key(SECRET)
        self.configure(config, targets, generic)
        self.events()
        self._before = self._counters()
        self.due = 0

    def configure(
        self, config: Config, targets: Sequence[Address] = (), generic: bool = False, allow: AllowList = _EVERYBODY
    ) -> None:
        """Write the configuration and the ring.

        ``generic``: the XDP program is attached in generic mode. ``allow``: beside what the map has.
        """
        for network, admitted in allow.entries().items():
            self.write("allow", layout.ALLOW_KEY.pack(*network), bytes([admitted]))
        self.targets = list(targets)
        for index, target in enumerate(targets):
            value = layout.TARGET.pack(target.packed, target.port.to_bytes(2, "big"))
            self.write("targets", struct.pack("=I", index), value)
        value = layout.CONFIG.pack(
            config.local.packed,
            config.local.port.to_bytes(2, "big"),
            config.amount,
            config.wide,
            (_RUNNING if config.running else 0) | (_GENERIC if generic else 0) | (_ALLOW if allow else 0),
            cluster_id(KEYRING.cluster).to_bytes(4, "big"),
            config.incarnation,
            config.documents_digest,
            config.lease,
            config.clock,
            config.timeout,
            config.max_clock_drift,
            0,
            len(targets),
            config.asked,
            config.wall,
            config.record_digest,
            config.renewed,
            config.key_id,
            config.packet_flags,
        )
        self.write("config", bytes(4), value)

    def add_key(self, secret: str) -> None:
        """Write the key of a secret, under its id."""
        key = derive("default", secret)
        self.write("keys", struct.pack("=I", key.id), layout.KEY.pack(1, key.mac))

    def remove_key(self, key_id: int) -> None:
        """Empty the entry of an id."""
        self.write("keys", struct.pack("=I", key_id), bytes(layout.KEY.size))

    def set_node(self, address: Address, entry: Entry, rumors: int = 0, slot: int = 0) -> None:
        """Write what is recorded of an origin. ``rumors``: taken in that ``slot`` of time."""
        value = layout.NODE.pack(
            0,
            entry.incarnation,
            entry.window.highest,
            entry.window.bits,
            entry.last_seen,
            entry.clock,
            entry.documents_digest,
            entry.record_digest,
            entry.standing,
            entry.flags,
            rumors,
            slot,
        )
        self.write("nodes", layout.node_key(address), value)

    def node(self, address: Address) -> Entry | None:
        """What is recorded of an origin."""
        value = self.read("nodes", layout.node_key(address), layout.NODE.size)
        if value is None:
            return None
        _, incarnation, highest, bits, last_seen, clock, state, record, *last, _, _ = layout.NODE.unpack(value)
        window = ReplayWindow(64)
        window.merge(highest, bits)
        return Entry(incarnation, window, last_seen, clock, state, record, *last)

    def set_asker(self, address: Address, incarnation: int, newest: int, answered: int = 0, slot: int = 0) -> None:
        """Write what is recorded of a node's edge probes. ``answered``: in that ``slot`` of time."""
        self.write("askers", layout.node_key(address), layout.ASKER.pack(incarnation, slot, answered, newest))

    def asker(self, address: Address) -> tuple[int, int] | None:
        """Incarnation and newest answered round of a node's edge probes."""
        value = self.read("askers", layout.node_key(address), layout.ASKER.size)
        if value is None:
            return None
        incarnation, _, _, newest = layout.ASKER.unpack(value)
        return incarnation, newest

    def ack(self, address: Address) -> Acknowledged | None:
        """What is recorded of a node's edge acknowledgements."""
        value = self.read("acks", layout.node_key(address), layout.ACK.size)
        return Acknowledged(*layout.ACK.unpack(value)) if value else None

    def set_hop(self, target: Address, ifindex: int, age: float = 0.0, mac: bytes = HOP_MAC) -> None:
        """A next hop learnt ``age`` seconds ago."""
        learnt = time.monotonic_ns() - int(age * 1e9)
        self.write("nexthops", target.packed, layout.NEXTHOP.pack(mac, b"\x02\0\0\0\0\x01", ifindex, learnt))

    def hop(self, target: Address) -> tuple[Any, ...] | None:
        """dst, src, ifindex, learnt."""
        value = self.read("nexthops", target.packed, layout.NEXTHOP.size)
        return layout.NEXTHOP.unpack(value) if value else None

    def refusals(self) -> dict[tuple[str, str], int]:
        """Source IP and verdict of refused packets -> samples; what the map holds is removed."""
        names = list(headers.counters())
        found = {}
        for key in self.keys("refusals"):
            packed, verdict, _ = layout.REFUSAL_KEY.unpack(key)
            value = libbpf.lookup(self.map("refusals"), key, layout.REFUSAL.size)
            found[Address.unpack(packed, 1).ip, names[verdict]] = layout.REFUSAL.unpack(value)[0]
            self.delete("refusals", key)
        return found

    def counted(self) -> Mapping[str, int]:
        """What was counted since the last call or reset; only what is not 0. ``copy_due`` goes into ``due``."""
        now = self._counters()
        before, self._before = self._before, now
        found = {name: n - m for name, n, m in zip(headers.counters(), now, before) if n != m}
        self.due += found.pop("copy_due", 0)
        return found

    def events(self) -> list[Event]:
        """What came through the ring buffer since the last call."""
        if self._ring is None:
            self._callback = SAMPLE(self._take)
            self._ring = libbpf.library().ring_buffer__new(self.map("events"), self._callback, None, None)
            assert self._ring, os.strerror(ctypes.get_errno())
        consumed = libbpf.library().ring_buffer__consume(self._ring)
        assert consumed >= 0, os.strerror(-consumed)
        found, self._events = self._events, []
        return found

    def _take(self, _context: object, data: int, size: int) -> int:
        raw = ctypes.string_at(data, size)
        at, packed, port, length, kind = layout.EVENT.unpack_from(raw)
        assert len(raw) == layout.EVENT.size + length, "an event of another length than it says"
        address = Address.unpack(packed, int.from_bytes(port, "big"))
        self._events.append(Event(kind, address, raw[layout.EVENT.size :], at))
        return 0

    def _counters(self) -> list[int]:
        """Sums over all CPUs, in one call."""
        names, cpus = len(headers.counters()), libbpf.processors()
        keys, values = (ctypes.c_uint32 * names)(), (ctypes.c_uint64 * (names * cpus))()
        count, batch = ctypes.c_uint32(names), ctypes.c_uint32()
        libbpf.library().bpf_map_lookup_batch(
            self.map("counters"), None, ctypes.byref(batch), keys, values, ctypes.byref(count), None
        )
        assert count.value == names, f"expected {names} counters, read {count.value}"
        return [sum(values[at * cpus : (at + 1) * cpus]) for at in range(names)]


def skb(ifindex: int = 0, mark: int = 0, gso_size: int = 0) -> bytes:
    """What a test run tells a TC program of its frame."""
    context = bytearray(_SKB_BYTES)
    for at, value in ((_SKB_MARK, mark), (_SKB_IFINDEX, ifindex), (_SKB_GSO_SIZE, gso_size)):
        struct.pack_into("=I", context, at, value)
    return bytes(context)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread, in a named network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        if libc.setns(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"network namespace {namespace}: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.setns(home.fileno(), 0)
