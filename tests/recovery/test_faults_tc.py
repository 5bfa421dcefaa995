# SPDX-License-Identifier: MIT
"""At TC nothing but the rumors themselves shows that another program, or none, takes the packets; and a start at which
the protocol insists on TC."""

from __future__ import annotations

import pytest

from tests.networks.foreign import TCX_PASS, attached, returning
from tests.planes.fleet import command
from tests.recovery.world import Watch, World, pinned, plug, publish_during
from tests.support.fleet import eventually

#: What the agent says that waits for a plane.
_SAID = "no member until there is one"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("egress", [False, True])
def test_a_program_of_others_that_ends_the_chain_at_tc(at_tc: World, egress: bool) -> None:
    watch = Watch(at_tc, at_tc[1])
    # Behind ours it does no harm; with ours detached it is first, and ours comes back behind it but for the loader.
    with attached(returning(TCX_PASS), watch.host.namespace, "eth0", egress=egress):
        link = "link_tc_egress" if egress else "link_tc_ingress"
        command("bpftool", "link", "detach", "pinned", str(pinned(watch.host, link)))
        watch.gone()
        publish_during(at_tc, watch, f"chain/{egress}")
        watch.noticed("came past|not multiplied", "carriers_lost" if egress else "passed_by")
        at_tc.best(watch.host, "TC")
        publish_during(at_tc, watch, f"chain/{egress}/mended")
    watch.nobody_was_missed()


def test_who_insists_on_a_plane_waits_for_it(at_tc: World) -> None:
    """The same process from the start to the member: not one that ends, and is started again all the time."""
    host, unit = at_tc[2], at_tc.units[2]
    assert host.stop() == 0
    host.unload()
    command("ip", "-n", host.namespace, "link", "del", "eth0")
    said = host.log_tail(10_000).count(_SAID)
    try:
        host.start()

        def waits(what: str) -> str | None:
            lines = [line for line in host.log_tail(10_000).splitlines() if _SAID in line][said:]
            return None if lines and what in lines[-1] else f"not said: {what}: {lines}"

        eventually(lambda: waits("nothing asks the loader"), 20)
        runs = len(unit.runs)
        unit.boot()
        assert "status 3" in unit.runs[runs], f"awaited, which is no failure of the unit: {unit.runs[runs]}"
        eventually(lambda: waits(f"the loader waits: node.addr {host.ip}: no interface has this address"), 20)
        process = host.pid
        eventually(lambda: None if len(unit.runs) > runs + 1 else "the loader was not asked", 30)
        assert host.running
    finally:
        plug(host)
    eventually(host.not_ready, 40, 0.05)
    at_tc.best(host, "TC")
    assert host.pid == process
    reasons = [line.partition("protocol TC")[2] for line in host.log_tail(10_000).splitlines() if _SAID in line][said:]
    assert len(set(reasons)) == len(reasons), "said once for each reason"
