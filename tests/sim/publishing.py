# SPDX-License-Identifier: MIT
"""Scenarios of the documents' own rules: batches, compare-and-set, expiry, and tombstones that are collected."""

from __future__ import annotations

from xdp_gossip.core.interface import ProtocolError
from xdp_gossip.core.types import Document, Write

from .checks import Violation
from .network import Link
from .steps import REMOVED_WITHIN, formed, publish_somewhere, settle
from .world import SimNode, World


def _split(world: World, both_ways: bool = True) -> None:
    nodes = list(range(len(world.nodes)))
    world.rng.shuffle(nodes)
    at = world.rng.randint(1, len(nodes) - 1)
    world.network.cut(nodes[:at], nodes[at:], both_ways=both_ways)


def _batch(world: World) -> list[Write]:
    rng = world.rng
    writes = []
    for number in rng.sample(range(5), rng.randint(2, 4)):
        size = rng.choice([0, 300, 300, 3000, 40_000])
        deleted = rng.random() < 0.1
        writes.append(Write(f"together/{number}", b"" if deleted else rng.randbytes(8) + bytes(size), deleted=deleted))
    return writes


def together(world: World) -> None:
    """Nodes publish batches under loss, partitions and crashes. No node ever shows only a part of a batch."""
    formed(world)
    rng = world.rng
    world.network.link = Link(loss=rng.uniform(0.0, 0.2), duplicate=0.05, delay=0.005, jitter=0.02, straggle=0.02)
    for _ in range(5):
        node = rng.choice(world.up)
        world.write(node, _batch(world))
        if rng.random() < 0.3:
            world.publish(rng.choice(world.up), f"together/{rng.randrange(5)}", rng.randbytes(20))
        if rng.random() < 0.3 and len(world.up) > 2:
            world.run(rng.choice([0.0, 0.01, 0.3]))
            node.crash()
        if rng.random() < 0.4:
            _split(world, rng.random() < 0.7)
        world.run(rng.choice([0.0, 0.01, 0.5, 4.0]))
        if rng.random() < 0.5:
            world.network.heal()
        for gone in world.nodes:
            if gone.engine is None and rng.random() < 0.5:
                gone.boot()
    world.network.heal()
    world.network.link = Link()
    for gone in world.nodes:
        if gone.engine is None:
            gone.boot()
    settle(world)


def _attempt(world: World, node: SimNode, key: str, expected: Document | None, value: bytes) -> Document | None:
    """Compare-and-set; None when it was refused, and then with reason."""
    assert node.engine is not None
    held = node.engine.documents.get(key)
    version = None if expected is None or expected.deleted else expected.version
    write = Write(key, value, expected=version, absent=version is None)
    actual = None if held is None or held.deleted else held.version
    try:
        written = world.write(node, [write])[0]
    except ProtocolError as error:
        if error.code != "version_mismatch" or actual == version:
            raise Violation(f"{node.address} refused {key!r} although it held {actual}: {error}") from error
        return None
    if actual != version:
        raise Violation(f"{node.address} took {key!r} although it held {actual}, not {version}")
    return written


def compare_and_set(world: World) -> None:
    """Writers compete by compare-and-set, on one member and on several, in both halves of a partition."""
    formed(world)
    rng = world.rng
    keeper = rng.choice(world.nodes)
    counted = 0
    for turn in range(8):
        # Two that read the same version on one member: exactly one of them gets through.
        assert keeper.engine is not None
        read = keeper.engine.documents.get("counter")
        won = [_attempt(world, keeper, "counter", read, f"{counted + 1} {who}".encode()) for who in "ab"]
        if [written is not None for written in won] != [True, False]:
            raise Violation(f"expected one of two to get through, got {won}")
        counted += 1
        # On several members both may, while they do not know of each other: the later one holds, the other is told of.
        for node in rng.sample(world.up, 2):
            assert node.engine is not None
            _attempt(world, node, "contested", node.engine.documents.get("contested"), rng.randbytes(12))
        if turn == 2:
            _split(world)
        if turn == 5:
            world.network.heal()
        world.run(rng.choice([0.0, 0.01, 1.0, REMOVED_WITHIN / 2]))
    settle(world)
    for node in world.up:
        assert node.engine is not None
        held = node.engine.documents.get("counter")
        if held is None or held.value.split()[0] != b"%d" % counted:
            raise Violation(f"{node.address}: expected {counted} writes, holds {held and held.value!r}")


def expiring(world: World) -> None:
    """Documents expire on all members, even on isolated ones. Documents that are published after an expiry stay."""
    formed(world)
    rng = world.rng
    for node in world.nodes:
        node.skew = rng.uniform(-0.3, 0.3)
    for number in range(4):
        world.write(
            rng.choice(world.up), [Write(f"short/{number}", rng.randbytes(9), expires_in=rng.uniform(0.5, 12.0))]
        )
    world.run(rng.uniform(0.0, 2.0))
    away = rng.sample(world.nodes, 2)
    away[0].crash()
    world.network.cut([away[1].number], [node.number for node in world.nodes if node is not away[1]])
    for _ in range(3):
        node = rng.choice(world.up)
        write = Write(f"short/{rng.randrange(4)}", rng.randbytes(9), expires_in=rng.choice([None, 3.0]))
        world.write(node, [write])
        world.run(rng.uniform(0.0, 5.0))
    world.run(13.0)
    away[0].boot()
    world.network.heal()
    settle(world)
    for node in world.up:
        assert node.engine is not None
        for document in node.engine.documents.live():
            if document.expired(node.now.wall_ns // 10**6 - 1000):
                raise Violation(f"{node.address} still shows {document}, which is over")


def collected(world: World) -> None:
    """Tombstones are retired while a node is away. No deleted document returns, and no newer document is lost.

    The node may come back without its disk, as a new member.
    """
    formed(world)
    rng = world.rng
    for number in range(6):
        world.publish(rng.choice(world.up), f"kept/{number}", rng.randbytes(9))
    settle(world)
    away = rng.choice(world.nodes)
    others = [node for node in world.nodes if node is not away]
    cut_off = rng.random() < 0.5
    if cut_off:
        world.network.cut([away.number], [node.number for node in others])
    else:
        away.crash()
    if cut_off and rng.random() < 0.5:
        world.publish(away, "kept/1", b"written away, before")
    world.run(rng.uniform(0.5, 2.0))
    for number in range(3):
        world.delete(rng.choice(others), f"kept/{number}")
        world.run(rng.uniform(0.0, 2.0))
    world.write(rng.choice(others), [Write("kept/8", b"written with a deletion"), Write("kept/3", deleted=True)])
    restarted = rng.choice(others)
    world.run(rng.uniform(1.2, 3.0) * world.settings.tombstone_grace)
    if rng.random() < 0.5:
        restarted.crash()
        restarted.boot()
    if cut_off:
        world.publish(away, "kept/7", b"written away, after")
    publish_somewhere(world)
    world.run(rng.uniform(0.0, 3.0))
    world.network.heal()
    if away.engine is None:
        if rng.random() < 0.5:
            away.disk = type(away.disk)()
        away.boot(others[:1])
    settle(world)
    for node in world.up:
        assert node.engine is not None
        for key in ("kept/0", "kept/3"):
            if held := node.engine.documents.get(key):
                raise Violation(f"{node.address} holds {held}, which was deleted")
