# SPDX-License-Identifier: MIT
"""Hosts whose address is on the loopback interface, as with BGP to the host: which interface their packets arrive on is
said by routes, which come and go, and by nothing else."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest

from tests.planes.fleet import command
from tests.recovery.world import HUB, PATIENCE, UDP, Member, Watch, World, hub, publish_during, there
from tests.support.fleet import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

COUNT = 3


class Routed(Member):
    """Its address is on lo; eth0 leads to the others, mgmt0 by the default route to nobody."""

    def connect(self, gro: bool = True) -> None:
        """See ``Host``."""
        command("ip", "netns", "add", self.namespace)
        self.ip_("link", "set", "lo", "up")
        for name, bridge, network in (("eth0", "br0", 129), ("mgmt0", "br1", 130)):
            far = f"{name[0]}{self.number}"
            peer = ("type", "veth", "peer", "name", far, "netns", HUB)
            self.ip_("link", "add", name, *peer)
            hub("ip", "link", "set", far, "master", bridge, "up")
            hub("ethtool", "-K", far, "gro", "on")
            self.ip_("link", "set", name, "up")
            self.ip_("addr", "add", f"198.18.{network}.{self.number}/24", "dev", name)
        self.ip_("addr", "add", f"{self.address_for(self.number, False)}/32", "dev", "lo")
        self.ip_("route", "add", "default", "via", "198.18.130.254")
        self.routes("add")

    def ip_(self, *words: str) -> None:
        """ip(8) on this host."""
        command("ip", "-n", self.namespace, *words)

    def routes(self, action: str) -> None:
        """``add`` or ``del`` what BGP would."""
        for other in range(1, COUNT + 1):
            if other != self.number:
                self.ip_("route", action, self.address_for(other, False), "via", f"198.18.129.{other}")


class RoutedWorld(World):
    """Three of them."""

    host = Routed
    hosts: list[Routed]  # type: ignore[assignment]

    def __init__(self) -> None:
        """Agents and loaders have no more rights, and no wider a umask, than their units leave them."""
        super().__init__()
        for host, unit in zip(self.hosts, self.units):
            host.prefix = ("sh", "-c", 'umask 077; exec "$@"', "sh", *host.prefix)
            unit.capabilities = ("setpriv", "--bounding-set=-all,+sys_admin,+net_admin,+chown")
            # As the role leaves them: root's, for the agent's group to read.
            host.directory.chmod(0o755)
            for path in host.directory.iterdir():
                os.chown(path, 0, path.stat().st_gid)
                path.chmod(0o640)

    def connect(self) -> None:
        """See ``Fleet``: a second bridge, on which there is nobody."""
        command("ip", "netns", "add", HUB)
        for bridge in ("br0", "br1"):
            hub("ip", "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
            hub("ip", "link", "set", bridge, "up")
        for host in self.hosts:
            host.connect()


@pytest.fixture(scope="module")
def routed() -> Iterator[RoutedWorld]:
    """Three agents that agree, on native XDP."""
    with RoutedWorld() as made:
        made.start()
        made.settled()
        yield made


@pytest.fixture(autouse=True)
def in_order(routed: RoutedWorld) -> Iterator[None]:
    """The next test finds all of them on eth0."""
    yield
    print(routed.show())
    for host in routed:
        eventually(functools.partial(on, host, "eth0"), PATIENCE)
    routed.settled(30)


def on(host: Routed, interface: str) -> str | None:
    """None when the host's plane is on ``interface`` and at work."""
    found = host.status()
    where = found.get("dataplane", {}).get("interface")
    return None if where == interface else f"{host.name} is on {where}: {found['mode']} ({found['mode_reason']})"


