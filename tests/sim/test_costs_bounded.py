# SPDX-License-Identifier: MIT
"""What one member can cost another, in a given time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.messages import (
    FetchRequest,
    ListRequest,
    MemberInfo,
    MemberList,
    RecordsRequest,
    Sighting,
    SyncRequest,
    Want,
)
from xdp_gossip.core.settings import Limits
from xdp_gossip.core.types import Address, State, Version

from .steps import SETTINGS
from .world import World

pytestmark = pytest.mark.slow


def two(**settings: object) -> World:
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
    world = two(limits=Limits(store=5000))
    first, second = world.nodes
    for number in range(4):
        world.publish(first, f"k{number}", bytes(1000))
    assert first.engine is not None and second.engine is not None
    wanted = r"at most 5000 bytes in all documents \(limits.store\), got 4000 and this publish adds 1001"
    with pytest.raises(ProtocolError, match=wanted) as caught:
        first.engine.documents.publish("k4", bytes(1001), first.now)
    assert caught.value.code == "store_full"
    world.publish(first, "k0", bytes(2000))
    world.publish(first, "k0", bytes(10))
    world.delete(first, "k1")
    world.publish(first, "k4", bytes(2990))
    world.run_until(world.checks.disagreement, 10.0)


def test_a_document_from_elsewhere_over_the_bound_is_refused_and_told_of() -> None:
    world = two(limits=Limits(store=5000))
    first, second = world.nodes
    assert first.engine is not None and second.engine is not None
    second.engine.documents._room._limits = Limits(store=1500)
    world.publish(first, "a", bytes(1000))
    world.publish(first, "b", bytes(1000))
    world.run(5)
    assert len(list(second.engine.documents.live())) == 1
    assert second.engine.counters["documents_refused_store_full"] > 0


def frames(world: World, message: object) -> int:
    """How many node 0 answers a message with; a routine sync may add one."""
    target = world.nodes[0].engine
    assert target is not None
    before = target.counters["tx_swap_response"]
    send(world, message)
    world.run(0.05)
    return target.counters["tx_swap_response"] - before


def test_one_request_is_answered_with_one_window_of_chunks() -> None:
    world = two()
    large = [world.publish(world.nodes[0], f"large/{number}", bytes(1_000_000)) for number in range(64)]
    target = world.nodes[0].engine
    assert target is not None and target.counters["documents_withheld"] == 0, "it is there from the start"
    world.run(10)
    assert target.counters["documents_withheld"] == 0
    assert frames(world, FetchRequest(tuple(Want(document.key, document.version) for document in large))) <= 17
    assert target.counters["documents_withheld"] == 63
    again = FetchRequest(tuple(Want("large/0", large[0].version, 16_000 * at) for at in range(40)))
    assert frames(world, again) <= 17
    small = world.publish(world.nodes[0], "small", bytes(1000))
    assert frames(world, FetchRequest((Want("small", small.version),) * 64)) <= 2


def test_what_is_asked_for_again_and_again_is_withheld() -> None:
    world = two()
    document = world.publish(world.nodes[0], "large", bytes(1_000_000))
    world.run(10)
    target = world.nodes[0].engine
    assert target is not None
    request = FetchRequest((Want("large", document.version),))
    while not target.counters["documents_withheld"]:
        frames(world, request)
        assert target.counters["tx_swap_response"] < 4000
    assert frames(world, request) <= 1
    world.run(5)
    assert frames(world, request) >= 16


def test_small_documents_that_are_asked_for_again_and_again_are_withheld_too() -> None:
    world = two()
    for number in range(40):
        world.publish(world.nodes[0], f"k/{number}", bytes(8000))
    world.run(10)
    target = world.nodes[0].engine
    assert target is not None
    old = Version(1, world.nodes[1].address)
    request = FetchRequest(tuple(Want(f"k/{number}", old) for number in range(40)))
    while not target.counters["documents_withheld"]:
        assert frames(world, request) <= 40
        assert target.counters["tx_swap_response"] < 8000


def test_records_are_told_of_once_in_a_request() -> None:
    world = two()
    address = world.nodes[0].address
    world.update(world.nodes[0], "x" * 4000)
    world.run(5)
    assert frames(world, RecordsRequest((address,) * 500)) <= 2


def test_a_request_that_names_many_silent_members_is_answered_in_one_frame() -> None:
    world = two()
    target = world.nodes[0].engine
    assert target is not None
    silent = (Sighting(world.nodes[1].address, 1, 0),) * 400
    assert frames(world, SyncRequest(1, target._lists.digest, silent)) <= 2  # too long is a Violation
