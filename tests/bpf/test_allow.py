# SPDX-License-Identifier: MIT
"""Who may speak to a node, as the programs see it: before anything else is looked at."""

from __future__ import annotations

import os

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import TC_NEXT, TC_SHOT, XDP_DROP, XDP_PASS, Plane
from tests.bpf.scene import TC, XDP, known, local, origin, packet, source
from tests.bpf.test_frames import CASES, ODD, Case
from xdp_gossip.core.allowlist import AllowList, parse_network
from xdp_gossip.core.packets import PacketType

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF"),
    pytest.mark.usefixtures("link"),
]
PROGRAMS = pytest.mark.parametrize("program", [XDP, TC])
#: Networks -> whether the source of the scene's frames is in one, 198.18.60.2 or fd00:198:18:60::2.
LISTS = {
    4: {
        ("198.18.60.2/32",): True,
        ("10.0.0.0/8", "198.18.0.0/15"): True,
        ("0.0.0.0/0",): True,
        ("0.0.0.0/0", "::/0"): True,
        ("198.18.60.3/32",): False,
        ("198.18.60.0/31", "198.18.60.4/30"): False,
        ("::/0",): False,
        ("fd00:198:18:60::2/128",): False,
    },
    6: {
        ("fd00:198:18:60::2/128",): True,
        ("10.0.0.0/8", "fd00::/16"): True,
        ("::/0",): True,
        ("fd00:198:18:60::3/128",): False,
        ("fd00:198:18:61::/64",): False,
        ("0.0.0.0/0",): False,
    },
}
ALL = [(family, networks) for family, lists in LISTS.items() for networks in lists]


def bar(plane: Plane, family: int, networks: tuple[str, ...]) -> None:
    plane.reset(scene.config(family))
    plane.set_node(origin(family), known())
    plane.configure(scene.config(family), allow=AllowList(parse_network(network) for network in networks))


@PROGRAMS
@pytest.mark.parametrize(("family", "networks"), ALL)
def test_rumors_and_direct_packets(plane: Plane, program: str, family: int, networks: tuple[str, ...]) -> None:
    bar(plane, family, networks)
    scene.deliver(plane, program, packet(family), family)
    ran = scene.deliver(plane, program, packet(family, PacketType.PROBE), family)
    counted = plane.counted()
    if LISTS[family][networks]:
        assert (counted["take_heartbeat"], counted["pass_direct"]) == (1, 1)
        assert ran.value == {XDP: XDP_PASS, TC: TC_NEXT}[program]
    else:
        assert counted == {"drop_not_allowed": 2}
        assert ran.value == {XDP: XDP_DROP, TC: TC_SHOT}[program]
        node = plane.node(origin(family))
        assert node is not None and node.window.highest == 99
        assert plane.refusals(), "who was kept out can be told"


@PROGRAMS
@pytest.mark.parametrize("case", [case for case in CASES if case.counter == ODD], ids=lambda case: case.name)
def test_odd_frames_are_no_way_around(plane: Plane, program: str, case: Case) -> None:
    bar(plane, case.family, ("203.0.113.0/24",))
    scene.run(plane, program, case.frame())
    assert plane.counted() == {"drop_not_allowed": 1}


@PROGRAMS
def test_what_is_not_ours_passes_from_anywhere(plane: Plane, program: str) -> None:
    bar(plane, 4, ("203.0.113.0/24",))
    for case in CASES:
        frame = case.frame()
        # The kernel runs TC's programs on nothing shorter than headers.
        if case.counter is None and case.family == 4 and len(frame) >= 60:
            ran = scene.run(plane, program, frame)
            assert ran.value == {XDP: XDP_PASS, TC: TC_NEXT}[program], case.name
    assert plane.counted() == {}


@PROGRAMS
def test_without_an_agent_nobody_is_kept_out(plane: Plane, program: str) -> None:
    plane.reset(scene.config(4))
    plane.configure(scene.config(4, running=False), allow=AllowList([parse_network("203.0.113.0/24")]))
    scene.run(plane, program, frames.frame(packet(4), source(4), local(4)))
    assert plane.counted() == {"pass_no_agent": 1}
