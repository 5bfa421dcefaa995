# SPDX-License-Identifier: MIT
"""What synchronisation costs on the wire: what changed, not what exists. Bytes include the headers of IP and UDP."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xdp_gossip.core.events import Transmit
from xdp_gossip.core.types import Write
from xdp_gossip.wire.native import HEADER_BYTES

from .steps import SETTINGS
from .world import SimNode, World

pytestmark = pytest.mark.slow

DOCUMENTS = 10_000
_TYPE_AT, _HEARTBEAT, _REQUEST, _RESPONSE, _PROBE, _EDGE_PROBE, _EDGE_ACK = 3, 1, 2, 3, 7, 8, 9
_IP_UDP = 28


class Tap:
    """Every packet that is sent, but for heartbeats, probes and the packets of observers.

    A request that was lost makes a member try what its path carries (``core.paths``): that costs 4 kB, once in a while.
    """

    def __init__(self, world: World) -> None:
        self.packets: list[tuple[int, bytes]] = []
        send = world.send

        def tapped(sender: SimNode, transmit: Transmit) -> None:
            if transmit.data[_TYPE_AT] not in (_HEARTBEAT, _PROBE, _EDGE_PROBE, _EDGE_ACK):
                self.packets.append((sender.number, transmit.data))
            send(sender, transmit)

        world.send = tapped  # type: ignore[method-assign]

    @property
    def bytes(self) -> int:
        return sum(len(data) + _IP_UDP for _, data in self.packets)


def differing(world: World) -> Callable[[], str | None]:
    def missing() -> str | None:
        digests = {node.engine.documents.digest for node in world.nodes if node.engine}
        return f"{len(digests)} different states" if len(digests) > 1 else None

    return missing


@pytest.fixture(name="full", scope="module")
def fixture_full() -> World:
    """Two members that hold the same 10,000 documents, and have had time to settle."""
    world = World(1, 2, settings=SETTINGS)
    world.boot_all()
    world.run_until(world.checks.disagreement, 10.0)
    for start in range(0, DOCUMENTS, 50):
        keys = [f"settings/host{number:05d}/limits" for number in range(start, start + 50)]
        for key in keys:
            world.write(world.nodes[start // 50 % 2], [Write(key, key.encode() * 3)])
        if start % 500 == 0:
            world.run(0.2)
    world.run_until(differing(world), 60.0)
    world.run(10.0)
    return world


def test_nothing_of_documents_is_exchanged_while_digests_agree(full: World) -> None:
    tap = Tap(full)
    full.run(300.0)
    # The sync that finds members whom rumors missed goes on, on every third cycle; of documents it carries the
    # digest in its header, and nothing else: a key or a bucket would show in the length.
    assert {data[_TYPE_AT] for _, data in tap.packets} == {_REQUEST, _RESPONSE}
    assert max(len(data) for _, data in tap.packets) <= HEADER_BYTES + 48
    assert len(tap.packets) <= 2 * 2 * 300 / 3 * 1.1


def test_one_changed_key_among_10000_costs_less_than_6000_bytes(full: World) -> None:
    author = full.nodes[0]
    full.network.cut([0], [1])  # the rumor reaches nobody
    full.write(author, [Write("settings/host05000/limits", b"changed, for the test of what that costs")])
    full.run(0.05)
    full.network.heal()
    tap = Tap(full)
    took = full.run_until(differing(full), 10.0, step=0.01)
    assert full.nodes[1].engine is not None
    assert tap.bytes < 6000, [(sender, data[_TYPE_AT], len(data)) for sender, data in tap.packets]
    assert took < 3.0


def test_a_deleted_and_a_new_key_are_found_in_both_directions(full: World) -> None:
    one, other = full.nodes
    full.network.cut([0], [1])
    full.write(one, [Write("settings/host00001/limits", deleted=True)])
    full.write(one, [Write("new/on-one", b"1")])
    full.write(other, [Write("new/on-the-other", b"2")])
    full.write(other, [Write("settings/host00002/limits", b"changed there")])
    full.run(0.05)
    full.network.heal()
    tap = Tap(full)
    full.run_until(differing(full), 10.0, step=0.01)
    for node in full.nodes:
        assert node.engine is not None
        assert node.engine.documents.get("settings/host00001/limits") is None
        values = [document.value for document in node.engine.documents.live("new/")]
        assert values == [b"1", b"2"]
        assert node.engine.documents.get("settings/host00002/limits").value == b"changed there"
    assert tap.bytes < 12_000
