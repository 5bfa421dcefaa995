# SPDX-License-Identifier: MIT
"""What one member can cost another, in a given time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.messages import ListRequest, MemberInfo, MemberList, SyncRequest
from xdp_gossip.core.types import Address, State

from .steps import SETTINGS
from .world import World

pytestmark = pytest.mark.slow


def two(**settings: int) -> World:
    world = World(1, 2, settings=replace(SETTINGS, **settings))
    world.boot_all()
    world.run_until(world.checks.disagreement, 10.0)
    return world


def send(world: World, message: object) -> None:
    """From node 1 to node 0, over TCP, in order."""
    node = world.nodes[1]
    assert node.engine is not None
    node.engine._out.send(message, world.nodes[0].address, node.now, reliable=True)  # type: ignore[arg-type]
    node.after_input()


def test_whole_lists_are_not_sent_as_often_as_they_are_asked_for() -> None:
    world = two()
    world.publish(world.nodes[0], "k", b"v")
    target = world.nodes[0].engine
    assert target is not None
    world.run(10)
    assert target.counters["member_lists_withheld"] == target.counters["entry_lists_withheld"] == 0
    for nonce in range(100):
        send(world, SyncRequest(nonce, 12345, ()))
    world.run(1)
    assert target.counters["member_lists_withheld"] == 90
    for _ in range(100):
        send(world, ListRequest(tuple(range(256))))
    world.run(1)
    assert target.counters["entry_lists_withheld"] == 100 - 4100 // 257
    world.run(10)
    before = target.counters["tx_swap_response"]
    send(world, ListRequest(tuple(range(256))))
    world.run(1)
    assert target.counters["tx_swap_response"] > before


def test_invented_members_by_the_ten_thousand_are_withheld() -> None:
    world = two()
    target = world.nodes[0].engine
    assert target is not None
    for block in range(60):
        invented = (Address.of(f"198.19.{block}.{last}", 8000) for last in range(1, 101))
        send(world, MemberList(tuple(MemberInfo(address, 5, 1, State.ALIVE, 0, 1, 1) for address in invented)))
    world.run(2)
    known = len(target.members(world.nodes[0].now))
    assert known <= 2048 + 2
    assert target.counters["members_withheld"] == 6000 - (known - 2)


def test_all_documents_together_have_a_bound() -> None:
    world = two(max_bytes=5000)
    first, second = world.nodes
    for number in range(4):
        world.publish(first, f"k{number}", bytes(1000))
    assert first.engine is not None and second.engine is not None
    wanted = r"at most 5000 bytes in all documents \(limits.store\), there are 4000 and 1001"
    with pytest.raises(ProtocolError, match=wanted) as caught:
        first.engine.publish("k4", bytes(1001), first.now)
    assert caught.value.code == "store_full"
    world.publish(first, "k0", bytes(2000))
    world.publish(first, "k0", bytes(10))
    world.delete(first, "k1")
    world.publish(first, "k4", bytes(2990))
    world.run_until(world.checks.disagreement, 10.0)


def test_a_document_from_elsewhere_over_the_bound_is_refused_and_told_of() -> None:
    world = two(max_bytes=5000)
    first, second = world.nodes
    assert first.engine is not None and second.engine is not None
    second.engine._metadata._settings = replace(world.settings, max_bytes=1500)
    world.publish(first, "a", bytes(1000))
    world.publish(first, "b", bytes(1000))
    world.run(5)
    assert len(second.engine.documents()) == 1
    assert second.engine.counters["documents_refused_store_full"] > 0