def test_routes_that_go_and_come(routed: RoutedWorld) -> None:
    """Before them the default route leads to the members, as far as the kernel knows."""
    host: Routed = routed.hosts[1]
    watch = Watch(routed, host)
    host.routes("del")
    watch.gone()
    assert "waiting for the loader" in watch.noticed("leave by interface [0-9]+ now, not by eth0", "route_moved")
    eventually(lambda: on(host, "mgmt0"), PATIENCE)
    watch = Watch(routed, host)
    host.routes("add")
    watch.gone()
    watch.noticed("leave by interface [0-9]+ now, not by mgmt0", "route_moved")
    eventually(lambda: on(host, "eth0"), PATIENCE)
    routed.best(host)
    publish_during(routed, watch, "routes")


def test_routes_that_come_after_the_boot(routed: RoutedWorld) -> None:
    host, unit = routed.hosts[2], routed.units[2]
    assert host.stop() == 0
    host.unload()
    host.routes("del")
    unit.boot()
    assert "up: XDP (native) on mgmt0" in unit.runs[-1], unit.runs[-1]
    routed.start([host])
    eventually(lambda: on(host, "mgmt0"), PATIENCE)
    watch = Watch(routed, host)
    host.routes("add")
    watch.gone()
    watch.noticed("not by mgmt0", "route_moved")
    eventually(lambda: on(host, "eth0"), PATIENCE)
    routed.best(host)
    publish_during(routed, watch, "late")


def test_a_boot_at_which_no_route_leads_anywhere(routed: RoutedWorld) -> None:
    host, unit = routed.hosts[1], routed.units[1]
    assert host.stop() == 0
    host.unload()
    host.routes("del")
    host.ip_("route", "del", "default")
    try:
        unit.boot()
        assert "status 3" in unit.runs[-1] and "no route leads from it" in unit.runs[-1], unit.runs[-1]
        routed.start([host])
        assert host.status()["mode"] == UDP
        assert "the loader waits: node.addr" in host.status()["mode_reason"]
        # The tries of the first seconds are over: from here on a change has to be noticed.
        asked = host.counters()["plane_asked"]
        eventually(lambda: None if host.counters()["plane_asked"] >= asked + 2 else "asked too seldom", 60)
        asked = host.counters()["plane_asked"]
    finally:
        host.routes("add")
        host.ip_("route", "add", "default", "via", "198.18.130.254")
    eventually(lambda: on(host, "eth0"), 60)
    routed.best(host)


def test_an_address_that_leaves_the_loopback_interface(routed: RoutedWorld) -> None:
    host: Routed = routed.hosts[1]
    address = host.address.partition(":")[0]
    watch = Watch(routed, host)
    host.ip_("addr", "del", f"{address}/32", "dev", "lo")
    watch.gone()
    watch.noticed("the node's address is not on interface 1 any more", "address_moved")
    eventually(lambda: None if host.status()["mode"] == UDP else "not over UDP", 5)
    watch = Watch(routed, host)
    there(host, "ip", "addr", "add", f"{address}/32", "dev", "eth0")
    routed.best(host)
    host.ip_("addr", "add", f"{address}/32", "dev", "lo")
    host.ip_("addr", "del", f"{address}/32", "dev", "eth0")
    watch.gone()
    watch.noticed("the node's address is on interface 1 now, not on eth0", "address_moved")
    routed.best(host)
    publish_during(routed, watch, "lo")


def test_an_agent_that_starts_while_its_address_is_away(routed: RoutedWorld) -> None:
    """What the loader left up waits, as the agent does: it is not taken for one that works."""
    host, unit = routed.hosts[2], routed.units[2]
    address = host.address.partition(":")[0]
    assert host.stop() == 0
    host.ip_("addr", "del", f"{address}/32", "dev", "lo")
    unit.boot()
    assert "no interface has this address" in unit.runs[-1], unit.runs[-1]
    routed.start([host])
    assert host.status()["mode"] == UDP
    assert "the loader waits: node.addr" in host.status()["mode_reason"]
    host.ip_("addr", "add", f"{address}/32", "dev", "lo")
    routed.best(host)
