# SPDX-License-Identifier: MIT
"""Scenarios: each makes a world from a seed, lets things happen to it, and demands that it ends well.

Times are virtual seconds; the cycle is one, suspicion begins after five (``3 x cycle + 2``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.support.keys import KEY, OTHER_KEY
from xdp_gossip.core.observers.readmission import CLEAN_FOR
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.settings import Settings
from xdp_gossip.core.types import PRESENT, Address
from xdp_gossip.core.types import State as MemberState
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import HEADER_BYTES, NativeCodec

from . import clocks
from .checks import State, Violation
from .network import DATAGRAM, Link
from .publishing import collected, compare_and_set, expiring, together
from .rotation import missed_rotation, rotation
from .steps import (
    REMOVED_WITHIN,
    SETTINGS,
    SETTLED_WITHIN,
    Scenario,
    formed,
    publish_somewhere,
    restart,
    settle,
    some,
)
from .world import SimNode, World


def calm(world: World) -> None:
    """Nothing goes wrong. No member is suspected, and every publish reaches all members within a few cycles."""
    formed(world)
    world.checks.forbid_suspicion = world.checks.forbid_removal = True
    for _ in range(5):
        publish_somewhere(world)
        world.run(world.rng.uniform(0.0, 2.0))
    world.run_until(world.checks.disagreement, 4.0)
    before = len(world.checks.heartbeats)
    world.run(5.0)
    if len(world.checks.heartbeats) - before < 4 * len(world.nodes):
        raise Violation("expected a heartbeat of every node in every cycle")
    settle(world, 3.0)


def loss(world: World) -> None:
    """The network loses, duplicates, delays and reorders datagrams. Publishes arrive, and no member is removed."""
    formed(world)
    world.checks.forbid_removal = True
    world.network.link = Link(
        loss=world.rng.uniform(0.05, 0.2), duplicate=0.05, delay=0.005, jitter=0.02, straggle=0.02
    )
    for _ in range(6):
        publish_somewhere(world)
        world.run(world.rng.uniform(0.2, 3.0))
    world.run(3.0)
    world.network.link = Link()
    settle(world, 10.0)


def simultaneous(world: World) -> None:
    """Several nodes publish one key at the same instant, repeatedly. All members keep the same version."""
    formed(world)
    world.checks.forbid_removal = True
    for _ in range(4):
        for node in some(world, 2, len(world.nodes)):
            world.publish(node, "contested", world.rng.randbytes(world.rng.choice([5, 2000])))
            if world.rng.random() < 0.2:
                world.delete(node, "contested")
        world.run(world.rng.choice([0.0, 0.001, 0.5]))
    settle(world, 10.0)


def partition(world: World) -> None:
    """The network splits for a shorter or a longer time than a removal takes, and nodes publish in every part."""
    formed(world)
    publish_somewhere(world)
    for _ in range(world.rng.randint(1, 2)):
        nodes = list(range(len(world.nodes)))
        world.rng.shuffle(nodes)
        at = world.rng.randint(1, len(nodes) - 1)
        world.network.cut(nodes[:at], nodes[at:], both_ways=world.rng.random() < 0.8)
        for _ in range(3):
            world.run(world.rng.uniform(0.1, 6.0))
            publish_somewhere(world)
        world.network.heal()
        world.run(world.rng.uniform(0.0, 4.0))
    # Observers may decide a moment after the end. Whoever was removed twice returns after a minute of clean probes.
    world.run(3.0)
    settle(world, SETTLED_WITHIN + CLEAN_FOR)


def zone_cut(world: World) -> None:
    """A zone is cut off while nodes publish on both sides. After the cut, everybody holds everything."""
    zones = world.rng.randint(2, 3)
    world.zone = lambda number: "abc"[number % zones]
    formed(world)
    numbers = range(len(world.nodes))
    for _ in range(world.rng.randint(1, 2)):
        lost = world.rng.randrange(zones)
        inside = [number for number in numbers if number % zones == lost]
        world.network.cut(inside, [number for number in numbers if number % zones != lost])
        for _ in range(3):
            publish_somewhere(world)
            world.run(world.rng.uniform(0.1, 8.0))
        world.network.heal()
        world.run(world.rng.uniform(0.0, 4.0))
    world.run(3.0)
    settle(world, SETTLED_WITHIN + CLEAN_FOR)


def lonely_link(world: World) -> None:
    """Two nodes cannot reach each other, but all other nodes reach both. No member is removed."""
    formed(world)
    world.checks.forbid_removal = True
    a, b = world.rng.sample(range(len(world.nodes)), 2)
    world.network.cut([a], [b], both_ways=world.rng.random() < 0.5)
    for _ in range(3):
        publish_somewhere(world)
        world.run(world.rng.uniform(2.0, 6.0))
    settle(world, 10.0)


def crash(world: World) -> None:
    """Nodes are killed, some while they publish. Other nodes remove killed nodes, and list them after a restart."""
    formed(world)
    victims = some(world, 1, 2)
    for victim in victims:
        world.publish(victim, "last words", victim.node.name.encode())
        world.run(world.rng.choice([0.0, 0.001, 0.01, 1.0]))
        victim.crash()
    if world.rng.random() < 0.5:
        _await_removal(world, victims)
    publish_somewhere(world)
    world.run(world.rng.uniform(0.0, 3.0))
    for victim in victims:
        # From the disk alone: no seeds.
        victim.boot()
    settle(world)


def agent_gone(world: World) -> None:
    """Agents end, and the hosts with a data plane go on answering. Then the hosts end, too, and some come back."""
    formed(world)
    world.run(12.0)
    victims = some(world, 1, 2)
    for victim in victims:
        victim.crash()
    world.run(REMOVED_WITHIN + 5.0)
    for victim in victims:
        expected = MemberState.AGENT_DOWN if victim.plane is not None else MemberState.DEAD
        for node in world.up:
            assert node.engine is not None
            found = next(m.state for m in node.engine.members(node.now) if m.address == victim.address)
            if found is not expected:
                raise Violation(f"{node.address} shows {victim.address} as {found.value}, expected {expected.value}")
    back = world.rng.random() < 0.5
    if not back:
        others = [node.number for node in world.up]
        world.network.cut([victim.number for victim in victims], others)
        _await_removal(world, victims)
        world.run(REMOVED_WITHIN)
    world.network.heal()
    for victim in victims:
        victim.boot()
    settle(world)


def _await_removal(world: World, gone: Sequence[SimNode]) -> None:
    """``gone`` are listed by nobody, soon."""
    addresses = {node.address for node in gone}

    def listed() -> str | None:
        for node in world.up:
            assert node.engine is not None
            for member in node.engine.members(node.now):
                if member.address in addresses and member.state in PRESENT:
                    return f"{node.address} still lists {member.address}, which is gone"
        return None

    world.run_until(listed, REMOVED_WITHIN)


def power_off(world: World) -> None:
    """All nodes stop at once, for minutes or days, and restart in any order without seeds."""
    formed(world)
    for _ in range(3):
        publish_somewhere(world)
        world.run(world.rng.uniform(0.0, 1.0))
    world.run(world.rng.uniform(2.0, 4.0))
    for node in world.nodes:
        node.crash()
    world.run(world.rng.choice([1.0, 60.0, 3 * 86400.0]))
    order = list(world.nodes)
    world.rng.shuffle(order)
    for node in order:
        node.boot()
        world.run(world.rng.uniform(0.0, 2.0))
    settle(world)


def freeze(world: World) -> None:
    """Nodes freeze for a while. After a long freeze other nodes remove frozen nodes. A thawed node removes no node."""
    formed(world)
    sleepers = some(world, 1, 2)
    for sleeper in sleepers:
        sleeper.freeze()
    for _ in range(2):
        publish_somewhere(world)
        world.run(world.rng.uniform(0.5, 10.0))
    world.checks.forbid_removal_by = {sleeper.address for sleeper in sleepers}
    for sleeper in sleepers:
        sleeper.thaw()
    # Observers may decide a moment after the end.
    world.run(3.0)
    world.checks.forbid_removal = True
    settle(world)


def clock_skew(world: World) -> None:
    """Some wall clocks are an hour off, and one of them is corrected. The cluster forms, and the last publish wins."""
    rng = world.rng
    for node in world.nodes:
        node.skew = rng.uniform(-0.5, 0.5)
    wrong = rng.sample(world.nodes, len(world.nodes) // 3)
    for node in wrong:
        node.skew = rng.choice([-3600.0, 3600.0])
    world.boot_all()
    world.run_until(world.checks.disagreement, SETTLED_WITHIN)
    for _ in range(4):
        publish_somewhere(world)
        world.run(rng.uniform(0.0, 2.0))
    settle(world)
    rng.choice(wrong).skew = 0.0
    _in_turn(world)


def _in_turn(world: World) -> None:
    """Different nodes overwrite one key after each other: the last one wins, whatever its clock says."""
    for _ in range(3):
        node = world.rng.choice(world.up)
        last = world.publish(node, "in turn", world.rng.randbytes(10))
        settle(world, 15.0)
        if world.checks.winners()["in turn"].value != last.value:
            raise Violation(f"{node.address} published after the others, and lost")


def wrong_clock_alone(world: World) -> None:
    """One or two isolated nodes publish with clocks an hour ahead. Later publishes of other nodes replace theirs."""
    formed(world)
    loners = some(world, 1, 1 if len(world.nodes) < 5 else 2)
    others = [node.number for node in world.nodes if node not in loners]
    world.network.cut([loner.number for loner in loners], others)
    world.run(world.rng.choice([1.0, REMOVED_WITHIN]))
    for loner in loners:
        loner.skew = 3600.0
    restarts = world.rng.random() < 0.5
    if restarts:
        restart(world, loners)
    world.publish(world.rng.choice(loners), "in turn", b"from the future")
    world.run(world.rng.uniform(0.5, 3.0))
    if world.rng.random() < 0.5:
        for loner in loners:
            loner.skew = 0.0
    if world.rng.random() < 0.5:
        restart(world, loners)
    world.network.heal()
    settle(world)
    _in_turn(world)
    for loner in loners:
        loner.skew = 0.0
    restart(world, loners)
    settle(world)
    _in_turn(world)


def catch_up(world: World) -> None:
    """A new node and a node that was away fetch many documents, some of them large, while members come and go."""
    rng = world.rng
    late, *early = world.nodes
    for node in early:
        node.boot(early[:2])
    world.run_until(world.checks.disagreement, 10.0)
    for number in range(rng.choice([5, 60])):
        world.publish(rng.choice(world.up), f"many/{number}", rng.randbytes(8) * rng.choice([1, 100]))
    world.publish(rng.choice(world.up), "large", rng.randbytes(8) * rng.choice([3_000, 40_000]))
    world.run(rng.uniform(0.0, 3.0))
    away = rng.choice(early[1:])
    away.crash()
    world.publish(rng.choice(world.up), "large", rng.randbytes(8) * 10_000)
    late.boot(early[:2])
    world.run(rng.uniform(0.0, 0.3))
    world.publish(rng.choice(early[:1]), "large", rng.randbytes(8) * 12_000)
    away.boot()
    settle(world)


def large_transfer(world: World) -> None:
    """A node that was away fetches a large document, and a holder or the node is killed during the transfer."""
    formed(world)
    rng = world.rng
    away, *others = rng.sample(world.nodes, len(world.nodes))
    away.crash()
    world.publish(rng.choice(others), "large", rng.randbytes(8) * rng.choice([40_000, 150_000]))
    world.run(rng.uniform(1.0, 4.0))
    away.boot()
    world.run(rng.choice([0.0, 0.01, 0.05, 0.3]))
    victim = away if rng.random() < 0.3 else rng.choice(others)
    victim.crash()
    world.run(rng.uniform(0.0, 3.0))
    victim.boot()
    settle(world)


def leave(world: World) -> None:
    """Nodes leave. All other members remove a leaving node at once, and list it again only if it restarts."""
    formed(world)
    world.checks.forbid_removal = True
    leavers = some(world, 1, 2)
    for leaver in leavers:
        world.leave(leaver)
        # Not by the next to leave: what it had no time to hand on would come back only with it.
        world.publish(next(node for node in world.up if node not in leavers), "farewell", leaver.node.name.encode())
    world.run_until(world.checks.disagreement, 6.0)
    world.run(8.0)
    settle(world, 3.0)
    for leaver in leavers:
        leaver.boot(world.up[:1] if world.rng.random() < 0.5 else ())
    settle(world)


def pause(world: World) -> None:
    """A node pauses and resumes. After the timeout others remove the node, but still send documents to it."""
    formed(world)
    sleeper = world.rng.choice(world.nodes)
    world.pause(sleeper)
    _await_removal_of_paused(world, sleeper)
    world.publish(next(node for node in world.nodes if node is not sleeper), "while paused", b"news")
    world.run(world.rng.uniform(2.0, 5.0))
    world.resume(sleeper)
    settle(world)


def _await_removal_of_paused(world: World, sleeper: SimNode) -> None:
    def listed() -> str | None:
        for node in world.up:
            assert node.engine is not None
            if node is not sleeper:
                for member in node.engine.members(node.now):
                    if member.address == sleeper.address and member.state in PRESENT:
                        return f"{node.address} still lists {member.address}, which is paused"
        return None

    world.run_until(listed, REMOVED_WITHIN)


def private_data(world: World) -> None:
    """Nodes change their private data under loss. All members list each node once, with its latest private data."""
    formed(world)
    world.network.link = Link(loss=world.rng.uniform(0.0, 0.2), jitter=0.02)
    for turn in range(8):
        node = world.rng.choice(world.nodes)
        world.update(node, f"turn {turn} " + "x" * world.rng.choice([0, 100, 3000]))
        world.run(world.rng.choice([0.0, 0.01, 1.0]))
    settle(world, 12.0)


def replay(world: World) -> None:
    """An attacker sends recorded packets again from another address. The packets change no member and no document."""
    formed(world)
    world.recording = []
    for _ in range(3):
        publish_somewhere(world)
        world.run(world.rng.uniform(0.0, 2.0))
    leaver, victim = world.rng.sample(world.nodes, 2)
    world.leave(leaver)
    victim.crash()
    world.run(REMOVED_WITHIN)
    settle(world)
    recording, world.recording = world.recording, None
    _attack(world, world.rng.sample(recording, min(400, len(recording))))
    later = world.rng.choice([0.0, 20.0])
    world.run(later)
    _attack(world, world.rng.sample(recording, min(400, len(recording))))


def _attack(world: World, packets: Sequence[tuple[SimNode, bytes]]) -> None:
    """Throw packets at nodes: nobody may change, neither at once nor when they had time to talk about it."""
    stranger = Address.of("198.19.0.1", 666)
    before = [(node, world.checks.state(node)) for node in world.up]
    for receiver, data in packets:
        target = receiver if world.rng.random() < 0.5 else world.rng.choice(world.up)
        source = world.rng.choice([stranger, world.rng.choice(world.nodes).address])
        target.receive(data, source, datagram=len(data) <= DATAGRAM)
        if world.rng.random() < 0.05:
            world.run(0.05)
    _unchanged(before, world)
    world.run(2.0)
    _unchanged(before, world)
    settle(world, 3.0)


def _unchanged(before: Sequence[tuple[SimNode, State]], world: World) -> None:
    for node, state in before:
        now = world.checks.state(node)
        names = sorted(name for name in state.keys() | now.keys() if state.get(name) != now.get(name))
        if names:
            shown = "; ".join(f"{name}: {state.get(name)} -> {now.get(name)}" for name in names)
            raise Violation(f"{node.address} was changed by packets that nobody sent now: {shown}")


def forgery(world: World) -> None:
    """An attacker sends mutated, truncated, random and foreign packets. The packets change nothing and are counted."""
    formed(world)
    world.recording = []
    publish_somewhere(world)
    world.run(3.0)
    settle(world)
    recording, world.recording = world.recording, None
    forged = [(world.rng.choice(world.nodes), _forge(world.rng, data)) for _, data in recording[-300:]]
    counted = sum(_rejections(node) for node in world.nodes)
    _attack(world, forged)
    counted = sum(_rejections(node) for node in world.nodes) - counted
    if counted < len(forged):
        raise Violation(f"{len(forged)} forged packets, and {counted} rejections counted")


def _rejections(node: SimNode) -> int:
    assert node.engine is not None
    accepted = {"heartbeat", "swap_request", "swap_response", "metadata", "leave", "record", "probe"}
    rejected = sum(
        value for name, value in node.engine.counters.items() if name.startswith("rx_") and name[3:] not in accepted
    )
    dropped = node.plane.model.counters.items() if node.plane is not None else ()
    return rejected + sum(value for name, value in dropped if name.startswith("drop_"))


def _forge(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.choice([0, 1, 87, 88, 89, 300]))
    if kind == 1:
        return data[: rng.randrange(len(data))]
    if kind == 2:
        return data + rng.randbytes(rng.randint(1, 20))
    if kind == 3:
        return _foreign(rng)
    mutated = bytearray(data)
    # Of the 88 bytes only the relay area is not signed: changing it alone is no forgery.
    at = rng.choice([*range(HEADER_BYTES - 8), *range(HEADER_BYTES, len(data))])
    mutated[at] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def _foreign(rng: random.Random) -> bytes:
    """A well-made packet of somebody without the key, or of another cluster."""
    keyring = rng.choice([Keyring.single("sim", OTHER_KEY), Keyring.single("elsewhere", KEY)])
    header = Header(
        PacketType.HEARTBEAT,
        Address.of(f"198.18.0.{rng.randint(1, 9)}", 8000),
        incarnation=2**31,
        sequence=rng.randint(1, 2**40),
        wall_ns=1_700_000_030 * 10**9,
        documents_digest=rng.getrandbits(64),
        record_digest=rng.getrandbits(64),
        ttl=5,
    )
    return NativeCodec(keyring).encode(header, None)


def twin(world: World) -> None:
    """A node loses its disk and restarts with an older incarnation. The node becomes a member again."""
    formed(world)
    node = world.rng.choice(world.nodes)
    node.crash()
    world.run(world.rng.uniform(0.0, 12.0))
    node.disk = type(node.disk)()
    node.skew = world.rng.choice([-20.0, 0.0])
    node.boot([other for other in world.nodes if other is not node][:1])
    settle(world)


def churn(world: World) -> None:
    """Random events of all kinds happen. After the last event the cluster recovers."""
    formed(world)
    rng = world.rng
    world.network.link = Link(loss=rng.uniform(0.0, 0.15), duplicate=0.02, jitter=0.01, straggle=0.01)
    for _ in range(20):
        _something(world)
        world.run(rng.choice([0.0, 0.1, 1.0, 3.0]))
    world.network.heal()
    world.network.link = Link()
    for node in world.nodes:
        if node.frozen:
            node.thaw()
        elif node.engine is None:
            node.boot()
        elif node.engine.status == "paused":
            world.resume(node)
    # Whoever was removed several times returns after some minutes of clean probes.
    settle(world, 45.0 + 8 * CLEAN_FOR)


def _something(world: World) -> None:
    rng = world.rng
    node = rng.choice(world.nodes)
    if node.frozen:
        node.thaw()
    elif node.engine is None:
        node.boot()
    elif len(world.up) <= 2:
        publish_somewhere(world)
    else:
        running = node.engine.status == "running"
        action = rng.choice(["publish"] * 4 + ["crash", "freeze", "leave", "pause", "update", "cut", "heal"])
        if action == "publish":
            publish_somewhere(world)
        elif action == "crash":
            node.crash()
        elif action == "freeze":
            node.freeze()
        elif action == "leave":
            world.leave(node)
        elif action == "pause":
            world.pause(node) if running else world.resume(node)
        elif action == "update":
            world.update(node, f"at {world.time}")
        elif action == "cut":
            side = rng.sample(range(len(world.nodes)), rng.randint(1, len(world.nodes) - 1))
            rest = [number for number in range(len(world.nodes)) if number not in side]
            world.network.cut(side, rest, both_ways=rng.random() < 0.7)
        else:
            world.network.heal()


#: Name -> (scenario, nodes at least, nodes at most).
SCENARIOS: dict[str, tuple[Scenario, int, int]] = {
    scenario.__name__: (scenario, least, most)
    for scenario, least, most in (
        (calm, 3, 8),
        (loss, 4, 7),
        (simultaneous, 3, 8),
        (partition, 3, 7),
        (zone_cut, 5, 9),
        (lonely_link, 4, 6),
        (crash, 4, 7),
        (agent_gone, 4, 7),
        (power_off, 3, 6),
        (freeze, 4, 6),
        (clock_skew, 4, 6),
        (wrong_clock_alone, 3, 6),
        (catch_up, 3, 6),
        (large_transfer, 3, 6),
        (leave, 4, 7),
        (pause, 3, 6),
        (private_data, 3, 8),
        (replay, 4, 6),
        (forgery, 3, 6),
        (twin, 3, 6),
        (together, 3, 6),
        (compare_and_set, 3, 6),
        (expiring, 3, 6),
        (collected, 3, 6),
        (rotation, 3, 7),
        (missed_rotation, 3, 6),
        (churn, 4, 7),
        *clocks.SCENARIOS,
    )
}
#: Settings of scenarios that need others than the usual ones.
_SETTINGS: dict[str, Settings] = {
    name: replace(SETTINGS, tombstone_grace=20.0) for name in ("collected", "away_beyond_the_grace")
}


def _planes(name: str, seed: int, size: int) -> list[int]:
    """Which nodes have a kernel data plane: in a third of the worlds none, in a third all, in the others some."""
    numbers = list(range(size))
    if seed % 3 == 2:
        return random.Random(f"planes {name} {seed}").sample(numbers, size // 2)
    return numbers if seed % 3 else []


def _zones(name: str, seed: int, size: int) -> list[str]:
    """The zones of the nodes: in half of the worlds there is none, in the others some nodes may be in no zone."""
    if seed // 3 % 2 == 0:
        return [""] * size
    rng = random.Random(f"zones {name} {seed}")
    return rng.choices(rng.sample(["", "a", "b", "c"], rng.randint(2, 4)), k=size)


def play(name: str, seed: int, show: Callable[[str], None] | None = None) -> World:
    """Run one scenario under one seed to its end; returns the world. Raises what went wrong.

    ``show`` is called with a line for each event.
    """
    scenario, least, most = SCENARIOS[name]
    size = random.Random(f"size {name} {seed}").randint(least, most)
    zones = _zones(name, seed, size)
    world = World(
        seed,
        size,
        settings=_SETTINGS.get(name, SETTINGS),
        planes=_planes(name, seed, size),
        zone=zones.__getitem__,
        # Where all clocks are wrong by more than a day, members refuse what a signer with a right clock signs.
        signs=seed // 6 % 2 == 1 and name != "boots_in_the_past",
        show=show,
    )
    try:
        scenario(world)
    except Exception as error:
        error.args = (f"[{size} nodes, {world.time:.3f} s] {error}",)
        raise
    return world
