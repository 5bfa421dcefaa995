# SPDX-License-Identifier: MIT
"""What becomes of every copy and of every refused packet can be told from the counters and the map of refusals."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import Plane, inside
from tests.bpf.scene import XDP, address, known, local, origin, packet, source, targets
from tests.bpf.stage import ALL_NODES, HERE, MODES, NATIVE, THERE, Stage, network, stage
from tests.bpf.wire import Wire, ip
from xdp_gossip.core.packets import PacketType
from xdp_gossip.dataplane import libbpf

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and BPF")]

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def nets() -> Iterator[None]:
    with network():
        yield


@pytest.fixture
def far(nets: None) -> Iterator[Stage]:
    with stage(4) as made:
        yield made


# Copies.


@pytest.mark.parametrize("mode", MODES)
def test_due_is_what_became_of_the_copies(plane: Plane, far: Stage, mode: str) -> None:
    """Some are sent, some have no next hop, some have no member left to go to."""
    plane.reset(scene.config(4, amount=64, wide=64), far.members[:3])
    plane.set_node(origin(4), known())
    with far.attach(plane, mode, amount=64):
        far.teach(plane, far.members[:2])
        far.send(far.neighbour, packet(4), local(4))
        again = 1 if mode == NATIVE else 0
        assert len(far.received(far.everybody, 2 + again)) == 2 + again
        time.sleep(0.05)
    counted = plane.counted()
    assert counted.pop("copy_again", 0) == again
    assert counted == {
        "take_heartbeat": 1,
        "relay": 1,
        "copy": 2,
        "copy_unresolved": 1,
        "copy_surplus": 61,
    }
    assert plane.due == 64


@pytest.mark.parametrize("resolved", [True, False], ids=["a surplus", "no next hop"])
def test_the_driver_is_told_to_send(plane: Plane, far: Stage, resolved: bool) -> None:
    """The kernel says so with the last batch of a queue: one that comes to nothing sends a copy once more.

    The 64 places of a rumor are four batches, and the copies are all in the first. Nothing else would send them.
    """
    ring = far.members[:2] if resolved else [*far.members[:1], *far.members[10:]]
    plane.reset(scene.config(4, amount=64, wide=64), ring)
    plane.set_node(origin(4), known())
    with far.attach(plane, NATIVE, amount=64):
        far.teach(plane, ring[:2] if resolved else ring[:1])
        far.send(far.neighbour, packet(4), local(4))
        found = far.received(far.everybody, 3 if resolved else 2)
    counted = plane.counted()
    assert (counted["copy"], counted["copy_again"], plane.due) == (len(found) - 1, 1, 64)
    assert counted.get("copy_surplus", 0) + counted.get("copy_unresolved", 0) == 64 - counted["copy"]
    assert "copy_lost" not in counted
    assert {datagram.to for datagram in found} == {member.ip for member in ring[: counted["copy"]]}
    assert len({datagram.data for datagram in found}) == 1


# Carriers.


def errors() -> dict[str, int]:
    """What node exporters alarm on, of the near end's stack."""
    found: dict[str, int] = {}
    with inside(HERE):
        rows = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    for names, values in zip(rows[::2], rows[1::2]):
        kind = names.split(":")[0]
        found |= {f"{kind}{name}": int(value) for name, value in zip(names.split()[1:], values.split()[1:])}
    return {name: found[name] for name in ("UdpSndbufErrors", "IpOutDiscards")}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("known_members", [0, 4], ids=["no next hop", "next hops"])
def test_a_carrier_is_no_error_of_the_host(plane: Plane, far: Stage, mode: str, known_members: int) -> None:
    """The stack takes a carrier that became copies for one that was sent."""
    plane.reset(scene.config(4), far.members[:4])
    with far.attach(plane, mode):
        if known_members:
            far.teach(plane, far.members[:known_members])
        before = errors()
        data = packet(4, PacketType.HEARTBEAT, origin=local(4), hops=0)
        far.send(far.agent, data[:82] + b"\x04" + data[83:], ALL_NODES[4])
        outcome = "fanout_copy" if known_members else "fanout_unresolved"
        assert plane.counted() == {"fanout": 1, outcome: 4}
        assert errors() == before
        far.received(far.everybody, known_members)


