# SPDX-License-Identifier: MIT
"""The sequence diagrams and the state table of docs/protocol.md are what simulated clusters do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from xdp_gossip.core import messages
from xdp_gossip.core.events import Event, MemberChanged, Transmit
from xdp_gossip.core.members.liveness import TRANSITIONS
from xdp_gossip.core.packets import PacketType
from xdp_gossip.core.types import State

from . import world as worlds
from .scenarios import SETTINGS, play
from .steps import formed
from .world import SimNode, World

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
#: (sender, receiver, name of the message): a line of a diagram, or a packet of a world.
Arrow = tuple[int, int, str]
_NAMES = {"Heartbeat", *(name for name, value in vars(messages).items() if isinstance(value, type))}


def diagram(heading: str) -> list[Arrow]:
    """The arrows of the diagram below a heading, from top to bottom; lifelines are numbered from the left."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1]
    lines = section.split("```text\n")[1].split("```")[0].splitlines()
    columns = [found.start() for found in re.finditer(r"\|", max(lines, key=lambda line: line.count("|")))]
    arrows: list[Arrow] = []
    for line in lines[1:]:
        for found in re.finditer(r"(?<=\|)(<?--[^|]*--?>?)(?=\|)", line):
            left, right = columns.index(found.start() - 1), columns.index(found.end())
            sender, receiver = (right, left) if found[0].startswith("<") else (left, right)
            named = [name for name in re.findall(r"[A-Z]\w+", found[0]) if name in _NAMES]
            assert named, f"{heading}: expected the name of a message in {found[0]!r}"
            arrows.extend((sender, receiver, name) for name in named)
    return arrows


def watched(world: World, lifelines: list[SimNode]) -> list[Arrow]:
    """The packets between ``lifelines`` from now on, in the order in which they are sent."""
    arrows: list[Arrow] = []
    numbers = {node.address: place for place, node in enumerate(lifelines)}
    send = world.send

    def note(sender: SimNode, transmit: Transmit) -> None:
        if sender.address in numbers and transmit.to in numbers:
            header = worlds._CODEC.parse(transmit.data)
            message = worlds._CODEC.open(transmit.data, header)
            name = type(message).__name__ if message is not None else header.type.name.title()
            arrows.append((numbers[sender.address], numbers[transmit.to], name))
        send(sender, transmit)

    world.send = note  # type: ignore[method-assign]
    return arrows


def missing(expected: list[Arrow], seen: list[Arrow]) -> list[Arrow]:
    """What of ``expected`` does not follow, in this order, among what was ``seen``."""
    rest = iter(seen)
    for place, arrow in enumerate(expected):
        if arrow not in rest:
            return expected[place:]
    return []


def alike(heading: str, expected: list[Arrow]) -> list[list[Arrow]]:
    """The same with interchangeable lifelines permuted: any member syncs first, or gets a publish first."""
    places = max(max(sender, receiver) for sender, receiver, _ in expected) + 1
    fixed = {"Sync": 0, "Publish": 1}.get(heading.split()[0], places)
    orders = [(*range(fixed), *rest) for rest in itertools.permutations(range(fixed, places))]
    return [[(order[sender], order[receiver], name) for sender, receiver, name in expected] for order in orders]


def join() -> tuple[World, list[Arrow]]:
    """A node joins a cluster that holds a document, and fetches it from its seed."""
    world = World(3, 3, settings=SETTINGS)
    a, b, c = world.nodes
    for node in (b, c):
        node.boot([b])
    world.run_until(world.checks.disagreement, 10.0)
    world.publish(b, "k", b"v")
    world.run(2.0)
    arrows = watched(world, [a, b, c])
    a.boot([b])
    world.run_until(world.checks.disagreement, 10.0)
    return world, arrows


def probe() -> tuple[World, list[Arrow]]:
    """B is silent for longer than the timeout, and A cannot reach it when it speaks again."""
    # Silence comes before the observers of B have decided.
    world = World(1, 3, settings=replace(SETTINGS, timeout=1.5))
    formed(world)
    a, c, b = world.nodes
    world.network.cut([a.number], [b.number])
    b.freeze()
    arrows = watched(world, [a, c, b])
    world.run_until(lambda: None if (0, 1, "PingRequest") in arrows else "no indirect probe", 10.0, 0.01)
    b.thaw()
    world.run(1.0)
    assert a.engine is not None
    assert {member.state for member in a.engine.members(a.now)} == {State.ALIVE}
    return world, arrows


