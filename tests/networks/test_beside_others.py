# SPDX-License-Identifier: MIT
"""Another program sits at TC first and ends the chain, as those of container networks do: ours must see its packets."""

from __future__ import annotations

import contextlib

import pytest

from tests.cluster.harness import eventually
from tests.networks import foreign
from tests.networks.rows import veth
from tests.networks.world import Row, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

GROWTH = 8


@pytest.mark.parametrize("mode", ["TC", "XDP (native)"])
def test_a_program_that_ends_the_chain_does_not_starve_ours(mode: str) -> None:
    row = Row(f"{mode}, beside others", veth, mode=mode)
    with contextlib.ExitStack() as stack:
        world = World(row, 3)
        for host in world.hosts:
            host.settings["protocol"] = "TC" if mode == "TC" else "auto"
            host.before_load = lambda host=host: [  # type: ignore[misc]
                stack.enter_context(
                    foreign.attached(foreign.returning(foreign.TCX_PASS), host.namespace, "eth0", egress=egress)
                )
                for egress in (True, False)
            ]
        stack.enter_context(world)
        world.start()
        world.settled(30)
        before = [host.kernel() for host in world.hosts]

        def starved() -> str | None:
            for host, old in zip(world.hosts, before):
                new = host.kernel()
                still = [name for name in ("fanout", "take_heartbeat", "copy") if new[name] < old[name] + GROWTH]
                if still:
                    return f"{host.name} ({host.status()['mode']}): {', '.join(still)} did not grow"
            return None

        eventually(starved, 20)
        assert {host.status()["mode"] for host in world.hosts} == {mode}
        assert all(host.counters()["carriers_lost"] == 0 for host in world.hosts)


@pytest.mark.parametrize("egress", [False, True], ids=["ingress", "egress"])
def test_what_is_not_ours_reaches_the_programs_of_others(egress: bool) -> None:
    """Ours comes first and passes on: another's program that drops everything still drops it."""
    with World(Row("TC, beside a filter", veth, mode="TC", settings={"protocol": "TC"}), 2) as world:
        one, two = world.hosts
        one.start()
        two.start()
        world.settled(30)
        assert one.pings(two.ip)
        with foreign.attached(foreign.returning(foreign.TCX_DROP), one.namespace, "eth0", egress=egress):
            assert not one.pings(two.ip)
        assert one.pings(two.ip)
