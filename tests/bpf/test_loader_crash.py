# SPDX-License-Identifier: MIT
"""A loader killed at any step leaves nothing that the next ``down`` does not remove, or the next ``up`` repair."""

from __future__ import annotations

import os
import signal

import pytest

from tests.bpf.loader_world import World
from tests.bpf.test_loader_interface import make_again
from xdp_gossip.dataplane.loader import steps

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.usefixtures("light"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and BPF"),
]

#: Moments of each kind of work, as the loader names them.
UP = (
    *("directory made", "state written", "mounted", "pin directory made", "compiled", "loaded", "maps handed over"),
    *("link_tc_egress attached", "link_xdp attached", "hooks attached", "tested", "hooks proved", "programs pinned"),
)
UP_CLSACT = (
    *("filter egress intended", "clsact made", "filter egress attached"),
    *("filter ingress intended", "filter ingress attached"),
)
UPGRADE = (
    *("compiled", "loaded", "link_tc_egress exchanged", "link_xdp exchanged", "hooks attached", "tested"),
    *("hooks proved", "programs pinned"),
)
#: Of an ``up`` that waits for an interface.
PREPARE = (
    *("state written", "mounted", "pin directory made", "compiled", "loaded", "maps handed over", "programs pinned"),
)
MOVE = ("move intended", "taken off", "link_tc_egress attached", "link_xdp attached", "tested", "hooks proved")
DOWN = ("down intended", "links removed", "filters removed", "pins removed", "unmounted", "state removed")

CLSACT = {"XDP_GOSSIP_DATAPLANE_TC": "clsact"}


def kill(here: World, action: str, step: str, **environment: str) -> None:
    """Run a loader that dies at ``step``; it must get there."""
    done = here.loader(action, check=False, **environment, **{steps.VARIABLE: step})
    assert done.returncode == -signal.SIGKILL, (step, done.stdout, done.stderr)


@pytest.mark.parametrize("step", UP)
def test_up_killed(here: World, step: str) -> None:
    before = here.traces()
    kill(here, "up", step)
    assert not here.status()["up"]
    here.loader("down")
    here.expect_traces(before)
    kill(here, "up", step)
    assert here.loader("up").stdout.startswith("up: XDP (native)")
    assert here.status()["up"]
    here.loader("down")
    here.expect_traces(before)


@pytest.mark.parametrize("step", UP_CLSACT)
def test_up_with_filters_killed(here: World, step: str) -> None:
    before = here.traces()
    here.configure("TC")
    kill(here, "up", step, **CLSACT)
    here.loader("down")
    here.expect_traces(before)
    kill(here, "up", step, **CLSACT)
    assert here.loader("up", **CLSACT).stdout.startswith("up: TC")
    here.loader("down")
    here.expect_traces(before)


@pytest.mark.parametrize("step", MOVE)
def test_move_killed(here: World, step: str) -> None:
    """Programs and maps go from an interface that was deleted to the one that was made in its place."""
    before = here.traces()
    here.loader("up")
    here.inside("ip", "link", "delete", here.interface)
    make_again(here)
    kill(here, "up", step)
    assert not here.status()["up"]
    assert here.loader("up").stdout.startswith("up: XDP (native)")
    assert here.status()["up"]
    here.loader("down")
    here.expect_traces({**before, "interface": here.traces()["interface"]})


@pytest.mark.parametrize("step", PREPARE)
def test_prepare_killed(here: World, step: str) -> None:
    """Programs and maps are made while the interface is waited for."""
    before = here.traces()
    here.inside("ip", "link", "delete", here.interface)
    kill(here, "up", step)
    assert not here.status()["up"]
    here.loader("down")
    kill(here, "up", step)
    assert here.loader("up", check=False).returncode == 3
    assert here.status()["reason"].startswith("waiting: ")
    here.loader("down")
    kill(here, "up", step)
    make_again(here)
    assert here.loader("up").stdout.startswith("up: XDP (native)")
    here.loader("down")
    here.expect_traces({**before, "interface": here.traces()["interface"]})


@pytest.mark.parametrize("clsact", [False, True])
@pytest.mark.parametrize("step", UPGRADE)
def test_upgrade_killed(here: World, step: str, clsact: bool) -> None:
    before = here.traces()
    forced = CLSACT if clsact else {}
    here.loader("up", **forced)
    kept = here.status()["maps"]
    here.configure(amount=7)
    kill(here, "up", step, **forced)
    assert here.status()["up"], "the hooks go on, with old programs or with new ones"
    assert here.loader("up", **forced).stdout.startswith("upgraded")
    assert here.status()["maps"] == kept
    kill_again = here.loader("up", **forced)
    assert kill_again.stdout.startswith("already up")
    here.configure(amount=8)
    kill(here, "up", step, **forced)
    here.loader("down")
    here.expect_traces(before)


@pytest.mark.parametrize("clsact", [False, True])
@pytest.mark.parametrize("step", DOWN)
def test_down_killed(here: World, step: str, clsact: bool) -> None:
    before = here.traces()
    forced = CLSACT if clsact else {}
    here.loader("up", **forced)
    kill(here, "down", step)
    assert not here.status()["up"]
    here.loader("down")
    here.expect_traces(before)
    here.loader("up", **forced)
    kill(here, "down", step)
    assert here.loader("up", **forced).stdout.startswith("up: XDP (native)")
    here.loader("down")
    here.expect_traces(before)
