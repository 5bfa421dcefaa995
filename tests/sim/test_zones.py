# SPDX-License-Identifier: MIT
"""Zones: how many copies pass between them, how long a publish takes, and what the loss of a zone tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from xdp_gossip.core.events import Event, Transmit, ZoneChanged
from xdp_gossip.core.messages import MemberInfo, MemberList, Records
from xdp_gossip.core.packets import RUMORS, Header, PacketType
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import PRESENT, State

from .network import Link
from .steps import formed
from .world import _CODEC, SimNode, World

ZONES, MEMBERS = 3, 100
#: The default of agent.yml; the cycle is so long that only publishes bring heartbeats about.
FLEET = Settings(amount=4, cycle=60.0)
#: In one packet to an engine, which no network carries.
LISTED_AT_ONCE = 150


def zone_of(number: int) -> str:
    return f"zone{number % ZONES}"


def introduced(seed: int, zone: Callable[[int], str], planes: bool) -> World:
    """A fleet whose members know each other, without the traffic by which they would meet."""
    nodes = ZONES * MEMBERS
    numbers = range(nodes) if planes else ()
    world = World(seed, nodes, settings=FLEET, planes=numbers, zone=zone, observers=False, link=Link(loss=1.0))
    for node in world.nodes:
        node.boot()
    world.run(0.01)
    for node in world.nodes:
        introduce(node, world.nodes[node.number - 1], world)
    # What was sent meanwhile goes nowhere.
    world.run(10.0)
    world.network.link = Link()
    return world


def introduce(node: SimNode, teller: SimNode, world: World) -> None:
    assert node.engine is not None and teller.engine is not None
    sequence = 1000
    for at in range(0, len(world.nodes), LISTED_AT_ONCE):
        some = [other.engine.local for other in world.nodes[at : at + LISTED_AT_ONCE] if other.engine is not None]
        infos = tuple(MemberInfo(m.address, m.incarnation, 9, State.ALIVE, 0, m.record.digest, 0) for m in some)
        records = tuple((member.address, member.record) for member in some)
        for message in (MemberList(infos), Records(records)):
            sequence += 1
            kind = PacketType.SWAP_RESPONSE
            header = Header(kind, teller.address, teller.engine.incarnation, sequence, node.now.wall_ns, 0, 0)
            node.engine.receive(_CODEC.encode(header, message), teller.address, node.now)
    node.after_input()
    assert node.engine.tally()[State.ALIVE] == len(world.nodes)


@dataclass
class Seen:
    """``copies``: of rumors, by type and by whether they passed between zones. ``seconds``: until everywhere."""

    copies: Counter[tuple[PacketType, bool]]
    seconds: list[float]

    def all_of(self, kind: PacketType) -> int:
        return self.copies[kind, True] + self.copies[kind, False]

    def crossing(self, kind: PacketType) -> float:
        return self.copies[kind, True] / self.all_of(kind)


def publish(world: World, publishes: int) -> Seen:
    """Publish documents at several members, one after the other, and look at the copies of all rumors."""
    seen = Seen(Counter(), [])
    send = world.send

    def tapped(sender: SimNode, transmit: Transmit) -> None:
        kind = _CODEC.parse(transmit.data).type
        receiver = world.by_address[transmit.to]
        if kind in RUMORS:
            seen.copies[kind, zone_of(sender.number) != zone_of(receiver.number)] += 1
        send(sender, transmit)

    world.send = tapped  # type: ignore[method-assign]
    for number in range(publishes):
        author = world.rng.choice(world.nodes)
        world.publish(author, f"key{number}", b"value")
        assert author.engine is not None
        digest = author.engine.documents.digest

        def missing(digest: int = digest) -> str | None:
            behind = sum(node.engine.documents.digest != digest for node in world.nodes if node.engine is not None)
            return f"{behind} members lack the document" if behind else None

        seen.seconds.append(world.run_until(missing, 10.0, 0.0005))
    world.run(0.02)
    return seen


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("planes", [False, True], ids=["agent", "kernel"])
def test_few_copies_pass_between_zones_and_a_publish_takes_no_longer(planes: bool) -> None:
    """At most a tenth of the copies, two thirds without zones; in at most 1.5 times the time without zones."""
    zoned, plain = (publish(introduced(7, zone, planes), 8) for zone in (zone_of, lambda number: ""))
    for kind in (PacketType.METADATA, PacketType.HEARTBEAT):
        assert zoned.copies[kind, True] > 0
        assert zoned.crossing(kind) <= 0.10
        assert plain.crossing(kind) > 0.6
    print(
        f"crossing {zoned.crossing(PacketType.METADATA):.3f}, {plain.crossing(PacketType.METADATA):.3f} without zones"
    )
    print(f"seconds {zoned.seconds}, {plain.seconds} without zones")
    assert sum(zoned.seconds) <= 1.5 * sum(plain.seconds)
    # Heartbeats follow a publish, so their number depends on how long it takes.
    assert zoned.all_of(PacketType.METADATA) <= 1.05 * plain.all_of(PacketType.METADATA)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_zone_that_is_cut_off_and_returns_loses_nothing() -> None:
    """Members of the zone and of the others publish and delete meanwhile; after the cut, all hold the same.

    The scenario ``zone_cut`` has small fleets, with the kernel's data plane, too.
    """
    world = introduced(11, zone_of, planes=False)
    inside = [node.number for node in world.nodes if zone_of(node.number) == "zone1"]
    outside = [node.number for node in world.nodes if zone_of(node.number) != "zone1"]
    world.publish(world.nodes[inside[0]], "before", b"value")
    world.run(0.1)
    world.network.cut(inside, outside)
    for number in range(3):
        world.publish(world.nodes[inside[number]], f"inside{number}", b"value")
        world.publish(world.nodes[outside[number]], f"outside{number}", b"value")
        world.publish(world.nodes[inside[number]], "both", b"%d" % number)
        world.run(0.1)
    world.delete(world.nodes[inside[5]], "before")
    world.publish(world.nodes[outside[5]], "both", b"outside")
    world.run(0.1)
    world.network.heal()
    world.run_until(world.checks.disagreement, 300.0)
    world.checks.finally_sound()
    world.checks.nothing_lost()
    held = world.nodes[0].engine.documents.get("both") if world.nodes[0].engine is not None else None
    assert held is not None and held.value == b"outside"


def events_of_zones(world: World) -> list[tuple[int, ZoneChanged]]:
    """What all nodes tell of zones from now on, with the numbers of the nodes."""
    told: list[tuple[int, ZoneChanged]] = []
    tell = world.tell

    def tapped(number: int, event: Event) -> None:
        if isinstance(event, ZoneChanged):
            told.append((number, event))
        tell(number, event)

    world.tell = tapped  # type: ignore[method-assign]
    return told


def away(world: World, numbers: Sequence[int]) -> Callable[[], str | None]:
    """Whether every other node lists the nodes with these numbers as gone."""
    gone = {world.nodes[number].address for number in numbers}

    def missing() -> str | None:
        for node in world.up:
            assert node.engine is not None
            listed = {member.address for member in node.engine.members(node.now) if member.state in PRESENT}
            if node.number not in numbers and listed & gone:
                return f"node {node.number} lists {len(listed & gone)} of them"
        return None

    return missing


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_the_loss_of_a_zone_is_one_event_on_each_member(seed: int) -> None:
    planes = range(0, 12, 2) if seed % 2 else ()
    world = World(seed, 12, settings=Settings(cycle=1.0), planes=planes, zone=zone_of)
    told = events_of_zones(world)
    formed(world)
    lost = [number for number in range(12) if zone_of(number) == "zone1"]
    kept = [number for number in range(12) if number not in lost]
    assert told == []
    for number in lost:
        world.nodes[number].crash()
    if planes:
        world.network.cut(lost, kept)
    world.run_until(away(world, lost), 120.0)
    assert sorted(told) == [(number, ZoneChanged("zone1", True, 4)) for number in kept]
    told.clear()
    world.network.heal()
    for number in lost:
        world.nodes[number].boot()
    world.run_until(world.checks.disagreement, 120.0)
    backs = [(number, event.zone, event.lost) for number, event in told]
    assert sorted(backs) == [(number, "zone1", False) for number in kept]


@pytest.mark.slow
def test_a_cut_is_the_loss_of_the_other_zones_on_either_side_and_isolation_is_none() -> None:
    world = World(3, 9, settings=Settings(cycle=1.0), zone=zone_of)
    told = events_of_zones(world)
    formed(world)
    inside = [number for number in range(9) if zone_of(number) == "zone1"]
    outside = [number for number in range(9) if number not in inside]
    world.network.cut(inside, outside)
    world.run_until(away(world, inside), 120.0)
    world.run(60.0)
    seen = sorted((number, event.zone, event.members) for number, event in told)
    assert [one for one in seen if one[0] in outside] == [(number, "zone1", 3) for number in outside]
    assert [one for one in seen if one[0] in inside] == [(n, zone, 3) for n in inside for zone in ("zone0", "zone2")]
    told.clear()
    world.network.heal()
    world.run_until(world.checks.disagreement, 200.0)
    told.clear()
    world.network.cut([0], range(1, 9))
    world.run(60.0)
    assert world.nodes[0].engine is not None and world.nodes[0].engine.isolated
    assert told == []


def test_a_zone_that_leaves_and_nodes_of_an_earlier_run_are_no_loss() -> None:
    world = World(4, 6, settings=Settings(cycle=1.0), zone=zone_of)
    told = events_of_zones(world)
    formed(world)
    for number in (1, 4):
        world.leave(world.nodes[number])
    world.run(20.0)
    assert told == []
    for node in world.nodes:
        if node.engine is not None:
            node.stop()
    world.nodes[0].boot()
    world.run(60.0)
    assert told == []
