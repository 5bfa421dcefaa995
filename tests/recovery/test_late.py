# SPDX-License-Identifier: MIT
"""A boot at which interface and address come long after the loader and the agent, as with a slow DHCP server."""

from __future__ import annotations

import os
import socket
import time

import pytest

from tests.planes.fleet import command, inside
from tests.recovery.world import UDP, World, plug
from tests.support.fleet import eventually

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
