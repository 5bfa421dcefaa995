# SPDX-License-Identifier: MIT
"""The loader's self-test frame: every program counts and drops it, and nothing that only resembles it."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import pytest

from tests.bpf import scene
from tests.bpf.harness import TC_NEXT, TC_SHOT, XDP_DROP, XDP_PASS, Plane
from tests.bpf.wire import NAMESPACE, Wire
from xdp_gossip.dataplane.loader.compile import Programs

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BPF")]

FRAME = bytes.fromhex("0180c200000e 020000000001 88b5") + b"XDP Gossip self-test".ljust(46, b"\0")
#: Program -> verdict on the frame, verdict on others, counter.
PROGRAMS: dict[str, tuple[int, int, str]] = {
    "xg_xdp_ingress": (XDP_DROP, XDP_PASS, "selftest_ingress"),
    "xg_tc_ingress": (TC_SHOT, TC_NEXT, "selftest_ingress"),
    "xg_tc_egress": (TC_SHOT, TC_NEXT, "selftest_egress"),
}
OTHERS = {
    "another address": b"\x02" + FRAME[1:],
    "another EtherType": FRAME[:12] + b"\x88\xb6" + FRAME[14:],
    "another text": FRAME[:33] + b"T" + FRAME[34:],
    "cut short": FRAME[:33],
}
BPF_F_INGRESS = 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_counted_and_dropped(plane: Plane, link: Wire, program: str) -> None:
    dropped, _, counter = PROGRAMS[program]
    plane.reset(scene.config(4))
    assert scene.run(plane, program, FRAME, link).value == dropped
    assert plane.counted() == {counter: 1}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", OTHERS)
def test_what_resembles_it_passes(plane: Plane, link: Wire, program: str, name: str) -> None:
    plane.reset(scene.config(4))
    assert scene.run(plane, program, OTHERS[name], link).value == PROGRAMS[program][1]
    assert plane.counted() == {}


@pytest.mark.parametrize(
    ("kind", "flags"), [("generic", BPF_F_INGRESS), ("ingress", BPF_F_INGRESS), ("egress", 0)], ids=lambda v: str(v)
)
def test_a_knock_passes_the_hook(plane: Plane, link: Wire, kind: str, flags: int) -> None:
    """And only one that a program sits at: without it nothing is counted."""
    from xdp_gossip.dataplane.loader import calls

    hooks: dict[str, tuple[str, int, int]] = {
        "generic": ("xg_xdp_ingress", calls.XDP, calls.XDP_GENERIC),
        "ingress": ("xg_tc_ingress", calls.TCX_INGRESS, 0),
        "egress": ("xg_tc_egress", calls.TCX_EGRESS, 0),
    }
    program, hook, how = hooks[kind]
    source = Programs("selftest.c", {})
    # What it returns is the stack's: NET_XMIT_DROP where the program at the way out takes the frame.
    knock = source.load("xg_selftest_knock", "SCHED_CLS")
    calls.update(source.map("knock"), bytes(4), bytes((ctypes.c_uint32 * 2)(link.ifindex, flags)))
    plane.reset(scene.config(4))

    def knocked() -> dict[str, Any]:
        with scene.inside(NAMESPACE):
            calls.run(knock, FRAME)
        return dict(plane.counted())

    assert knocked() == {}
    with scene.inside(NAMESPACE):
        attached = calls.link_create(plane.program(program), link.ifindex, hook, how)
    try:
        assert knocked() == {PROGRAMS[program][2]: 1}
    finally:
        os.close(attached)
