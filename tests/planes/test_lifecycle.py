# SPDX-License-Identifier: MIT
"""A data plane that comes, goes, is somebody else's, or is not to be had: what the agent makes of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.planes.conftest import CYCLE, TIMEOUT
from tests.planes.fleet import Fleet, Host
from tests.support.fleet import eventually
from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.steering import LOOK_EVERY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

NATIVE = "XDP (native)"
LAYOUT = headers.constants()["XG_LAYOUT"]


@pytest.fixture(scope="module")
def trio() -> Iterator[Fleet]:
    """Three agents with ``protocol: auto``; only the first has a data plane."""
    with Fleet(NATIVE, 3, loaded=1, protocol="auto", cycle=CYCLE, timeout=TIMEOUT) as fleet:
        fleet.start()
        fleet.settled()
        yield fleet


def mode(host: Host, wanted: str) -> str | None:
    """None when the host's packets travel as ``wanted``."""
    found = host.status()["mode"]
    return None if found == wanted else f"{host.name} is in mode {found}"


def removals(fleet: Fleet, marks: list[int]) -> list[tuple[str, str]]:
    """Who was removed anywhere since."""
    events = [event for host, mark in zip(fleet, marks) for event in host.events(mark)]
    return [event for event in events if event[0] == "removed"]


def test_auto_goes_by_what_is_loaded(trio: Fleet) -> None:
    with_plane, without, _ = trio
    assert (with_plane.status()["mode"], with_plane.status()["mode_reason"]) == (NATIVE, "")
    status = without.status()
    assert status["mode"] == "UDP"
    assert "no kernel data plane is loaded" in status["mode_reason"]
    assert "xdp-gossip dataplane up" in status["mode_reason"]
    assert "dataplane" not in status
    # The two planes of one cluster understand each other.
    without.publish("auto/1", b"from UDP")
    with_plane.publish("auto/2", b"from XDP")
    eventually(lambda: trio.lacking("auto/1", b"from UDP") or trio.lacking("auto/2", b"from XDP"), 3, 0.02)


def test_a_plane_that_comes_goes_and_comes_again_is_used(trio: Fleet) -> None:
    other, host, _ = trio
    marks = [found.revision() for found in trio]
    host.load()
    host.signal(signal.SIGHUP)
    eventually(lambda: mode(host, NATIVE), 2, 0.02)
    eventually(lambda: _said(other, host, NATIVE), 5, 0.05)
    value = b"through the kernel"
    other.publish("lifecycle/1", value)
    eventually(lambda: trio.lacking("lifecycle/1", value), 3, 0.02)
    host.unload()
    eventually(lambda: mode(host, "UDP"), 5 * CYCLE + 3, 0.02)
    assert "taken down" in host.status()["mode_reason"] or "no kernel" in host.status()["mode_reason"]
    eventually(lambda: _said(other, host, "UDP"), 5, 0.05)
    value = b"through sockets again"
    other.publish("lifecycle/1", value)
    eventually(lambda: trio.lacking("lifecycle/1", value), 3, 0.02)
    time.sleep(TIMEOUT)
    host.load()
    eventually(lambda: mode(host, NATIVE), LOOK_EVERY + 2, 0.05)
    value = b"and once more"
    other.publish("lifecycle/1", value)
    eventually(lambda: trio.lacking("lifecycle/1", value), 3, 0.02)
    time.sleep(TIMEOUT)
    assert trio.apart() is None
    assert not removals(trio, marks)


def _said(by: Host, of: Host, plane: str) -> str | None:
    found = {node["name"]: node["protocol"] for node in by.nodes()}[of.name]
    return None if found == plane else f"{of.name} is listed with {found}"


def test_rumors_that_nobody_multiplies_are_sent_one_by_one(trio: Fleet) -> None:
    host, other, _ = trio
    before = host.counters()["carriers_lost"]
    (host.plane_dir / "bpf" / f"v{LAYOUT}" / "link_tc_egress").unlink()
    heard = next(node["sequence"] for node in other.nodes() if node["name"] == host.name)
    value = b"without the program at the way out"
    host.publish("lifecycle/2", value)
    eventually(lambda: trio.lacking("lifecycle/2", value), 1, 0.02)
    assert host.counters()["carriers_lost"] > before
    assert "was not multiplied on eth0" in host.log_tail()
    # A plane that leaves own rumors to the sockets is given up; here nobody starts the loader.
    eventually(lambda: mode(host, "UDP"), 10, 0.02)
    assert "own rumors were not multiplied on eth0" in host.status()["mode_reason"]

    def heard_since() -> str | None:
        sequence = next(node["sequence"] for node in other.nodes() if node["name"] == host.name)
        return None if sequence >= heard + 3 else "no further heartbeats"

    eventually(heard_since, 20, 0.05)
    host.load()
    eventually(lambda: mode(host, NATIVE), LOOK_EVERY + 5, 0.05)


def test_the_plane_of_another_agent_is_left_alone(trio: Fleet) -> None:
    """A second agent on the first host, with another port: there is one data plane for each interface."""
    first = trio[0]
    second = Host(trio.directory, 9, NATIVE, False, {"cycle": CYCLE, "timeout": TIMEOUT, "protocol": "auto"})
    second.prefix = first.prefix
    second.settings["node"].update(addr=first.ip, port=first.port + 1)
    second.settings.update(listen_addr=first.ip, dataplane=first.settings["dataplane"], seeds=[trio[1].address])
    try:
        second.start()
        eventually(second.not_ready, 20)
        status = second.status()
        assert status["mode"] == "UDP"
        assert f"in use by the agent at {first.address}" in status["mode_reason"]
        eventually(lambda: None if len(first.listed("alive")) == 4 else f"{first.listed()}", 5)
        assert second.call("POST", "/v1/node/leave")["changed"]
        eventually(lambda: trio.apart(), 10)
    finally:
        second.kill()
    # Dead, its successor on another port takes over at once, and nobody is left from before.
    assert first.stop() == 0
    first.settings["node"]["port"] += 2
    first.port += 2
    first.address = f"{first.ip}:{first.port}"
    try:
        trio.start([first])
        assert first.status()["mode"] == NATIVE
        eventually(lambda: None if first.address in trio[1].listed("alive") else "not listed", 5)
    finally:
        first.stop()


@pytest.mark.parametrize("protocol", ["XDP", "TC"])
def test_a_mode_that_was_asked_for_and_cannot_be_had_is_waited_for(trio: Fleet, protocol: str) -> None:
    host = Host(trio.directory, 10 if protocol == "TC" else 11, NATIVE, False, {"protocol": protocol})
    host.prefix = trio[1].prefix
    host.settings["node"].update(addr=trio[1].ip, port=8100)
    host.settings["listen_addr"] = trio[1].ip
    if protocol == "TC":  # there is one, in another mode
        trio[1].load()
        host.settings["dataplane"] = trio[1].settings["dataplane"]
    host.start()
    expected = "the data plane is up in mode XDP (native)" if protocol == "TC" else "no kernel data plane is loaded"
    try:
        for words in (f"protocol {protocol}: {expected}", "xdp-gossip dataplane up", "no member until there is one"):
            eventually(lambda words=words: None if words in host.log_tail() else f"not said: {words}", 60)  # type: ignore[misc]
        assert host.running
    finally:
        assert host.stop() == 0
