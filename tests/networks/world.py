# SPDX-License-Identifier: MIT
"""A fleet whose hosts reach each other by interfaces of one kind, described by a row of the table (rows.py)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.planes import fleet
from tests.planes.fleet import USER, command, enter
from tests.support.patience import patient
from tests.support.process import COMMAND

NAMES = "xgn"
#: Seconds; emulated hosts need longer ones.
CYCLE = float(os.environ.get("XDP_GOSSIP_NETWORK_CYCLE", "0.3"))
TIMEOUT = patient(2.5)
COUNT = 3
_LOADER_SECONDS = patient(90.0)


@dataclass(frozen=True)
class Row:
    """One kind of network.

    ``build`` makes host's interfaces, once its namespace is there. ``mode`` is what the loader has to choose, and
    ``words`` is a part of the reason why it is not a better one. ``needs`` are the types of links that the kernel has
    to have (``ip link add type``). ``interface`` is where the data plane attaches.
    """

    name: str
    build: Callable[[NetHost], None]
    mode: str = "XDP (native)"
    words: str = ""
    needs: tuple[str, ...] = ()
    interface: str = "eth0"
    six: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    #: Whether another row claims the same: left to ``make long``.
    variant: bool = False
    #: The address that peers know a host by; None for the usual one.
    address: Callable[[int], str] | None = None

    @property
    def on(self) -> bool:
        """Whether the kernel data plane works there."""
        return self.mode != "UDP"


def usual(number: int, six: bool = False) -> str:
    """The address of a host on the network that all share."""
    return f"fd00:198:18:64::{number:x}" if six else f"198.18.64.{number}"


class NetHost(fleet.Host):
    """A host of a row: ``protocol: auto``, its address chosen by the row, its sockets on all addresses."""

    names = NAMES
    row: Row

    def __init__(self, directory: Path, number: int, row: Row, settings: dict[str, Any]) -> None:
        self.row = row
        self.loader_said = ""
        #: Called just before the loader.
        self.before_load: Callable[[], object] | None = None
        #: What a row's build() started, ended before the namespaces go.
        self.cleanup = contextlib.ExitStack()
        super().__init__(directory, number, row.mode, row.six, settings)
        ip = row.address(number) if row.address is not None else usual(number, row.six)
        self.ip = ip
        self.address = f"[{ip}]:{self.port}" if ":" in ip else f"{ip}:{self.port}"
        self.settings["node"]["addr"] = ip
        self.settings["listen_addr"] = "::" if row.six else "0.0.0.0"
        self.settings["protocol"] = "auto"
        for key, value in row.settings.items():
            # A section of the row's adds to what is there, such as the data plane's directory.
            self.settings[key] = {**self.settings.get(key, {}), **value} if isinstance(value, dict) else value

    def connect(self, gro: bool = True) -> None:
        """The namespace and what the row makes in it."""
        command("ip", "netns", "add", self.namespace)
        self.ip_("link", "set", "lo", "up")
        self.row.build(self)

    def ip_(self, *words: str, six: bool = False) -> str:
        """ip(8) on this host."""
        return command("ip", *(("-6",) if six else ()), "-n", self.namespace, *words)

    def wire(self, name: str = "eth0", mtu: int = 1500, bridge: str = "br0") -> str:
        """A veth to a bridge of the hub, without an address; returns its end there, which is called after it."""
        far = f"{name}-{self.number}"
        peer = ("type", "veth", "peer", "name", far, "netns", self.hub)
        self.ip_("link", "add", name, "mtu", str(mtu), *peer)
        command("ip", "-n", self.hub, "link", "set", far, "mtu", str(mtu), "master", bridge, "up")
        # Without GRO there, native XDP loses what is sent to it.
        command(*enter(self.hub), "ethtool", "-K", far, "gro", "on")
        self.ip_("link", "set", name, "up")
        return far

    def offload(self, feature: str, value: str, name: str = "eth0") -> None:
        """ethtool -K on this host."""
        command(*enter(self.namespace), "ethtool", "-K", name, feature, value)

    def assign(self, device: str, address: str, *options: str) -> None:
        """Give an address with a prefix length to an interface, at once: no duplicate address detection."""
        self.ip_("addr", "add", address, "dev", device, *(("nodad",) if ":" in address else ()), *options)

    def load(self) -> str:
        """``dataplane up``; what it said is kept, as rows are also about refusals."""
        if self.before_load is not None:
            self.before_load()
        config = str(self.write_config())
        words = (*enter(self.namespace), str(COMMAND), "dataplane", "up", "--config", config, "--user", USER)
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LOADER_SECONDS, check=False
        )
        self.loader_said = done.stdout + done.stderr
        # 3: no mode can be had, and UDP will do then.
        assert done.returncode in (0, 3), f"{self.name}: dataplane up: {done.returncode}: {self.loader_said}"
        return self.loader_said

    def unload(self) -> None:
        """``dataplane down``, and the end of what build() started."""
        try:
            super().unload()
        finally:
            self.cleanup.close()


class World(fleet.Fleet):
    """The fleet of a row, built and left as a context."""

    host = NetHost
    hosts: list[NetHost]  # type: ignore[assignment]

    def __init__(self, row: Row, count: int = COUNT, **settings: Any) -> None:
        self.row = row
        settings = {"cycle": CYCLE, "timeout": TIMEOUT, **settings}
        super().__init__(row.mode, 0, **settings)
        self.hosts = [NetHost(self.directory, n, row, dict(settings)) for n in range(1, count + 1)]
        for host in self.hosts:
            host.settings["seeds"] = [seed.address for seed in self.hosts[:2]]

    def connect(self) -> None:
        """A second bridge beside the usual one, for hosts that have two networks."""
        hub = f"{NAMES}-hub"
        command("ip", "netns", "add", hub)
        for bridge in ("br0", "br1"):
            command("ip", "-n", hub, "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
            command("ip", "-n", hub, "link", "set", bridge, "up")
        for host in self.hosts:
            host.connect()


def params(rows: list[Row]) -> list[Any]:
    """The rows as parameters of a fixture, those that are variants marked."""
    return [pytest.param(row, id=row.name, marks=[pytest.mark.variant] if row.variant else []) for row in rows]


def missing_types(types: tuple[str, ...]) -> list[str]:
    """Those of ``types`` of links that this kernel lacks."""
    return [kind for kind in types if not _has_type(kind)]


def _has_type(kind: str) -> bool:
    """Make one in a namespace of its own, and take it away again. Loads the module, if there is one."""
    name = f"{NAMES}-try"
    on = ("link", "try0") if kind in ("vlan", "macvlan", "ipvlan") else ()
    more = {"vlan": ("id", "5"), "vrf": ("table", "50")}.get(kind, ())
    command("ip", "netns", "add", name)
    try:
        command("ip", "-n", name, "link", "add", "try0", "type", "veth", "peer", "name", "try1")
        if kind == "tun":
            words: tuple[str, ...] = ("tuntap", "add", "try2", "mode", "tun")
        else:
            words = ("link", "add", *on, "name", "try2", "type", kind, *more)
        done = subprocess.run(("ip", "-n", name, *words), capture_output=True, text=True, timeout=20, check=False)
        if done.returncode and not any(word in done.stderr for word in ("Unknown device type", "not supported")):
            raise AssertionError(f"ip {' '.join(words)}: {done.stderr}")
        return not done.returncode
    finally:
        command("ip", "netns", "delete", name)


def links(host: NetHost) -> list[str]:
    """Names of the interfaces of a host."""
    return [str(each["ifname"]) for each in json.loads(host.ip_("-j", "link", "show"))]
