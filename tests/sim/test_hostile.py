# SPDX-License-Identifier: MIT
"""A member that knows the secret and lies: what the others do for each other goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdp_gossip.core.events import Transmit
from xdp_gossip.core.messages import Announce, Entry, ListResponse, Message
from xdp_gossip.core.settings import Limits
from xdp_gossip.core.types import Address, Document, Version

from .steps import SETTINGS
from .world import SimNode, World

pytestmark = pytest.mark.slow


def four(**settings: object) -> World:
    """Three honest members, and the last one, which lies."""
    world = World(1, 4, settings=replace(SETTINGS, **settings))
    world.boot_all()
    world.run_until(world.checks.disagreement, 10.0)
    return world


def tell(liar: SimNode, target: SimNode, *messages: Message) -> None:
    """From the liar to one member over a connection, in order, whatever else its link carries."""
    assert liar.engine is not None
    liar.after_input()
    for message in messages:
        liar.engine._out.send(message, target.address, liar.now, reliable=True)
    for transmit in liar.engine.take_transmits():
        assert isinstance(transmit, Transmit)
        target.receive(transmit.data, Address(liar.node.addr, 40_000))


def invented(liar: SimNode, count: int, first: int = 0) -> list[Announce]:
    """Announcements of documents that nobody has."""
    version = Version(liar.now.wall_ns // 10**6 << 16, liar.address)
    entries = [Entry(f"no/{number}", version, False, bytes(32), 900) for number in range(first, first + count)]
    return [Announce(tuple(entries[start : start + 80])) for start in range(0, count, 80)]


def silence(world: World, liar: SimNode) -> None:
    """The liar holds what nobody else does, so nobody is taken for its like, and answers nothing any more."""
    assert liar.engine is not None
    liar.engine.documents._put(Document("its own", Version(1 << 50, liar.address), b"x"))
    liar.after_input()
    world.run(2.0)
    world.network.cut([0, 1, 2], [3])


@pytest.mark.parametrize("size", [3000, 20_000])
def test_invented_documents_keep_nobody_from_real_ones(size: int) -> None:
    world = four()
    target, author, _, liar = world.nodes
    assert target.engine is not None
    silence(world, liar)
    tell(liar, target, *invented(liar, 8000))
    world.run(0.3)
    assert len(target.engine._fetcher) == 8000
    world.publish(author, "real", bytes(size))
    world.run(3.0)
    assert target.engine.documents.get("real") is not None


def test_invented_documents_keep_nobody_from_lists() -> None:
    """What a member missed comes with a list of entries, which who is busy does not ask for."""
    world = four()
    target, author, _, liar = world.nodes
    assert target.engine is not None
    silence(world, liar)
    world.network.cut([0], [1, 2])
    for number in range(100):
        world.publish(author, f"real/{number}", b"x")
    world.run(2.0)
    world.network.heal()
    world.network.cut([0, 1, 2], [3])
    for turn in range(60):  # its lies are renewed as they are given up
        tell(liar, target, *invented(liar, 400, 400 * turn))
        world.run(0.25)
        if len(list(target.engine.documents.live())) >= 100:
            break
    assert len(list(target.engine.documents.live())) >= 100


def test_what_is_wanted_has_a_bound() -> None:
    world = four(limits=Limits(documents=500))
    target, author, _, liar = world.nodes
    assert target.engine is not None
    silence(world, liar)
    tell(liar, target, *invented(liar, 4000))
    world.run(0.3)
    assert len(target.engine._fetcher) <= 500
    assert target.engine.counters["fetches_dropped"] > 0
    world.publish(author, "real", bytes(3000))
    world.run(3.0)
    assert target.engine.documents.get("real") is not None


def test_lists_that_were_not_asked_for_are_not_kept() -> None:
    world = four()
    target, _, _, liar = world.nodes
    assert target.engine is not None
    entries = [entry for announce in invented(liar, 4000) for entry in announce.entries]
    tell(liar, target, *(ListResponse(tuple(entries[at : at + 80]), ()) for at in range(0, 4000, 80)))
    world.run(1.0)
    assert target.engine._anti_entropy._seen == {}
    assert len(target.engine._fetcher) == 0
    assert target.engine.counters["rx_unasked_response"] == 50


def test_lists_that_were_asked_for_keep_no_more_than_is_held() -> None:
    world = four()
    target, _, _, liar = world.nodes
    assert target.engine is not None and liar.engine is not None
    for number in range(5):
        world.publish(target, f"held/{number}", b"x")
    world.run(2.0)
    target.engine._anti_entropy._ask_for_lists(tuple(range(256)), liar.address, target.now)
    entries = [entry for announce in invented(liar, 4000) for entry in announce.entries]
    tell(liar, target, *(ListResponse(tuple(entries[at : at + 80]), ()) for at in range(0, 4000, 80)))
    assert sum(len(seen) for seen, _ in target.engine._anti_entropy._seen.values()) <= 5
