# SPDX-License-Identifier: MIT
"""What the agent writes into pinned maps is what the programs answer with, and what they record is what it reads."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import KEYRING, Plane
from tests.bpf.scene import ASKED, XDP, local, source
from tests.bpf.test_edges import acknowledgement, answered, probe
from xdp_gossip.core.members.peer import key_of
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address, Now
from xdp_gossip.dataplane import headers, layout, libbpf
from xdp_gossip.dataplane.aside import stand_aside
from xdp_gossip.dataplane.maps import Config, DataPlane, Loaded
from xdp_gossip.wire.keys import cluster_id

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF"),
    pytest.mark.usefixtures("link"),
]
MAPS = ("config", "keys", "nodes", "acks", "allow", "targets", "counters", "events")


@pytest.fixture
def directory(plane: Plane, tmp_path: Path) -> Iterator[Path]:
    """A loader's directory with the maps of the programs under test, in a bpffs of its own."""
    plane.reset(scene.config(4))
    mounted = tmp_path / "bpf"
    mounted.mkdir()
    subprocess.run(("mount", "-t", "bpf", "bpf", str(mounted)), check=True, timeout=30)
    try:
        pins = mounted / f"v{headers.constants()['XG_LAYOUT']}"
        pins.mkdir()
        for name in MAPS:
            libbpf.pin(plane.map(name), str(pins / name))
        yield tmp_path
    finally:
        subprocess.run(("umount", str(mounted)), check=True, timeout=30)


def opened(directory: Path, own: Address | None = None) -> contextlib.closing[DataPlane]:
    """The agent's side of the maps."""
    loaded = Loaded("XDP (native)", "lo", 1, 4, 12, "")
    plane = DataPlane(directory, loaded, own or local(4), cluster_id(KEYRING.cluster), 4, 12)
    plane.write_keys(KEYRING.mac_keys, KEYRING.active.id)
    return contextlib.closing(plane)


def config(now: Now, **changes: float) -> Config:
    """What an agent at work writes."""
    wall = now.wall_ns - int(now.mono * 1e9)
    fields = {"running": True, "incarnation": 9, "documents_digest": 1, "lease": now.mono + 60, "clock": wall}
    fields.update(timeout=5.0, max_clock_drift=60.0, asked=ASKED, wall=wall, record_digest=2, renewed=now.mono - 3)
    return Config(**{**fields, "packet_flags": 5, **changes})  # type: ignore[arg-type]


def test_the_answer_says_what_the_agent_wrote(plane: Plane, directory: Path) -> None:
    now = Now(time.monotonic(), time.time_ns())
    with opened(directory) as ours:
        ours.write_config(config(now))
    header = answered(scene.deliver(plane, XDP, probe(), 4), 4)
    expected = Header(PacketType.EDGE_ACK, local(4), 9, 1 << 60, 0, 1, 2, 5, key_id=KEYRING.active.id)
    assert replace(header, wall_ns=0, lease_age_ms=0) == expected
    assert header.lease_age_ms >= 2999
    assert now.wall_ns - 10_000 <= header.wall_ns <= time.time_ns()


def test_the_agent_reads_what_its_last_rounds_brought(plane: Plane, directory: Path) -> None:
    now = Now(time.monotonic(), time.time_ns())
    with opened(directory) as ours:
        assert ours.acknowledgements(now) == []
        ours.write_config(config(now))
        askers = [scene.address(4 if number % 2 else 6, number) for number in range(3, 60)]
        for number, address in enumerate(askers):
            said = {"documents_digest": number, "flags": 1, "wall_ns": time.time_ns() + 5 * 10**9}
            data = acknowledgement(origin=address, sequence=ASKED - number % 3, lease_age_ms=number, **said)
            scene.deliver(plane, XDP, data, 4)
        rows = {row[0]: row for row in ours.acknowledgements(now)}
        assert len(rows) == len(askers)
        for number, address in enumerate(askers):
            key, incarnation, newest, window, seen, ahead, documents, record, flags, age = rows[key_of(address)]
            assert (key, incarnation, newest, window) == (key_of(address), 7, ASKED - number % 3, 1)
            assert now.mono <= seen <= time.monotonic()
            assert 4.0 < ahead < 5.1
            assert (documents, record, flags, age) == (number, 0xAB, 1, number)
        # Rounds go by: what is older than the last 64 is not read any more.
        ours.write_config(config(now, asked=ASKED + 62))
        assert {row[2] for row in ours.acknowledgements(now)} == {ASKED - 1, ASKED}
        # The next run of the agent begins anywhere.
        ours.write_config(config(now, asked=5))
        assert ours.acknowledgements(now) == []


def test_a_plane_that_nobody_uses_stands_aside(plane: Plane, directory: Path) -> None:
    """An agent without it, for whatever reason, answers itself: the former run does not go on speaking for it."""
    now = Now(time.monotonic(), time.time_ns())
    with opened(directory) as ours:
        ours.write_config(config(now, lease=0.0))
    assert not stand_aside(directory, source(4)), "it is not theirs"
    answered(scene.deliver(plane, XDP, probe(), 4), 4)
    plane.counted()
    before = plane.read("config", bytes(4), layout.CONFIG.size)
    assert stand_aside(directory, local(4))
    after = plane.read("config", bytes(4), layout.CONFIG.size)
    assert before is not None and after is not None
    assert [at for at, (one, other) in enumerate(zip(before, after)) if one != other] == [22], "the flags and no more"
    frame = frames.frame(probe(sequence=1 << 61), source(4), local(4))
    assert scene.run(plane, XDP, frame).frame == frame
    assert plane.counted() == {"pass_no_agent": 1}
    assert not stand_aside(directory, local(4)), "it does already"
    # Whoever takes it again is answered for again.
    with opened(directory) as ours:
        ours.write_config(config(now))
    answered(scene.deliver(plane, XDP, probe(sequence=1 << 61), 4), 4)


def test_pins_that_are_no_maps_are_told_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not stand_aside(tmp_path, local(4))
    (tmp_path / "bpf" / "v3").mkdir(parents=True)
    (tmp_path / "bpf" / "v3" / "config").write_text("")
    assert not stand_aside(tmp_path, local(4))
    assert "may answer edge probes for an earlier run" in caplog.text
