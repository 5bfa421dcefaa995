# SPDX-License-Identifier: MIT
"""The maps of a loaded data plane, read and written as the agent does it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.planes.fleet import Fleet
from xdp_gossip.core.events import Standing
from xdp_gossip.core.members.peer import key_of
from xdp_gossip.core.types import Address, Now
from xdp_gossip.dataplane import layout, libbpf
from xdp_gossip.dataplane.maps import Config, DataPlane, Loaded, PlaneError, open_plane

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

OWN = Address("198.18.62.1", 8000)
NOW = Now(1000.0, 10**18)
#: Of layout.CONFIG: the index of ring_half, before ring_size.
_HALF = 12


@pytest.fixture(scope="module")
def loaded() -> Iterator[Fleet]:
    """A data plane without an agent."""
    with Fleet("XDP (native)", 1, limits={"nodes": 1000}) as fleet:
        yield fleet


def opened(fleet: Fleet, own: Address = OWN, cluster: int = 7, **changes: Any) -> DataPlane:
    """The data plane, taken over."""
    return open_plane(fleet[0].plane_dir, "auto", own, cluster, 4, 12, [(3, bytes(16))], 3, {}, **changes)


def peer(number: int) -> Address:
    """One of many."""
    return Address(f"198.18.62.{number >> 8}", 1 + (number & 255))


def config(**changes: Any) -> Config:
    """Somebody at work."""
    values: dict[str, Any] = {
        "running": True, "incarnation": 2, "documents_digest": 3, "lease": time.monotonic() + 60, "clock": -4,
        "timeout": 5.0, "max_clock_drift": 6.0, "asked": 7, "wall": 8, "record_digest": 9, "renewed": 10.0,
        "packet_flags": 1,
    }  # fmt: skip
    return Config(**{**values, **changes})


def test_every_entry_is_read_once_however_many_there_are(loaded: Fleet) -> None:
    plane = opened(loaded)
    try:
        assert plane.observations(NOW) == []
        for count in (1, 64, 999):
            for number in range(count):
                assert plane.apply(Standing(peer(number), "present", number + 1, number, 5, 0.25), NOW)
            rows = {row[0]: row for row in plane.observations(NOW)}
            assert len(rows) == count
            for number in range(count):
                assert rows[key_of(peer(number))] == (key_of(peer(number)), number + 1, number, 5, 0.0, 0.25, 0, 0, 0)
            # Batches that end in the middle of a bucket.
            assert sum(len(keys) // 20 for keys, _ in plane._nodes.batches(size=32)) == count
        assert plane.apply(Standing(peer(999), "present", 1, 1, 1, 0.0), NOW)
        full = [plane.apply(Standing(peer(2000 + number), "present", 1, 1, 1, 0.0), NOW) for number in range(300)]
        assert not all(full), "a table of a thousand took 1,300"
        for number in range(1000):
            plane.apply(Standing(peer(number), "forgotten", 0, 0, 0, 0.0), NOW)
            plane.apply(Standing(peer(2000 + number), "forgotten", 0, 0, 0, 0.0), NOW)
        assert plane.observations(NOW) == []
    finally:
        plane.close()


def test_a_standing_is_merged_into_what_the_kernel_recorded(loaded: Fleet) -> None:
    plane = opened(loaded)
    try:
        key = layout.node_key(peer(1))
        recorded = layout.NODE.pack(0, 5, 100, 0b1011, 999, -7, 11, 12, 0, 1, 17, 99)
        plane._nodes.update(key, recorded, libbpf.LOCK)

        def held() -> tuple[Any, ...]:
            value = plane._nodes.lookup(key, libbpf.LOCK)
            assert value is not None
            return layout.NODE.unpack(value)

        plane.apply(Standing(peer(1), "gone", 4, 500, 1, 1.0), NOW)  # of an earlier run
        clock = NOW.wall_ns - 10**12 + 10**9
        assert held() == (0, 5, 100, 0b1011, 999, clock, 11, 12, 2, 1, 17, 99)
        plane.apply(Standing(peer(1), "suspect", 5, 101, 0b11, 1.0), NOW)
        assert held() == (0, 5, 101, 0b10111, 999, clock, 11, 12, 1, 1, 17, 99)
        plane.apply(Standing(peer(1), "present", 6, 2, 0b10, 1.0), NOW)
        assert held() == (0, 6, 2, 0b10, 999, clock, 11, 12, 0, 1, 17, 99)
    finally:
        plane.close()


def test_the_ring_changes_in_one_step(loaded: Fleet) -> None:
    plane = opened(loaded)
    try:
        rng = random.Random(1)
        for size in (3, 256, 0, 300):
            targets = [peer(rng.randrange(60_000)) for _ in range(size)]
            before = layout.CONFIG.unpack(plane._config.lookup(bytes(4)) or b"")
            plane.write_targets(targets)
            assert layout.CONFIG.unpack(plane._config.lookup(bytes(4)) or b"") == before
            plane.write_config(config())
            half, length = layout.CONFIG.unpack(plane._config.lookup(bytes(4)) or b"")[_HALF : _HALF + 2]
            assert (half, length) == (1 - before[_HALF], min(size, 256))
            for index, target in enumerate(targets[:256]):
                value = plane._targets.lookup((half * 256 + index).to_bytes(4, "little"))
                assert value == layout.TARGET.pack(target.packed, target.port.to_bytes(2, "big"))
    finally:
        plane.close()


def test_what_was_recorded_for_another_node_is_wiped(loaded: Fleet) -> None:
    for own, cluster, kept in ((OWN, 7, True), (OWN, 8, False), (Address("198.18.62.1", 8005), 8, False)):
        plane = opened(loaded)
        plane.apply(Standing(peer(1), "present", 1, 1, 1, 0.0), NOW)
        plane.write_config(config())
        plane.close()
        plane = opened(loaded, own, cluster)
        assert (len(plane.observations(NOW)) == 1) == kept, (own, cluster)
        plane.close()


def test_keys_that_are_no_more_are_taken_away(loaded: Fleet) -> None:
    plane = opened(loaded)
    try:
        plane.write_keys([(0, b"a" * 16), (255, b"b" * 16)], 0)
        plane.write_keys([(255, b"c" * 16)], 255)
        present = [layout.KEY.unpack(plane._keys.lookup(slot.to_bytes(4, "little")) or b"")[0] for slot in range(256)]
        assert present == [0] * 255 + [1]
        assert plane._keys.lookup((255).to_bytes(4, "little")) == layout.KEY.pack(1, b"c" * 16)
    finally:
        plane.close()


def test_a_user_who_may_not_is_told_who_may(loaded: Fleet) -> None:
    directory = loaded[0].plane_dir
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgid(12345)
            os.setuid(12345)
            try:
                DataPlane(directory, Loaded.read(directory, "auto"), OWN, 7, 4, 12)
                text = "opened"
            except PlaneError as error:
                text = str(error)
            os.write(writer, text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    assert "Permission denied" in said
    assert "uid 12345" in said
    assert "--user USER" in said


def test_a_map_of_another_layout_is_refused(loaded: Fleet) -> None:
    pins = next((loaded[0].plane_dir / "bpf").glob("v*"))
    with pytest.raises(libbpf.MapError, match="map config: expected keys and values of 4 and 5 bytes, found 4 and"):
        libbpf.Map(pins / "config", 4, 5)
    with pytest.raises(libbpf.MapError, match="No such file"):
        libbpf.Map(pins / "nothing", 4, 4)
    with pytest.raises(libbpf.MapError, match="config"):
        libbpf.RingBuffer(pins / "config")
