# SPDX-License-Identifier: MIT
"""Another program sits at TC first and ends the chain, as those of container networks do: ours must see its packets."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.networks import foreign
from tests.networks.rows import veth
from tests.networks.world import Row, World
from tests.planes.fleet import inside
from tests.support.fleet import eventually

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


def test_what_is_not_ours_reaches_the_programs_of_others() -> None:
    """Ours comes first and passes on: another's program that drops everything still drops it, each way."""
    with World(Row("TC, beside a filter", veth, mode="TC", settings={"protocol": "TC"}), 2) as world:
        one, two = world.hosts
        world.start()
        world.settled(30)
        for egress in (False, True):
            sender, taker = (one, two) if egress else (two, one)
            with inside(taker.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as into:
                into.bind((taker.ip, 9000))
                into.settimeout(10.0)
                with inside(sender.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                    out.connect((taker.ip, 9000))
                    out.send(b"before")
                    assert into.recv(16) == b"before"
                    with foreign.attached(foreign.returning(foreign.TCX_DROP), one.namespace, "eth0", egress=egress):
                        out.send(b"dropped")
                    out.send(b"after")
                    assert into.recv(16) == b"after", "the filter's verdict counts"
