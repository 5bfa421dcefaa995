# SPDX-License-Identifier: MIT
"""The agent's side of the kernel data plane, as far as it goes without a kernel: tests/planes has the rest."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.keys import KEY
from tests.support.ports import free_port
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import Rumor, Standing, Transmit
from xdp_gossip.core.kernel_view import Observation
from xdp_gossip.core.members.window import ReplayWindow
from xdp_gossip.core.observers.edges import Acknowledgement
from xdp_gossip.core.packets import FLAG_CATCHING_UP, FLAG_PAUSED, FLAG_UNSTORED
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import Address, Node, Now
from xdp_gossip.dataplane import headers, layout, libbpf, maps
from xdp_gossip.dataplane.interfaces import Facts
from xdp_gossip.dataplane.libbpf import binding
from xdp_gossip.dataplane.maps import Config, Loaded, PlaneError
from xdp_gossip.dataplane.steering import LEASE_SECONDS, LOOK_EVERY, Steering
from xdp_gossip.dataplane.transport import KernelTransport, _arrival
from xdp_gossip.nodelist import AsyncNodeList
from xdp_gossip.transport import TransportError
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

OWN = Address("127.0.0.1", 0)
PEERS = [Address("127.0.0.1", port) for port in range(20_001, 20_009)]
STATE = {
    "layout": headers.constants()["XG_LAYOUT"],
    "mode": "XDP (native)",
    "interface": "eth0",
    "ifindex": 1,
    "amount": 4,
    "wide": 12,
    "complete": True,
    "reasons": [],
}


def at(mono: float) -> Now:
    """A moment on both clocks."""
    return Now(mono, int(mono * 1e9) + 10**18)


def test_the_origin_of_the_programs_is_read(tmp_path: Path) -> None:
    for state, told in (({}, ""), ({"container": "ab12"}, "ab12")):
        (tmp_path / "state.json").write_text(json.dumps({**STATE, **state}))
        assert Loaded.read(tmp_path, "auto").container == told


# -- what the loader wrote down --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "protocol", "expected"),
    [
        ({"layout": 99}, "auto", "has layout 99, this agent's is"),
        ({"complete": False}, "auto", "not complete"),
        ({"waiting": "eth0 is down"}, "auto", "the loader waits: eth0 is down"),
        ({"mode": "", "reasons": [{"mode": "TC", "reason": "too old"}]}, "auto", "works here: TC: too old"),
        ({"mode": "TC"}, "XDP", "up in mode TC, not in one of protocol XDP"),
        ({}, "TC", "up in mode XDP (native), not in one of protocol TC"),
        ({"mode": "UDP"}, "auto", "up in mode UDP"),
        ({"interface": None, "reasons": 5}, "auto", "not understood"),
    ],
)
def test_a_plane_that_cannot_be_used_says_why(
    tmp_path: Path, change: dict[str, Any], protocol: str, expected: str
) -> None:
    (tmp_path / "state.json").write_text(json.dumps({**STATE, **change}))
    with pytest.raises(PlaneError) as caught:
        Loaded.read(tmp_path, protocol)
    assert expected in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [(None, "no kernel data plane is loaded"), ("{", "not understood")])
def test_no_state_and_half_a_state(tmp_path: Path, text: str | None, expected: str) -> None:
    if text is not None:
        (tmp_path / "state.json").write_text(text)
    with pytest.raises(PlaneError, match=expected):
        Loaded.read(tmp_path, "auto")


def test_what_was_stepped_over_is_the_reason(tmp_path: Path) -> None:
    reasons = [{"mode": "XDP (native)", "reason": "MTU 9000", "remedy": ""}, {"mode": "XDP (generic)", "reason": "b"}]
    (tmp_path / "state.json").write_text(json.dumps({**STATE, "mode": "TC", "reasons": reasons, "unknown": 1}))
    loaded = Loaded.read(tmp_path, "auto")
    assert (loaded.mode, loaded.reason) == ("TC", "XDP (native): MTU 9000; XDP (generic): b")


def test_pins_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlaneError, match=r"bpf/v\d+/config.*dataplane up"):
        maps.DataPlane(tmp_path, Loaded("TC", "eth0", 1, 4, 12, ""), OWN, 0, 4, 12)


# -- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opened", [lambda path: libbpf.Map(path, 4, 4), libbpf.RingBuffer])
def test_a_host_without_libbpf_is_told_what_to_install(
    opened: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "NAMES", ("libnothing.so.9",))
    libbpf.library.cache_clear()
    try:
        with pytest.raises(libbpf.LibraryMissing, match=r"libnothing\.so\.9: not found; install libbpf1"):
            opened(tmp_path / "nodes")
    finally:
        libbpf.library.cache_clear()


def test_two_windows_of_one_run_are_merged_as_the_engine_does_it() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        windows = []
        for _ in range(2):
            window = ReplayWindow(64)
            for _ in range(rng.randrange(6)):
                window.commit(rng.randrange(1, rng.choice((10, 100, 1 << 40))))
            windows.append(window)
        first, second = windows
        merged = maps._merge(first.highest, first.bits, second.highest, second.bits)
        first.merge(second.highest, second.bits)
        assert merged == (first.highest, first.bits)


# -- the transport ---------------------------------------------------------------------------------------------


class FakePlane:
    """Records what is written; holds what is read."""

    def __init__(self) -> None:
        self.loaded = Loaded("XDP (native)", "lo", 1, 4, 12, "")
        self.mode = self.loaded.mode
        self.ring_size = 0
        self.here = True
        self.closed = False
        self.failing: OSError | None = None
        self.counts = {"fanout": 0, "news_lost": 0, "drop_unknown_key": 0}
        self.targets: list[list[Address]] = []
        self.configs: list[Config] = []
        self.held: list[Standing] = []
        self.rows: list[Observation] = []
        self.acknowledged: list[Acknowledgement] = []
        self.observed = self.read = 0
        self._reader, self._writer = socket.socketpair()
        self.events_fd = self._reader.fileno()

    def counter(self, name: str) -> int:
        return self.counts[name]

    def counters(self) -> dict[str, int]:
        return dict(self.counts)

    def there(self) -> bool:
        return self.here

    def observations(self, now: Now) -> list[Observation]:
        if self.failing:
            raise self.failing
        self.observed += 1
        return self.rows

    def acknowledgements(self, now: Now) -> list[Acknowledgement]:
        if self.failing:
            raise self.failing
        self.read += 1
        return self.acknowledged

    def write_targets(self, targets: list[Address]) -> None:
        self.targets.append(targets)
        self.ring_size = len(targets)

    def write_config(self, config: Config) -> None:
        if self.failing:
            raise self.failing
        self.configs.append(config)

    def apply(self, standing: Standing, now: Now) -> bool:
        self.held.append(standing)
        return len(self.held) < 50

    def close(self) -> None:
        self.closed = True
        self._reader.close()
        self._writer.close()


def with_transport(work: Callable[[KernelTransport, FakePlane, list[Any]], None]) -> None:
    """Run ``work`` with an open transport on loopback, a fake plane that is not in use yet, and what was received."""

    async def run() -> None:
        got: list[Any] = []
        transport = KernelTransport(("127.0.0.1", 0), OWN)
        await transport.open(lambda data, source, screened=False: got.append((data, source, screened)))
        plane = FakePlane()
        try:
            work(transport, plane, got)
        finally:
            plane.close()
            await transport.close()

    asyncio.run(run())


def event(kind: int, packet: bytes, length: int | None = None, source: Address = PEERS[0]) -> bytes:
    """A record of the ring buffer."""
    size = len(packet) if length is None else length
    return layout.EVENT.pack(1, source.packed, source.port.to_bytes(2, "big"), size, kind) + packet


def test_records_of_the_ring_buffer() -> None:
    def work(transport: KernelTransport, plane: FakePlane, got: list[Any]) -> None:
        sent: list[Transmit] = []
        transport.send = sent.append  # type: ignore[method-assign]
        # The ring buffer rounds records up: what follows the packet is not part of it.
        transport._take(event(1, b"news") + b"padding")
        transport._take(event(2, b"ask"))
        transport._take(event(3, b"to be sent"))
        assert got == [(b"news", PEERS[0], True), (b"ask", PEERS[0], False)]
        assert sent == [Transmit(PEERS[0], b"to be sent")]
        for bad in (b"", event(1, b"")[:-1], event(4, b"x"), event(1, b"short", 6), event(2, b"x", None, OWN)):
            transport._take(bad)
        counters = transport.counters
        assert counters["plane_malformed"] == 5
        assert [counters[f"plane_{what}"] for what in ("news", "questions", "unresolved")] == [1, 1, 1]
        assert len(got) == 2

    with_transport(work)


@pytest.mark.parametrize(
    ("source", "index", "taken", "expected"),
    [
        ("127.0.0.2", 1, True, (1, 0)),
        ("127.0.0.2", 1, False, (0, 0)),  # a copy, forged, or no rumor
        ("127.0.0.1", 1, True, (0, 0)),  # of this host
        ("127.0.0.2", 9, True, (0, 0)),  # by the loopback interface, where the plane is not
    ],
)
def test_rumors_that_came_past_the_programs_are_counted(
    source: str, index: int, taken: bool, expected: tuple[int, int]
) -> None:
    async def run() -> None:
        arrived = asyncio.Event()

        def receive(data: bytes, origin: Address, screened: bool = False) -> bool:
            arrived.set()
            return taken

        transport = KernelTransport(("127.0.0.1", 0), OWN)
        await transport.open(receive)
        plane = FakePlane()
        plane.loaded = Loaded("XDP (native)", "lo", index, 4, 12, "")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((source, 0))
                sender.sendto(b"before", ("127.0.0.1", transport.local.port))
                await asyncio.wait_for(arrived.wait(), 10)
                transport.use(plane)  # type: ignore[arg-type]
                arrived.clear()
                sender.sendto(b"after", ("127.0.0.1", transport.local.port))
                await asyncio.wait_for(arrived.wait(), 10)
                transport._take(event(1, b"from the ring buffer"))
            counters = transport.counters
            assert (counters["plane_passed_by"], counters["plane_elsewhere"]) == expected
        finally:
            plane.close()
            await transport.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("level", "kind", "data", "expected"),
    [
        (socket.IPPROTO_IP, 8, struct.pack("=i4s4s", 3, b"\x01\2\3\4", OWN.packed[12:]), (3, OWN.packed)),
        (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16si", bytes(range(16)), 4), (4, bytes(range(16)))),
        (socket.IPPROTO_IP, 8, b"short", None),
        (socket.SOL_SOCKET, 8, bytes(20), None),
    ],
)
def test_where_a_datagram_arrived(level: int, kind: int, data: bytes, expected: tuple[int, bytes] | None) -> None:
    assert _arrival([(level, kind, data)]) == expected


def test_a_carrier_only_where_the_kernel_can_multiply_it() -> None:
    def work(transport: KernelTransport, plane: FakePlane, got: list[Any]) -> None:
        sent: list[Transmit] = []
        transport.send = sent.append  # type: ignore[method-assign]
        carried: list[int] = []

        def carry(data: bytes, count: int) -> bool:
            carried.append(count)
            return True

        transport._send_carrier = carry  # type: ignore[method-assign]
        rumor = Rumor(bytes(88), tuple(PEERS[:4]))
        transport.send_rumor(rumor)
        assert (len(sent), carried) == (4, [])
        transport.use(plane)  # type: ignore[arg-type]
        assert transport.name == "XDP (native)"
        transport.send_rumor(rumor)
        assert (len(sent), carried) == (8, [])  # the ring is empty
        plane.ring_size = 4
        transport.send_rumor(rumor)
        assert (len(sent), carried) == (8, [4])
        transport.send_rumor(Rumor(bytes(1233), tuple(PEERS[:4])))  # longer than a datagram
        transport.send_rumor(Rumor(bytes(88), tuple(PEERS[:1])))  # one is simpler without
        transport.send_rumor(Rumor(bytes(88), tuple(PEERS[:5])))  # more than there are targets
        assert (len(sent), carried) == (18, [4])
        transport.leave_plane()
        assert plane.closed
        assert transport.name == "UDP"
        transport.send_rumor(rumor)
        assert (len(sent), carried) == (22, [4])

    with_transport(work)


def test_a_carrier_that_nobody_counts_is_sent_one_by_one() -> None:
    def work(transport: KernelTransport, plane: FakePlane, got: list[Any]) -> None:
        plane.ring_size = 8
        transport.use(plane)  # type: ignore[arg-type]
        plane.counts["fanout"] = 1
        assert transport._multiplied(plane)  # type: ignore[arg-type]
        assert transport._can_carry(88, 4)
        assert not transport._multiplied(plane)  # type: ignore[arg-type]
        assert transport.counters["carriers_lost"] == 1
        assert transport._can_carry(88, 4)  # whether to go on with the plane is for others to judge

    with_transport(work)


# -- steering --------------------------------------------------------------------------------------------------


class FakeMonitor:
    """Tells what a test says."""

    def __init__(self) -> None:
        self.facts: Facts | None = None
        self.on_change: Callable[[], None] = lambda: None

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def refresh(self) -> None:
        pass

    def watch(self, index: int, name: str) -> Facts | None:
        return self.facts


class Rig:
    """An engine, a transport that is never opened, and a plane that can be taken away."""

    def __init__(self, protocol: str = "auto", directory: Path = Path("/nonexistent/xdp-gossip-dataplane")) -> None:
        node = Node("127.0.0.1", 8000, "a", "")
        settings = Settings(cycle=1.0, timeout=5.0)
        self.engine = Engine(node, settings, NativeCodec(Keyring.single("c", KEY)), random.Random(1), 7)
        self.plane: FakePlane | None = FakePlane()
        self.looks = 0
        self.no_room = 0
        self.counters: Counter[str] = Counter()
        self.transport = SimpleNamespace(
            plane=None,
            name="UDP",
            use=self._use,
            leave_plane=self._leave,
            note_no_room=self._note_no_room,
            counters=self.counters,
            count=lambda name: self.counters.update([name]),
            add_counters=lambda names: self.counters.update(dict.fromkeys(names, 0)),
            refusal="",
        )
        self.monitor = FakeMonitor()
        self.directory = directory
        self.steering = Steering(
            self.engine,
            self.transport,  # type: ignore[arg-type]
            self._find,
            node.address,
            protocol,
            self.directory,
            self.monitor,  # type: ignore[arg-type]
        )

    def _find(self) -> Any:
        self.looks += 1
        if self.plane is None:
            raise PlaneError("there is none")
        return self.plane

    def _note_no_room(self) -> None:
        self.no_room += 1

    def _use(self, plane: FakePlane) -> None:
        self.transport.plane, self.transport.name = plane, plane.mode

    def _leave(self) -> None:
        self.transport.plane, self.transport.name = None, "UDP"

    def start(self, now: Now) -> FakePlane:
        """As the runtime does it."""
        self.steering.open(now)
        self.engine.start(now)
        self.steering.begin(now)
        assert self.plane is not None
        return self.plane


def test_the_kernel_works_from_the_start_and_the_lease_is_renewed() -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    assert plane.observed == 1
    assert rig.engine.members(at(100.0))[0].record.plane == "XDP (native)"  # type: ignore[union-attr]
    first = plane.configs[-1]
    assert (first.running, first.incarnation, first.lease) == (True, 7, 100.0 + LEASE_SECONDS)
    assert first.clock == 10**18
    # The engine's own timer of the same moment comes first, and both share its wake-up.
    assert rig.steering.next_timer() == pytest.approx(101.15)
    rig.steering.handle_timer(at(100.5))
    assert (plane.observed, len(plane.configs)) == (1, 1)
    rig.steering.handle_timer(at(101.01))
    assert plane.observed == 2
    assert plane.configs[-1].lease == pytest.approx(101.01 + LEASE_SECONDS)
    assert len(plane.targets) == 2


def test_a_publish_a_pause_and_a_leave_are_known_at_once() -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    rig.steering.attend(at(100.1))
    assert len(plane.configs) == 1  # nothing new
    rig.engine.documents.publish("key", b"value", at(100.2))
    rig.steering.attend(at(100.2))
    assert plane.configs[-1].documents_digest == rig.engine.documents.digest != 0
    rig.engine.pause(at(100.3))
    rig.steering.attend(at(100.3))
    assert plane.configs[-1].running
    rig.engine.leave(at(100.4))
    rig.steering.attend(at(100.4))
    assert not plane.configs[-1].running


def test_the_kernel_answers_with_what_the_agents_own_packets_say() -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    first = plane.configs[-1]
    record = rig.engine.local.record
    assert record is not None and first.record_digest == record.digest
    assert (first.renewed, first.wall, first.asked) == (100.0, 10**18, rig.engine.edge_round)
    assert first.packet_flags == (FLAG_CATCHING_UP if rig.engine.catching_up else 0)
    rig.engine.pause(at(100.1))
    rig.engine.unstored_source = lambda: {"key"}
    rig.steering.attend(at(100.1))
    assert plane.configs[-1].packet_flags & (FLAG_PAUSED | FLAG_UNSTORED) == FLAG_PAUSED | FLAG_UNSTORED
    assert plane.configs[-1].renewed == 100.1
    # The mode is a part of the record.
    rig.engine.set_plane("TC", at(100.2))
    rig.steering.attend(at(100.2))
    assert plane.configs[-1].record_digest not in (0, first.record_digest)


def test_a_round_is_known_before_its_probes_are_sent_and_its_answers_before_it_ends() -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    given: list[object] = []
    rig.engine.acknowledged = lambda rows, now: given.append(list(rows))  # type: ignore[method-assign]
    plane.acknowledged = [(bytes(20), 1, 1, 1, 100.0, 0.0, 0, 0, 0, 0)]
    due = rig.engine.edges_due
    rig.steering.inform(at(due - 0.5))
    assert not given, "it is not nearly due"
    for moment in (due - 0.3, due, due + 0.2):
        rig.steering.inform(at(moment))
    assert given == [plane.acknowledged] * 3
    before = len(plane.configs)
    newest = rig.engine.edge_round
    while rig.engine.edge_round == newest:
        due += 0.05
        rig.engine.handle_timer(at(due))
    rig.steering.attend(at(due))
    assert [config.asked for config in plane.configs[before:]] == [newest + 1]


def test_what_was_acknowledged_is_not_lost_with_the_plane() -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    given: list[object] = []
    rig.engine.acknowledged = lambda rows, now: given.append(list(rows))  # type: ignore[method-assign]
    plane.here, rig.plane = False, None
    rig.steering.look(at(100.5))
    assert rig.transport.plane is None and given == [[]]
    # Nobody's answers without a plane.
    rig.steering.inform(at(200.0))
    assert len(given) == 1


def test_the_work_of_a_cycle_and_a_round_of_probes_share_a_wake_up() -> None:
    """The rounds follow their own clock: the steering, which has time, comes to theirs."""
    rig = Rig()
    plane = rig.start(at(100.0))
    now, alone, together = 100.0, 0, 0
    while now < 160.0:
        engine, steering = rig.engine.next_timer(), rig.steering.next_timer()
        assert engine is not None
        now = min(engine, steering)
        alone += steering < engine
        written = len(plane.configs)
        rig.steering.inform(at(now))
        rig.engine.handle_timer(at(now))
        rig.steering.handle_timer(at(now))
        rig.steering.attend(at(now))
        together += len(plane.configs) > written
    assert plane.observed >= 60
    assert alone <= 10 and together <= 70


def test_changes_of_members_are_written_together_and_soon() -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    for moment in (100.30, 100.32, 100.34):
        rig.steering.members_changed(at(moment))
    assert rig.steering.next_timer() == pytest.approx(100.4)
    rig.steering.handle_timer(at(100.41))
    assert len(plane.targets) == 2


def test_only_members_of_the_own_address_family_are_targets() -> None:
    rig = Rig()
    rig.engine.relay_targets = lambda limit: [PEERS[0], Address("fd00::1", 1), PEERS[1]]  # type: ignore[method-assign]
    plane = rig.start(at(100.0))
    assert plane.targets == [[PEERS[0], PEERS[1]]]


def test_lost_news_make_it_look_at_once() -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    rig.steering.handle_timer(at(101.0))
    seen = plane.observed
    rig.engine._kernel_view._last = 101.9  # looked a moment ago
    rig.steering.handle_timer(at(102.0))
    assert plane.observed == seen
    plane.counts["news_lost"] = 3
    rig.engine._kernel_view._last = 102.9
    rig.steering.handle_timer(at(103.0))
    assert plane.observed == seen + 1


@pytest.mark.parametrize("how", ["taken down", "refusing"])
def test_a_plane_that_dies_is_given_up_and_a_new_one_found(how: str) -> None:
    rig = Rig()
    plane = rig.start(at(100.0))
    if how == "taken down":
        plane.here = False
    else:
        plane.failing = OSError(5, "Input/output error")
    rig.plane = None
    rig.steering.handle_timer(at(101.0))
    assert rig.transport.plane is None
    assert rig.steering.reason
    assert not rig.engine._kernel_view.observing
    assert rig.engine.members(at(101.0))[0].record.plane == "UDP"  # type: ignore[union-attr]
    assert rig.steering.next_timer() <= 101.0 + LOOK_EVERY
    rig.steering.handle_timer(at(106.0))
    # Maps that refuse are there: they are tried again when the loader has looked at them, or had the time to.
    why = "there is none" if how == "taken down" else "Input/output error; waiting for a data plane"
    assert f"{why}; nothing asks the loader" in rig.steering.reason
    fresh = rig.plane = FakePlane()
    looks = rig.looks
    rig.steering.handle_timer(at(106.1))
    assert rig.looks == looks  # not yet
    rig.steering.handle_timer(at(111.0))
    assert rig.transport.plane is fresh
    assert fresh.configs[-1].running
    assert rig.steering.reason == ""
    assert rig.engine.members(at(111.0))[0].record.plane == "XDP (native)"  # type: ignore[union-attr]


def written(rig: Rig, **change: Any) -> None:
    """What the loader writes when it has put a plane up, or found the one that is up to carry."""
    fresh = rig.directory / "fresh"
    fresh.write_text(json.dumps({**STATE, "interface": "lo", **change}))
    fresh.replace(rig.directory / "state.json")


def test_a_plane_that_failed_is_taken_back_when_it_is_proved_and_not_before(tmp_path: Path) -> None:
    """The loader may find nothing to do: it says so in its file."""
    rig = Rig(directory=tmp_path)
    (tmp_path / "ask").mkdir()
    written(rig)
    rig.start(at(100.0))
    rig.steering.handle_timer(at(101.0))
    rig.counters.update(carriers_sent=4, carriers_lost=4)
    rig.steering.handle_timer(at(102.0))
    assert rig.counters["plane_stepped_down_carriers_lost"] == 1
    assert (tmp_path / "ask" / "request").is_file()
    rig.plane = FakePlane()
    for moment in (102.5, 103.0, 108.0):
        rig.steering.handle_timer(at(moment))
        assert rig.transport.plane is None, "nobody has proved it"
    # A loader that repairs it writes down what it is about to attach.
    written(rig, clsact={"ifindex": 1})
    rig.steering.handle_timer(at(108.5))
    assert rig.transport.plane is None, "nobody has proved it"
    written(rig, proved=1.0)
    rig.steering.handle_timer(at(109.0))
    assert rig.transport.plane is rig.plane


def test_a_firewall_that_lets_no_carrier_out_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """No loader could mend it, and the kernel relays what others send all the same: the plane stays."""
    rig = Rig()
    rig.transport.refusal = "Operation not permitted"
    rig.start(at(100.0))
    rig.steering.handle_timer(at(101.0))
    rig.counters.update(carriers_refused=3, carriers_sent=1)
    rig.steering.handle_timer(at(102.0))
    assert rig.transport.plane is rig.plane
    told = "own rumors are sent one by one, as the host refuses packets to 224.0.0.1 (Operation not permitted)"
    assert told in rig.steering.reason
    rig.steering.handle_timer(at(103.0))
    assert told in rig.steering.reason, "nothing was sent, so nothing is known better"
    rig.counters.update(carriers_refused=1)
    rig.steering.handle_timer(at(104.0))
    assert caplog.text.count(told) == 1
    rig.counters.update(carriers_sent=8, carriers_refused=1)
    rig.steering.handle_timer(at(105.0))
    assert rig.steering.reason == ""


def test_maps_that_open_and_refuse_do_not_come_and_go_all_the_time(tmp_path: Path) -> None:
    rig = Rig(directory=tmp_path)
    (tmp_path / "ask").mkdir()
    written(rig)
    rig.start(at(100.0)).failing = OSError(12, "Cannot allocate memory")
    now = 101.0
    while now < 400.0:
        rig.steering.handle_timer(at(now))
        now = max(now + 0.5, min(rig.steering.next_timer(), now + 5))
    assert 1 <= rig.counters["plane_stepped_down"] <= 10


def test_a_plane_in_use_that_is_proved_goes_on(tmp_path: Path) -> None:
    rig = Rig(directory=tmp_path)
    written(rig)
    plane = rig.start(at(100.0))
    plane.loaded = Loaded.read(tmp_path, "auto")
    written(rig, proved=1.0)
    rig.steering.handle_timer(at(101.0))
    assert (rig.looks, rig.counters["plane_taken"], rig.counters["plane_judged"]) == (1, 1, 1)
    written(rig, proved=2.0, programs={"xg_xdp_ingress": 99})
    rig.plane = FakePlane()
    rig.steering.handle_timer(at(102.0))
    assert (rig.looks, rig.counters["plane_taken"]) == (2, 2)


def test_what_was_asked_for_by_name_is_insisted_on_at_the_start_only() -> None:
    rig = Rig("XDP")
    rig.plane = None
    with pytest.raises(TransportError, match="protocol XDP: there is none"):
        rig.steering.open(at(100.0))
    rig.plane = FakePlane()
    plane = rig.start(at(101.0))
    plane.here = False
    rig.plane = None
    rig.steering.handle_timer(at(102.5))
    assert rig.transport.plane is None
    assert rig.engine.status == "running"


def test_a_table_without_room_is_counted() -> None:
    rig = Rig()
    rig.start(at(100.0))
    for peer in range(60):
        rig.steering.hold(Standing(Address("127.0.0.1", 9000 + peer), "present", 1, 1, 1, 0.0), at(100.1))
    assert rig.no_room == 11


# -- the library -----------------------------------------------------------------------------------------------


def test_the_library_alone_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without ``bpf/`` beside it: auto is UDP, a mode asked for by name an error."""
    monkeypatch.setenv(headers.DIRECTORY_VARIABLE, str(tmp_path))
    headers.constants.cache_clear()

    async def run(protocol: str) -> dict[str, Any]:
        async with AsyncNodeList(protocol=protocol, secret_key=KEY, cycle=0.2) as made:
            made.new(Node("127.0.0.1", free_port()))
            await made.join()
            return made.status()

    try:
        status = asyncio.run(run("auto"))
        assert status["mode"] == "UDP"
        assert "expected the data plane's sources" in status["mode_reason"]
        with pytest.raises(TransportError, match=r"protocol TC: .*expected the data plane's sources"):
            asyncio.run(run("TC"))
    finally:
        headers.constants.cache_clear()


def test_without_a_loaded_plane_auto_is_udp_and_xdp_an_error(tmp_path: Path) -> None:
    async def run(protocol: str) -> dict[str, Any]:
        made = AsyncNodeList(protocol=protocol, secret_key=KEY, cycle=0.2, dataplane=tmp_path)
        made.new(Node("127.0.0.1", free_port()))
        async with made:
            await made.join()
            made.look_for_dataplane()
            return made.status()

    status = asyncio.run(run("auto"))
    assert status["mode"] == "UDP"
    assert "no kernel data plane is loaded" in status["mode_reason"]
    assert "dataplane" not in status
    with pytest.raises(TransportError, match="protocol XDP: no kernel data plane is loaded"):
        asyncio.run(run("XDP"))