# Refusals.


@FAMILIES
@pytest.mark.parametrize("program", ["xg_xdp_ingress", "xg_tc_ingress"])
def test_refused_packets_name_their_sources(plane: Plane, link: Wire, family: int, program: str) -> None:
    """A wrong key, another cluster, garbage; not copies, which everybody sends."""
    plane.reset(scene.config(family), targets(family, 2))
    plane.set_node(origin(family), known())
    plane.refusals()
    good = packet(family)
    bad = {
        "drop_bad_mac": good[:64] + bytes(16) + good[80:],
        "drop_unknown_key": good[:8] + b"\x09" + good[9:],
        "drop_foreign_cluster": good[:4] + bytes(4) + good[8:],
        "drop_malformed": b"\0\0" + good[2:],
        "drop_truncated": good[:60],
        "drop_foreign_version": good[:2] + b"\x63" + good[3:],
    }
    expected = {}
    for number, (verdict, data) in enumerate(bad.items()):
        sender = address(family, 100 + number)
        time.sleep(0.02)  # one sample in a tick
        scene.run(plane, program, frames.frame(data, sender, local(family)), link)
        expected[sender.ip, verdict] = 1
        assert plane.counted() == {verdict: 1}
    time.sleep(0.02)
    for _ in range(2):
        scene.run(plane, program, frames.frame(good, source(family), local(family)), link)
    assert plane.counted()["drop_duplicate"] == 1
    assert plane.refusals() == expected


def test_a_flood_is_sampled(plane: Plane) -> None:
    """At most one in a tick is noted, whatever is dropped, and no more sources than there is room for."""
    plane.reset(scene.config(4))
    plane.refusals()
    good = packet(4)
    frame = frames.frame(good[:64] + bytes(16) + good[80:], source(4), local(4))
    plane.run(XDP, frame, repeat=1_000_000)
    assert plane.counted() == {"drop_bad_mac": 1_000_000}
    ((key, samples),) = plane.refusals().items()
    assert key == (source(4).ip, "drop_bad_mac")
    assert 1 <= samples < 100_000


# Last, as it takes the link down.


@pytest.fixture
def one_processor() -> Iterator[None]:
    """What was addressed and not flushed yet is kept for each processor: frames must not be sent from two."""
    former = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(former)})
    yield
    os.sched_setaffinity(0, former)


@pytest.mark.usefixtures("one_processor")
def test_copies_that_the_driver_refuses_are_counted(plane: Plane, far: Stage) -> None:
    """The far end of the veth is down: its driver takes none of the copies that were addressed."""
    plane.reset(scene.config(4, amount=4, wide=64), far.members[:4])
    plane.set_node(origin(4), known())
    with far.attach(plane, NATIVE, amount=64), inside(HERE):
        far.teach(plane, far.members[:4])
        # The first flush ends what earlier tests, which nobody watched, have addressed.
        for sequence in (100, 101):
            plane.counted()
            frame = frames.frame(packet(4, sequence=sequence), source(4), local(4))
            libbpf.run(plane.program(XDP), frame, live=1)
        assert {name: n for name, n in plane.counted().items() if name.startswith("copy")} == {
            "copy": 4,
            "copy_again": 1,
            "copy_surplus": 60,
        }
        ip("-n", THERE, "link", "set", "xgb1", "down")
        plane.due = 0
        try:
            lost = frames.frame(packet(4, sequence=102), source(4), local(4))
            libbpf.run(plane.program(XDP), lost, live=1)
            counted = plane.counted()
        finally:
            ip("-n", THERE, "link", "set", "xgb1", "up")
    assert counted["relay"] == 1
    assert (counted["copy"], counted["copy_again"], counted["copy_lost"]) == (4, 1, 5)
    assert plane.due == 64 == counted["copy"] + counted["copy_surplus"]
