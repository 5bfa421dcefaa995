# SPDX-License-Identifier: MIT
"""Agents in network namespaces on one bridge, each with the data plane that a test asks for.

The agents run as an ordinary user without any capability; only the loader is root. Everything is removed at the end,
also what an earlier run left behind.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.fleet import Agent, address_of, eventually
from tests.support.patience import patient
from tests.support.process import COMMAND
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane.maps import DataPlane, Loaded

PREFIX = "xga"
USER = "nobody"
PORT = 8000
#: What the status calls each plane -> protocol in the configuration, MTU of the links. A veth takes native XDP up to
#: about 3,500 bytes: with more, the loader steps down to generic XDP.
PLANES = {
    "UDP": ("UDP", 1500),
    "TC": ("TC", 1500),
    "XDP (generic)": ("XDP", 9000),
    "XDP (native)": ("XDP", 1500),
}
_CLONE_NEWNET = 0x40000000
#: Runs a command that may make no memory executable that it can write, as with the unit's MemoryDenyWriteExecute:
#: prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), Linux 6.3. Callbacks from libbpf must work all the same.
_WITHOUT_WX = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
_IP_SECONDS = patient(20.0)
_LOADER_SECONDS = patient(90.0)


def command(*words: str, seconds: float = _IP_SECONDS, check: bool = True) -> str:
    """The output of a command; raises ``AssertionError`` with what it said when it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    assert not check or done.returncode == 0, f"{' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def enter(namespace: str) -> tuple[str, ...]:
    """Command words that run what follows in a namespace. ``ip netns exec`` would make a mount namespace too, and a
    bpffs mounted there would end with the command."""
    return ("nsenter", f"--net=/run/netns/{namespace}")


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The calling thread works in ``namespace`` meanwhile; sockets made there stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.setns(other, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(own, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(other)
        os.close(own)


class Host(Agent):
    """An agent in a namespace of its own, and its data plane."""

    #: Beginning of the names of namespaces.
    names = PREFIX

    def __init__(self, directory: Path, number: int, plane: str, six: bool, settings: dict[str, Any]) -> None:
        self.plane = plane
        self.namespace = f"{self.names}-{number}"
        self.hub = f"{self.names}-hub"
        self.plane_dir = directory / f"plane{number}"
        ip = self.address_for(number, six)
        protocol, self.mtu = PLANES[plane]
        super().__init__(directory / f"n{number}", number, ip, PORT, settings)
        self.settings["protocol"] = settings.get("protocol", protocol)
        self.settings["dataplane"] = {"directory": str(self.plane_dir)}
        user = pwd.getpwnam(USER)
        self.give_to_user()
        self.prefix = (
            *enter(self.namespace),
            *("setpriv", f"--reuid={USER}", f"--regid={user.pw_gid}", "--clear-groups"),
            *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
            *("/usr/bin/python3", "-Ic", _WITHOUT_WX),
        )

    @staticmethod
    def address_for(number: int, six: bool) -> str:
        """The address that peers know host ``number`` by."""
        return f"fd00:198:18:62::{number:x}" if six else f"198.18.62.{number}"

    def give_to_user(self) -> None:
        """What the test wrote into its directory becomes the agent's."""
        user = pwd.getpwnam(USER)
        for path in (self.directory, *self.directory.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)

    def connect(self, gro: bool = True) -> None:
        """A namespace, and a link to the hub, whose end there has GRO on (else native XDP loses what is sent to it)."""
        name, far = self.namespace, f"v{self.number}"
        command("ip", "netns", "add", name)
        command("ip", "-n", name, "link", "set", "lo", "up")
        peer = ("type", "veth", "peer", "name", far, "netns", self.hub)
        command("ip", "-n", name, "link", "add", "eth0", "mtu", str(self.mtu), *peer)
        command("ip", "-n", self.hub, "link", "set", far, "mtu", str(self.mtu), "master", "br0", "up")
        if gro:
            command(*enter(self.hub), "ethtool", "-K", far, "gro", "on")
        if self.plane == "XDP (generic)":
            # It sees no VLAN tag that lies beside the frame, so the loader refuses it where they do.
            command(*enter(self.hub), "ethtool", "-K", far, "rxvlan", "off", "txvlan", "off")
            command(*enter(name), "ethtool", "-K", "eth0", "rxvlan", "off", "txvlan", "off")
        command("ip", "-n", name, "link", "set", "eth0", "up")
        address = (f"{self.ip}/64", "nodad") if ":" in self.ip else (f"{self.ip}/24",)
        command("ip", "-n", name, "addr", "add", *address, "dev", "eth0")

    def load(self) -> str:
        """``dataplane up``; nothing where the plane is UDP."""
        if self.plane == "UDP":
            return ""
        words = ("dataplane", "up", "--config", str(self.write_config()), "--user", USER)
        return command(*enter(self.namespace), str(COMMAND), *words, seconds=_LOADER_SECONDS)

    def unload(self) -> None:
        """``dataplane down``."""
        if self.plane_dir.exists():
            words = ("dataplane", "down", "--directory", str(self.plane_dir))
            command(*enter(self.namespace), str(COMMAND), *words, seconds=_LOADER_SECONDS)

    def kernel(self) -> dict[str, int]:
        """The data plane's counters, read from its maps: also while the agent does not answer."""
        directory = Path(self.settings["dataplane"]["directory"])
        plane = DataPlane(directory, Loaded.read(directory, "auto"), Address(self.ip, self.port), 0, 1, 1)
        try:
            return plane.counters()
        finally:
            plane.close()

    def revision(self) -> int:
        """The newest revision of its change log."""
        return int(self.call("GET", "/v1/nodes")["revision"])

    def events(self, since: int) -> list[tuple[str, str]]:
        """(event, address) of every change of its NodeList after revision ``since``."""
        found: dict[str, Any] = self.call("GET", f"/v1/watch?since={since}&timeout=0")
        assert not found["gap"], "the change log does not reach back to the revision"
        changes = [change for change in found["changes"] if change["kind"] == "node"]
        return [(change["event"], address_of(change["node"])) for change in changes]


class Fleet:
    """So many hosts on one bridge, with agents that know the first two as seeds; the first ``loaded`` of them (None:
    all) with a data plane. ``settings`` go into the agents' configuration."""

    #: What hosts are made of.
    host: type[Host] = Host

    def __init__(
        self, plane: str, count: int, *, six: bool = False, loaded: int | None = None, **settings: Any
    ) -> None:
        # A place that the agents' user may enter, which pytest's is not.
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.host.names}-"))
        self.directory.chmod(0o755)
        self.plane = plane
        self.loaded = loaded
        self.hosts = [self.host(self.directory, n, plane, six, dict(settings)) for n in range(1, count + 1)]
        for host in self.hosts:
            host.settings["seeds"] = [seed.address for seed in self.hosts[:2]]

    def __enter__(self) -> Fleet:
        try:
            _remove_namespaces(self.host.names)
            self.connect()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda host: host.load(), self.hosts[: self.loaded]))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def connect(self) -> None:
        """The hub with its bridge, and every host's link to it."""
        hub = f"{self.host.names}-hub"
        command("ip", "netns", "add", hub)
        command("ip", "-n", hub, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        command("ip", "-n", hub, "link", "set", "br0", "up")
        for host in self.hosts:
            host.connect()

    def _remove(self) -> None:
        try:
            for host in self.hosts:
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    host.kill()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda host: host.unload(), self.hosts))
        finally:
            for host in self.hosts:  # whatever `down` did not manage
                mount = host.plane_dir / "bpf"
                if os.path.ismount(mount):
                    command("umount", "-l", str(mount), check=False)
            _remove_namespaces(self.host.names)
            shutil.rmtree(self.directory, ignore_errors=True)

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def __getitem__(self, index: int) -> Host:
        return self.hosts[index]

    def show(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {host.name} {host.address}:\n{host.log_tail(12)}" for host in self.hosts)

    def start(self, hosts: list[Host] | None = None, seconds: float = 30.0) -> None:
        """Start agents (default: all) and wait until each serves its API."""
        chosen = self.hosts if hosts is None else hosts
        for host in chosen:
            host.start()
        for host in chosen:
            eventually(host.not_ready, seconds, 0.05)

    def apart(self, hosts: list[Host] | None = None) -> str | None:
        """What those that run do not agree on yet; None when all list each other as alive and hold the same."""
        chosen = [host for host in self.hosts if host.running] if hosts is None else hosts
        expected = {host.address for host in chosen}
        digests = set()
        for host in chosen:
            answer = host.call("GET", "/v1/nodes?state=alive")
            digests.add(answer["digest"])
            found = {address_of(node) for node in answer["nodes"] if node["record_known"]}
            if found != expected:
                return f"{host.name} lists {sorted(found)}, expected {sorted(expected)}"
        return None if len(digests) == 1 else f"documents digests differ: {sorted(digests)}"

    def without(self, gone: Host, but: Host | None = None) -> str | None:
        """Who still lists ``gone``, itself and ``but`` aside; None when nobody does."""
        for host in self.hosts:
            if host not in (gone, but) and host.running and gone.address in host.listed():
                return f"{host.name} still lists {gone.name}"
        return None

    def missing(self, node: Host) -> str | None:
        """Who does not list ``node`` as alive; None when all do."""
        for host in self.hosts:
            if host.running and node.address not in host.listed("alive"):
                return f"{host.name} does not list {node.name}"
        return None

    def lacking(self, key: str, value: bytes) -> str | None:
        """Who does not hold ``value``; None when all do."""
        names = [host.name for host in self.hosts if host.running and host.read(key) != value]
        return f"{', '.join(names)}: {key} is not there" if names else None

    def settled(self, seconds: float = 20.0) -> float:
        """Wait until all that run agree; the seconds it took."""
        return eventually(self.apart, seconds, 0.05)


def _remove_namespaces(names: str) -> None:
    for entry in json.loads(command("ip", "-j", "netns", "list") or "[]"):
        if str(entry["name"]).startswith(f"{names}-"):
            command("ip", "netns", "delete", str(entry["name"]))
