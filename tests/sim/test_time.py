# SPDX-License-Identifier: MIT
"""Wrong clocks, absences and leaps, each played once with the outcome that docs/protocol.md promises ("Time")."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdp_gossip.core.messages import MemberInfo, MemberList
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import PRESENT, Address, State, Write

from .steps import REMOVED_WITHIN, settle
from .world import EPOCH_S, SimNode, World

pytestmark = pytest.mark.slow

#: As an agent has them.
AGENT = Settings(amount=4, cycle=1.0, timeout_cycles=5)


def formed(nodes: int, **settings: float) -> World:
    world = World(1, nodes, settings=replace(AGENT, **settings))
    world.boot_all()
    world.run(10)
    return world


def values(world: World, key: str) -> list[bytes | None]:
    return [held.value if (held := node.engine.documents.get(key)) else None for node in world.up if node.engine]


def present(world: World, node: SimNode) -> int:
    assert node.engine is not None
    return sum(member.state in PRESENT for member in node.engine.members(node.now))


def test_a_member_that_collects_alone_deletes_nothing_on_others() -> None:
    world = formed(6, tombstone_grace=20.0)
    world.publish(world.nodes[5], "scratch", b"x")
    world.run(3)
    world.network.cut([5], range(5))
    world.run(2)
    world.publish(world.nodes[0], "app/config", b"published by the majority")
    world.run(2)
    world.delete(world.nodes[5], "scratch")
    world.run(40)
    lone = world.nodes[5].engine
    assert lone is not None and lone.documents.held("scratch") is None and lone.counters["tombstones_collected"] == 1
    world.network.heal()
    world.run(30)
    assert values(world, "app/config") == [b"published by the majority"] * 6
    assert values(world, "scratch") == [None] * 6


@pytest.mark.parametrize("back", [3 * 86_400.0, EPOCH_S - 100.0, float(EPOCH_S)])
def test_a_fleet_that_boots_in_the_past_keeps_its_newest_versions(back: float) -> None:
    world = formed(4)
    world.publish(world.nodes[0], "app/config", b"old")
    world.publish(world.nodes[0], "app/gone", b"to be deleted")
    world.run(5)
    world.nodes[3].crash()
    world.run(20)
    acknowledged = world.publish(world.nodes[1], "app/config", b"new")
    world.delete(world.nodes[1], "app/gone")
    world.run(5)
    for node in world.nodes[:3]:
        node.save_now()
        node.stop()
    world.run(60)
    for node in world.nodes[:3]:
        node.skew = -back
        node.boot()
    world.run(120)
    for node in world.nodes[:3]:
        assert node.engine is not None and node.engine.documents.get("app/config") == acknowledged
        node.skew = 0.0
    world.run(60)
    world.nodes[3].boot()
    world.run(60)
    assert values(world, "app/config") == [b"new"] * 4
    assert values(world, "app/gone") == [None] * 4


@pytest.mark.parametrize("leap", [2**32 - 1, 3_000_000_000])
def test_a_member_that_tells_of_a_leap_burns_no_address(leap: int) -> None:
    world = formed(4)
    liar, victim = world.nodes[1], world.nodes[0]
    assert liar.engine is not None and victim.engine is not None
    info = MemberInfo(victim.address, leap, 1, State.DEAD, 0, 0, 0)
    liar.engine._out.send(MemberList((info,)), victim.address, liar.now)
    liar.after_input()
    world.run(30)
    assert [present(world, node) for node in world.nodes] == [4] * 4
    victim.crash()
    world.run(1)
    victim.boot()
    settle(world)


def test_who_starts_for_the_first_time_in_2106_is_a_member_then_and_when_its_clock_is_right() -> None:
    world = World(1, 4, settings=AGENT)
    late = world.nodes[3]
    late.skew = 4_294_967_000.0 - EPOCH_S
    world.boot_all()
    settle(world)
    for skew in (0.0, late.skew, 0.0):
        late.crash()
        world.run(REMOVED_WITHIN)
        late.skew = skew
        late.boot()
        settle(world)


def test_of_two_members_the_one_whose_clock_is_right_loses_no_publish() -> None:
    """Three hold an older version and are away; one of the two that are there has a clock ten minutes back."""
    world = formed(5)
    world.publish(world.nodes[0], "k", b"older")
    world.run(5)
    for node in world.nodes[2:]:
        node.crash()
    world.run(REMOVED_WITHIN)
    world.nodes[1].skew = -600.0
    world.run(10)
    newer = world.publish(world.nodes[0], "k", b"newer")
    world.run(3)
    assert values(world, "k") == [b"newer"] * 2
    for node in world.nodes[2:]:
        node.boot()
    world.run(20)
    assert values(world, "k") == [b"newer"] * 5
    assert world.nodes[2].engine is not None and world.nodes[2].engine.documents.get("k") == newer
    assert world.checks.conflicts == 0


def test_who_wakes_up_publishes_with_the_time_that_holds() -> None:
    world = formed(4)
    sleeper = world.nodes[2]
    sleeper.suspend()
    world.run(300.0)
    sleeper.wake()
    lease = world.publish(sleeper, "k", b"first thing")
    assert sleeper.engine is not None
    assert abs(lease.version.wall_ms - (EPOCH_S + world.time) * 1000) < 1000
    assert sleeper.engine.counters["suspends"] == 1 and sleeper.engine.counters["clock_steps"] == 0
    settle(world)


def test_a_recording_of_a_minute_ago_lists_nobody_for_who_has_just_started() -> None:
    world = formed(4)
    world.recording = []
    world.run(3)
    recording, world.recording = world.recording, None
    dead, fresh = world.nodes[2], world.nodes[3]
    dead.crash()
    fresh.crash()
    world.run(50)
    fresh.disk = type(fresh.disk)()
    fresh.boot([world.nodes[0]])
    world.run(5)
    packets = [data for _receiver, data in recording if data[36:40] == dead.address.packed[12:]]
    assert packets and fresh.engine is not None
    for data in packets:
        fresh.receive(data, dead.address, datagram=True)
    states = {member.address: member.state for member in fresh.engine.members(fresh.now)}
    assert states.get(dead.address) not in PRESENT
    assert fresh.engine.counters["rx_stale_time"] > 0


def lease(world: World, seconds: float) -> None:
    world.write(world.nodes[0], [Write("lease", b"held", expires_in=seconds)])
    world.run(3)
    assert values(world, "lease") == [b"held"] * len(world.up)


@pytest.mark.parametrize(
    ("nodes", "wrong"), [(1, 1), (2, 1), (2, 2), (5, 1), (5, 3), (5, 5)], ids=lambda number: str(number)
)
@pytest.mark.parametrize("ahead", [7200.0, 8 * 86_400.0])
def test_clocks_that_run_ahead_for_a_moment_end_nothing(nodes: int, wrong: int, ahead: float) -> None:
    world = formed(nodes)
    lease(world, 600.0)
    for node in world.nodes[:wrong]:
        node.skew = ahead
    world.run(45)
    assert values(world, "lease") == [b"held"] * nodes
    for node in world.nodes[:wrong]:  # at different times, so that each is the first to be right for a while
        node.skew = 0.0
        world.run(0.7)
    world.run(10)
    assert values(world, "lease") == [b"held"] * nodes
    world.run(600.0 - 80.0)
    assert values(world, "lease") == [b"held"] * nodes
    world.run(30)
    assert values(world, "lease") == [None] * nodes, "it ends when it should"


def test_who_is_alone_with_a_clock_known_to_run_ahead_ends_nothing_by_it() -> None:
    world = formed(4)
    fast = world.nodes[3]
    fast.skew = 7200.0
    world.run(5)
    lease(world, 3600.0)
    world.network.cut([3], range(3))
    world.run(600)
    assert values(world, "lease") == [b"held"] * 4
    fast.skew = 0.0  # put right while it is alone
    world.run(3000)
    assert values(world, "lease") == [None] * 4


def test_a_clock_that_goes_on_running_ahead_ends_nothing_on_others() -> None:
    world = formed(2)
    lease(world, 3600.0)
    world.nodes[1].skew = 7200.0
    world.run(300)
    assert values(world, "lease") == [b"held", None], "of two members each has its own time"
    world.nodes[1].skew = 0.0
    world.run(10)
    assert values(world, "lease") == [b"held"] * 2


def test_a_fleet_whose_clocks_were_an_hour_back_ends_what_is_over_soon() -> None:
    world = formed(3)
    for node in world.nodes:
        node.skew = -3600.0
    world.run(5)
    lease(world, 1800.0)
    for node in world.nodes:
        node.skew = 0.0
    world.run(180)
    assert values(world, "lease") == [None] * 3


def marked(node: SimNode) -> set[Address]:
    """Of whom a node says that the clock is off."""
    assert node.engine is not None
    return {member.address for member in node.engine.members(node.now) if "clock" in member.problems}


def test_whose_clock_is_off_is_told_by_the_others() -> None:
    world = formed(4)
    wrong = world.nodes[1]
    wrong.skew = 31.0
    world.run(5)
    others = [node for node in world.nodes if node is not wrong]
    assert [marked(node) for node in others] == [{wrong.address}] * 3
    assert marked(wrong) == set(), "its own offset tells it"
    assert wrong.engine is not None and wrong.engine.clock_offset < -30.0
    assert [node.engine.counters["clocks_apart"] for node in others if node.engine is not None] == [1, 1, 1], "once"
    wrong.skew = 29.0
    world.run(5)
    assert [marked(node) for node in world.nodes] == [set()] * 4
    wrong.skew = 31.0
    world.run(5)
    wrong.crash()
    world.run(REMOVED_WITHIN)
    assert [marked(node) for node in others] == [set()] * 3, "the clock of who is gone is not known"


def test_of_two_members_each_says_that_the_others_clock_is_off() -> None:
    world = formed(2)
    world.nodes[0].skew = -40.0
    world.run(5)
    assert [marked(node) for node in world.nodes] == [{world.nodes[1].address}, {world.nodes[0].address}]
