# SPDX-License-Identifier: MIT
"""A boot at which interface and address come long after the loader and the agent, as with a slow DHCP server."""

from __future__ import annotations

import os
import socket
import time

import pytest

from tests.cluster.harness import eventually
from tests.planes.fleet import command, inside
from tests.recovery.world import UDP, World, plug

#: What the agent says that waits for a plane.
_SAID = "no member until there is one"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

#: How late they are: longer in ``make long``.
LATE = float(os.environ.get("XDP_GOSSIP_LATE_SECONDS", "8"))


def test_interface_and_address_come_long_after_the_boot(world: World) -> None:
    host, unit = world[2], world.units[2]
    assert host.stop() == 0
    host.unload()
    command("ip", "-n", host.namespace, "link", "del", "eth0")
    host.settings["api"]["listen"] = f"{host.ip}:8001"
    host.settings["api"]["token_file"] = str(host.write_secret("api.token", "a-token-of-the-tests"))
    host.give_to_user()
    try:
        unit.boot()
        assert "status 3" in unit.runs[-1], unit.runs[-1]
        world.start([host])
        status = host.status()
        assert status["mode"] == UDP
        assert f"the loader waits: node.addr {host.ip}: no interface has this address" in status["mode_reason"]
        assert "the loader is asked" in status["mode_reason"]
        assert status["waiting"] == f"address {host.ip} (listen_addr, api.listen)"
        process = host.pid
        time.sleep(LATE)
        assert host.status()["mode"] == UDP
    finally:
        plug(host)
    world.best(host)
    status = host.status()
    assert (status["waiting"], host.pid) == ("", process), "the same process serves there now"
    with inside(host.namespace), socket.create_connection((host.ip, 8001), 10) as client:
        client.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 200")
    assert host.log_tail(1000).count("waiting for this address") == 1, "said once"
    eventually(world.apart, 30)
    world[0].publish("late/1", b"for all")
    eventually(lambda: world.lacking("late/1", b"for all"), 15, 0.05)


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
        assert "status 1" in unit.runs[runs], unit.runs[runs]
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
