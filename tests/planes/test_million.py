# SPDX-License-Identifier: MIT
"""A million hostile packets for one member, of every type and kind, while the fleet works."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.bpf import frames
from tests.planes.conftest import CYCLE, TIMEOUT
from tests.planes.fleet import PLANES, PORT, Fleet, Host, inside
from tests.support.fleet import eventually
from xdp_gossip.core.packets import PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane import headers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MILLION = 1_000_000
#: Frames of each type that are recorded and made worse; each has over twenty forms.
OF_A_TYPE = 12
LIMITS = headers.constants()
HEADER = LIMITS["XG_HEADER_BYTES"]
_EVERYTHING = 3  # ETH_P_ALL
_SO_RCVBUFFORCE = 33


@pytest.fixture(scope="module", params=[plane for plane in PLANES if plane != "UDP"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Four agents that agree, on one of the planes."""
    with Fleet(request.param, 4, cycle=CYCLE, timeout=TIMEOUT) as made:
        made.start()
        made.settled()
        yield made


class Stranger:
    """Sits on the link of one host: hears all that is sent to it, and sends it what it likes."""

    def __init__(self, victim: Host) -> None:
        with inside(victim.hub):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
            self.socket.bind((f"v{victim.number}", 0))
        self.socket.setblocking(False)
        self.recorded: dict[PacketType, list[bytes]] = {kind: [] for kind in PacketType}

    def listen(self) -> None:
        """Keep what has come to the victim since: whole frames, the last of each type."""
        while True:
            try:
                data, address = self.socket.recvfrom(65536)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:
                continue
            found = gossip(data)
            if found is not None and len(found.payload) <= LIMITS["XG_DATAGRAM_BYTES"]:
                kind = PacketType(found.payload[3])
                self.recorded[kind] = [*self.recorded[kind], data][-OF_A_TYPE:]


def gossip(data: bytes) -> frames.Parsed | None:
    """A frame with a packet of the protocol taken apart."""
    if data[12:14] != b"\x08\x00" or data[23] != frames.UDP:
        return None
    found = frames.parse(data)
    return found if found.target.port == PORT and len(found.payload) >= HEADER else None


def worse(recorded: dict[PacketType, list[bytes]], rng: random.Random) -> Iterator[bytes]:
    """Frames that must change nothing, made of each that was recorded."""
    for kind, found in recorded.items():
        for data in found:
            parts = frames.parse(data)
            packet, macs = parts.payload, {"mac_target": parts.mac_target, "mac_source": parts.mac_source}

            def framed(payload: bytes, source: Address = parts.source, target: Address = parts.target) -> bytes:
                return frames.frame(payload, source, target, **macs)  # noqa: B023

            yield data
            yield framed(packet, Address("198.18.62.200", PORT))
            # Every field of the signed block, the MAC, and the salt.
            for at in (0, 2, 4, 8, 9, 11, 15, 23, 31, 39, 45, 55, 63, 64, 79, 84):
                yield framed(packet[:at] + bytes([packet[at] ^ 1 << rng.randrange(8)]) + packet[at + 1 :])
            for other in range(12):
                if other != kind:
                    yield framed(packet[:3] + bytes([other]) + packet[4:])
            yield framed(packet[:HEADER] + bytes(len(packet) - HEADER) + b"\0" * 16)
            for neighbour in found:
                body = frames.parse(neighbour).payload[HEADER:]
                if body != packet[HEADER:]:
                    yield framed(packet[:HEADER] + body)
            yield framed(packet[: rng.randrange(HEADER)])
            # Odd: options, a fragment, lengths that contradict each other, too long.
            inner = frames.udp(packet, parts.source, parts.target)
            for how in ({"options": bytes(4)}, {"options": bytes(40)}, {"fragment": 0x2000}):
                odd = frames.ipv4(parts.source, parts.target, inner, **how)  # type: ignore[arg-type]
                yield frames.ethernet(odd, frames.ETH_IPV4, *macs.values())
            short = frames.udp(packet, parts.source, parts.target, length=9)
            yield frames.ethernet(frames.ipv4(parts.source, parts.target, short), frames.ETH_IPV4, *macs.values())
            yield framed(packet + bytes(LIMITS["XG_DATAGRAM_BYTES"] + 1 - len(packet)))


