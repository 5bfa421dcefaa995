# SPDX-License-Identifier: MIT
"""The loader's self-test frame: every program counts and drops it, and nothing that only resembles it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.bpf import frames, scene
from tests.bpf.harness import TC_NEXT, TC_SHOT, XDP_DROP, XDP_PASS, Plane
from tests.bpf.wire import NAMESPACE, Wire
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane.loader import compile, selftest
from xdp_gossip.dataplane.loader.loading import Programs

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

MAC = bytes.fromhex("020000000001")
#: Program -> verdict on the frame, verdict on others, counter.
PROGRAMS: dict[str, tuple[int, int, str]] = {
    "xg_xdp_ingress": (XDP_DROP, XDP_PASS, "selftest_ingress"),
    "xg_tc_ingress": (TC_SHOT, TC_NEXT, "selftest_ingress"),
    "xg_tc_egress": (TC_SHOT, TC_NEXT, "selftest_egress"),
}
OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "another address": lambda frame: b"\x02" + frame[1:],
    "another EtherType": lambda frame: frame[:12] + b"\x88\xb5" + frame[14:],
    "another text": lambda frame: frame[:-1] + b"T",
    "cut short": lambda frame: frame[:-1],
}
BPF_F_INGRESS = 1


def knocking(family: int, program: str, port: int = 0) -> bytes:
    """The loader's frame for the hook of a program."""
    own = scene.local(family)
    hook = "egress" if program.endswith("egress") else "ingress"
    return selftest.frame(MAC, Address(own.ip, port or own.port), hook)


@pytest.mark.parametrize("agent", [True, False], ids=["of the agent", "of nobody yet"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_counted_and_dropped(plane: Plane, link: Wire, program: str, family: int, agent: bool) -> None:
    dropped, _, counter = PROGRAMS[program]
    plane.reset(scene.config(family if agent else 10 - family))
    assert scene.run(plane, program, knocking(family, program), link).value == dropped
    assert plane.counted() == {counter: 1}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", OTHERS)
def test_what_resembles_it_passes(plane: Plane, link: Wire, program: str, family: int, name: str) -> None:
    plane.reset(scene.config(family))
    assert scene.run(plane, program, OTHERS[name](knocking(family, program)), link).value == PROGRAMS[program][1]
    assert plane.counted() == {}


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_filters_of_others_see_a_packet_of_the_agent_but_for_its_port(hook: str) -> None:
    """A whole one: one that a firewall finds invalid would tell nothing of those that it finds valid."""
    for family in (4, 6):
        for port in (scene.local(family).port, 7, 9):
            own = Address(scene.local(family).ip, port)
            read = frames.parse(selftest.frame(MAC, own, hook))
            assert read.sound and read.mac_source == MAC
            near, far = (read.source, read.target) if hook == "egress" else (read.target, read.source)
            assert near.ip == own.ip != far.ip
            assert near.port == far.port != port


@pytest.mark.parametrize(
    ("kind", "flags"), [("generic", BPF_F_INGRESS), ("ingress", BPF_F_INGRESS), ("egress", 0)], ids=lambda v: str(v)
)
def test_a_knock_passes_the_hook(plane: Plane, link: Wire, kind: str, flags: int) -> None:
    """And only one that a program sits at: without it nothing is counted."""
    from xdp_gossip.dataplane import libbpf

    hooks: dict[str, tuple[str, int, int]] = {
        "generic": ("xg_xdp_ingress", libbpf.XDP, libbpf.XDP_GENERIC),
        "ingress": ("xg_tc_ingress", libbpf.TCX_INGRESS, 0),
        "egress": ("xg_tc_egress", libbpf.TCX_EGRESS, 0),
    }
    program, hook, how = hooks[kind]
    source = Programs(compile.part("selftest.c"), compile.compiler(), {}, {})
    # What it returns is the stack's: NET_XMIT_DROP where the program at the way out takes the frame.
    knock = source.load("xg_selftest_knock")
    libbpf.update(source.map("knock"), bytes(4), bytes((ctypes.c_uint32 * 2)(link.ifindex, flags)))
    plane.reset(scene.config(4))

    def knocked() -> dict[str, Any]:
        with scene.inside(NAMESPACE):
            libbpf.run(knock, knocking(4, program))
        return dict(plane.counted())

    assert knocked() == {}
    with scene.inside(NAMESPACE):
        attached = libbpf.link_create(plane.program(program), link.ifindex, hook, how)
    try:
        assert knocked() == {PROGRAMS[program][2]: 1}
    finally:
        os.close(attached)