def sync(documents: int) -> tuple[World, list[Arrow]]:
    """Two members that hold ``documents`` in common publish while they do not hear each other."""
    world = World(1, 2, settings=SETTINGS)
    formed(world)
    a, b = world.nodes
    for number in range(documents):
        world.publish(a, f"common/{number}", b"v")
    world.run_until(world.checks.disagreement, 10.0)
    world.network.cut([0], [1])
    world.publish(a, "of a", b"v")
    world.publish(b, "of b", b"v")
    world.run(2.0)
    world.network.heal()
    arrows = watched(world, [a, b])
    world.run_until(world.checks.disagreement, 10.0)
    return world, arrows


def publish(size: int) -> tuple[World, list[Arrow]]:
    """A member publishes a document of ``size`` bytes, and each link carries a rumor once."""
    world = World(3, 3, settings=SETTINGS)
    formed(world)
    arrows = watched(world, world.nodes)
    world.publish(world.nodes[0], "k", bytes(size))
    world.run(2.0)
    return world, arrows


@pytest.mark.parametrize(
    ("heading", "scenario"),
    [
        ("Join", join),
        ("Probe", probe),
        ("Sync of few documents", lambda: sync(3)),
        ("Sync of many documents", lambda: sync(100)),
        ("Publish of a small document", lambda: publish(10)),
        ("Publish of a large document", lambda: publish(400_000)),
    ],
)
def test_a_cluster_does_what_a_diagram_shows(heading: str, scenario: Callable[[], tuple[World, list[Arrow]]]) -> None:
    expected = diagram(heading)
    assert len(expected) >= 4
    _world, seen = scenario()
    assert min((missing(each, seen) for each in alike(heading, expected)), key=len) == [], seen


def test_a_diagram_that_is_wrong_is_noticed() -> None:
    expected = diagram("Join")
    assert missing([*reversed(expected)], join()[1])
    assert PacketType.HEARTBEAT.name.title() in _NAMES


# -- states ------------------------------------------------------------------------------------------------------

Transition = tuple[str, str]
#: Scenarios that together make every transition that a simulated cluster can make.
SCENES = ("agent_gone", "crash", "leave", "freeze", "pause", "partition", "power_off", "twin", "churn")


def told() -> dict[Transition, str]:
    """The rows of the table of transitions: (from, to) -> events."""
    section = PAGE.read_text(encoding="utf-8").split("\n## States of a member\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| (\w+) \| (\w+) \| (.+?) \|", section)
    return {(before, after): event for before, after, event in rows if before != "from"}


def observed(names: tuple[str, ...], seeds: range, monkeypatch: pytest.MonkeyPatch) -> set[Transition]:
    """The transitions that the nodes of some worlds tell of."""
    found: set[Transition] = set()
    original = worlds.Checks.on_event

    def note(checks: worlds.Checks, node: SimNode, event: Event) -> None:
        if isinstance(event, MemberChanged) and not event.member.local and event.previous is not event.member.state:
            found.add((event.previous.value if event.previous else "unknown", event.member.state.value))
        original(checks, node, event)

    monkeypatch.setattr(worlds.Checks, "on_event", note)
    for name in names:
        for seed in seeds:
            play(name, seed)
    beside_a_host_without_agent()
    return found


def beside_a_host_without_agent() -> None:
    """A node starts while the agent of another host does not run and its kernel answers."""
    world = World(1, 4, settings=SETTINGS, planes=(0,))
    for node in world.nodes[:3]:
        node.boot([world.nodes[1]])
    world.run_until(world.checks.disagreement, 10.0)
    world.run(12.0)
    world.nodes[0].crash()
    world.run(20.0)
    world.nodes[3].boot([world.nodes[1]])
    world.run(10.0)


def test_the_table_has_the_transitions_of_the_code_and_no_other() -> None:
    coded = {(before.value, after.value) for before, row in TRANSITIONS.items() for after in row}
    assert {row for row in told() if "unknown" not in row and "forgotten" not in row} == coded


@pytest.mark.slow
def test_the_table_has_every_transition_that_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    table = told()
    states = {"unknown", "forgotten", *(state.value for state in State)}
    assert {state for row in table for state in row} == states
    seen = observed(SCENES, range(6), monkeypatch)
    assert seen <= table.keys(), "transitions that docs/protocol.md does not know"
    # The rest needs a host without a common address family, a day, or the delay of a single packet.
    rare = {row for row in table if "family" in table[row] or "forgotten" in row or "late" in table[row]}
    # A suspicion is over within a second, so these need a coincidence.
    rare |= {("suspect", "left"), ("suspect", "agent_down")}
    assert table.keys() - rare - seen == set(), "transitions that no simulated cluster makes"