def every_type(fleet: Fleet, stranger: Stranger) -> None:
    """Have the members send packets of every type to the first one, and record them."""
    last = fleet[3]

    def missing() -> str | None:
        stranger.listen()
        lacking = [kind.name for kind, found in stranger.recorded.items() if not found]
        return f"nothing recorded of {lacking}" if lacking else None

    for number in range(8):
        fleet[1 + number % 3].publish(f"before/{number}", os.urandom(40 + number * 50))
        fleet[1 + number % 3].call("PATCH", "/v1/node", {"private_data": f"data {number}"})
        stranger.listen()
    # A question to each member.
    fleet[1].call("GET", "/v1/convergence?key=before/0&applied=1&timeout=1")
    # Who falls silent is probed, also by way of others.
    last.signal(signal.SIGSTOP)
    eventually(lambda: None if last.address not in fleet[0].listed("alive") else "still alive", TIMEOUT + 20)
    last.signal(signal.SIGCONT)
    eventually(lambda: fleet.missing(last), 30)
    last.call("POST", "/v1/node/leave")
    eventually(lambda: fleet.without(last), 30)
    last.stop()
    fleet.start([last])
    fleet.settled(60)
    eventually(missing, 30)


def verdicts(kernel: dict[str, int]) -> int:
    """How many packets for the agent came to a verdict."""
    return sum(n for name, n in kernel.items() if name.startswith(("pass_", "drop_", "ask_", "take_")))


def test_a_million_hostile_packets_change_nothing(fleet: Fleet) -> None:
    """No state changes, nothing is relayed, the agent is woken no oftener than stated, and the fleet works on."""
    victim, others = fleet[0], fleet.hosts[1:]
    stranger = Stranger(victim)
    every_type(fleet, stranger)
    hostile = list(worse(stranger.recorded, random.Random(7)))

    def rumors() -> int:
        """How many the others have made so far; each has one sequence for all types."""
        return sum(row["sequence"] for host in others for row in host.nodes() if row["name"] == host.name)

    genuine: list[str] = []
    failures: list[BaseException] = []
    over = threading.Event()

    def work() -> None:
        """Publish while it rains, now here, now there, and see that all have it."""
        try:
            for number in itertools.count():
                if over.is_set() and number >= 3:
                    return
                key, value = f"meanwhile/{number}", os.urandom(200)
                others[number % 3].publish(key, value)
                eventually(lambda: fleet.lacking(key, value), 60)  # noqa: B023
                genuine.append(key)
        except BaseException as failure:
            failures.append(failure)

    marks = {host.name: host.revision() for host in fleet}
    runs = {row["name"]: row["incarnation"] for row in victim.nodes()}
    keys = set(victim.versions())
    made, began = rumors(), time.monotonic_ns()
    kernel, agent = victim.kernel(), victim.counters()
    worker = threading.Thread(target=work)
    worker.start()
    try:
        sent = 0
        endless = itertools.cycle(hostile)
        while verdicts(victim.kernel()) - verdicts(kernel) < MILLION:
            assert sent < 5 * MILLION, f"of {sent} frames sent too few came to the programs"
            for data in itertools.islice(endless, 20_000):
                try:
                    stranger.socket.send(data)
                except OSError:  # the queue is full
                    pass
            sent += 20_000
    finally:
        over.set()
        worker.join(200)
        stranger.socket.close()
    assert not worker.is_alive() and not failures, failures
    grown = {name: n - kernel.get(name, 0) for name, n in victim.kernel().items()}
    taken = sum(grown[f"take_{kind}"] for kind in ("heartbeat", "metadata", "leave", "record", "alert"))
    woken = {name: n - agent.get(name, 0) for name, n in victim.counters().items() if name.startswith("rx_")}
    made = rumors() - made
    slots = ((time.monotonic_ns() - began) >> LIMITS["XG_SLOT_BITS"]) + 2

    # Nothing was changed.
    fleet.settled(60)
    assert {row["name"]: row["incarnation"] for row in victim.nodes()} == runs
    for host in fleet:
        assert not [
            event for event, _ in host.events(marks[host.name]) if event in ("removed", "left", "added", "suspected")
        ]
    assert set(victim.versions()) == keys | set(genuine)
    # Nothing was relayed but what the others have made.
    assert grown["relay"] <= taken <= made + 3 * len(others), (grown, made)
    assert grown["take_newcomer"] == 0
    # The agent was woken for what is stated, and for what is genuine.
    each = slots * len(os.sched_getaffinity(0)) * LIMITS["XG_ASK_LIMIT"]
    asked = sum(n for name, n in grown.items() if name.startswith("ask_") and name != "ask_limited")
    assert 0 < grown["pass_odd"] <= each and asked <= each, (grown, each)
    assert grown["pass_direct"] <= slots * LIMITS["XG_DIRECT_LIMIT"] * len(others)
    most = grown["pass_odd"] + asked + grown["pass_direct"] + grown["news"]
    assert max(woken.values(), default=0) <= most, (woken, grown)
    # Every kind was met.
    shape = ("foreign_cluster", "foreign_version", "malformed", "truncated", "odd")
    for name in (*shape, "unknown_key", "bad_mac", "duplicate", "replayed"):
        assert grown[f"drop_{name}"] > 1000, (name, grown)
