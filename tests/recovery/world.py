# SPDX-License-Identifier: MIT
"""Hosts of ``tests/planes`` in namespaces of their own, and what plays systemd's path unit for them."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.planes import fleet
from tests.planes.fleet import Fleet, Host, command, enter
from tests.support.fleet import eventually
from tests.support.process import COMMAND
from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.loader.pins import offer_request

NAMES = "xgr"
HUB = f"{NAMES}-hub"
NATIVE, GENERIC, UDP = "XDP (native)", "XDP (generic)", "UDP"
CYCLE, TIMEOUT = 0.5, 4.0
PINS = f"bpf/v{headers.constants()['XG_LAYOUT']}"
#: Cycles within which a fault must show.
NOTICED = 2
#: Counters that grow with each rumor that a fault may touch.
_SIGNS = ("plane_passed_by", "carriers_lost", "copy_due")
#: Seconds for what must happen by itself: a loader compiles meanwhile, on a machine that does other things too.
PATIENCE = 60.0


class PathUnit:
    """As ``xdp-gossip-dataplane.path`` and ``-again.service``: a request starts the loader, and is taken away first.

    As with systemd, the path is looked at when the loader has ended: a request that comes while it runs starts another.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._file = host.plane_dir / "ask" / "request"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"path {host.name}", daemon=True)
        #: Words before the loader's, that leave it what its unit does.
        self.capabilities: tuple[str, ...] = ()
        #: Environment of the loader, and what each run of it said.
        self.environment: dict[str, str] = {}
        self.runs: list[str] = []

    def __enter__(self) -> PathUnit:
        if not self._file.parent.exists():  # made by the loader, but by one that could not even begin
            self._host.plane_dir.mkdir(exist_ok=True)
            offer_request(self._host.plane_dir, pwd.getpwnam(fleet.USER).pw_uid)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(100)

    def _run(self) -> None:
        while not self._end.wait(0.05):
            if self._file.exists():
                self._file.unlink()
                self._load()

    def boot(self) -> None:
        """As ``xdp-gossip-dataplane.service`` at boot."""
        self._host.write_config()
        self._load()

    def _load(self) -> None:
        host = self._host
        words = ("dataplane", "up", "--config", str(host.directory / "agent.yml"), "--user", fleet.USER)
        done = subprocess.run(
            [*enter(host.namespace), *self.capabilities, str(COMMAND), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, **self.environment},
        )
        self.runs.append(f"status {done.returncode}: {done.stdout}{done.stderr}".strip())


class Member(Host):
    """A host with an address of these tests' own."""

    names = NAMES

    @staticmethod
    def address_for(number: int, six: bool) -> str:
        """The address that peers know host ``number`` by."""
        return f"fd00:198:18:80::{number:x}" if six else f"198.18.128.{number}"


class World(Fleet):
    """Three agents with ``protocol: auto``, of which each has a data plane and a path unit."""

    host = Member

    def __init__(self, plane: str = NATIVE, count: int = 3, protocol: str = "auto", **settings: Any) -> None:
        super().__init__(plane, count, protocol=protocol, cycle=CYCLE, timeout=TIMEOUT, **settings)
        self.units = [PathUnit(host) for host in self.hosts]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        super().__enter__()
        try:
            for unit in self.units:
                self._stack.enter_context(unit)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        super().__exit__(kind, error, trace)

    def show(self) -> str:
        """The ends of all logs, and what the loaders said."""
        runs = "\n".join(f"--- loader of {unit._host.name}: {run}" for unit in self.units for run in unit.runs[-4:])
        return f"{super().show()}\n{runs}"

    def in_mode(self, host: Host, mode: str) -> str | None:
        """None when the host's packets travel so, and every other member's NodeList says it."""
        status = host.status()
        if status["mode"] != mode:
            return f"{host.name} is in mode {status['mode']} ({status['mode_reason']})"
        for other in self.hosts:
            listed = {node["name"]: node["protocol"] for node in other.nodes()}.get(host.name)
            if listed != mode:
                return f"{other.name} lists {host.name} with {listed}"
        return None

    def best(self, host: Host, mode: str = NATIVE, seconds: float = PATIENCE) -> None:
        """Wait until the host is in its best mode, and for a while without a relapse."""
        print(f"{host.name}: in {mode} after {eventually(lambda: self.in_mode(host, mode), seconds, 0.05):.1f} s")
        taken = host.counters()
        eventually(lambda: None if host.counters()["plane_judged"] >= taken["plane_judged"] + 4 else "few cycles", 20)
        name = "plane_stepped_down"
        assert host.counters()[name] == taken[name], "it came back and failed again"
        assert host.status()["mode"] == mode


class Watch:
    """What happened to one host since a moment."""

    def __init__(self, world: World, host: Host) -> None:
        self.world, self.host = world, host
        self.before = host.counters()
        self.before = self.at = self.first = self.host.counters()
        self.marks = [found.revision() for found in world]

    def gone(self) -> None:
        """Take the fault's time: call it as soon as the fault is there."""
        self.at = self.first = self.host.counters()

    def look(self) -> dict[str, int]:
        """Take the fault's time again while no rumor has met the fault: call it as often as possible.

        Only rumors show some faults, and on a busy machine the other members may send none for some cycles.
        """
        then = self.host.counters()
        if all(then.get(name) == self.first.get(name) for name in _SIGNS):
            self.at = then
        return then

    def noticed(self, words: str, *proofs: str) -> str:
        """The agent has stepped down for one of ``proofs`` within two cycles of the fault; the line that says so, which
        has ``words`` (a regular expression)."""

        def stepped() -> str | None:
            self.then = self.look()
            return None if self.then["plane_stepped_down"] > self.before["plane_stepped_down"] else "not noticed"

        eventually(stepped, 20, 0.02)
        names = [name for name in self.then if name.startswith("plane_stepped_down_")]
        assert next(name for name in names if self.then[name] > self.before[name])[19:] in proofs, self.then
        cycles = self.then["plane_judged"] - self.at["plane_judged"]
        assert cycles <= NOTICED, f"noticed after {cycles} cycles"
        lines = [line for line in self.host.log_tail(60).splitlines() if "kernel data plane given up" in line]
        assert re.search(words, lines[-1]), lines
        return lines[-1]

    def nobody_was_missed(self) -> None:
        """Nobody was suspected for good, nobody removed, anywhere."""
        events = [event for host, mark in zip(self.world, self.marks) for event in host.events(mark)]
        assert not [event for event in events if event[0] == "removed"], events


@contextlib.contextmanager
def shown(world: World) -> Iterator[None]:
    """With the logs in the report of a failure."""
    try:
        yield
    except BaseException:
        print(world.show())
        raise


def hub(*words: str, check: bool = True) -> str:
    """A command in the hub's namespace."""
    return command(*enter(HUB), *words, check=check)


def there(host: Host, *words: str, check: bool = True) -> str:
    """A command in the host's namespace, as root."""
    return command(*enter(host.namespace), *words, check=check)


def pinned(host: Host, name: str) -> Path:
    """Where the loader has pinned something."""
    return host.plane_dir / PINS / name


def publish_during(world: World, watch: Watch, key: str) -> None:
    """What is published now arrives everywhere, to and from the host with the fault."""
    other = next(host for host in world if host is not watch.host)
    other.publish(f"{key}/to", b"to it")
    watch.host.publish(f"{key}/from", b"from it")

    def lacking() -> str | None:
        watch.look()
        return world.lacking(f"{key}/to", b"to it") or world.lacking(f"{key}/from", b"from it")

    eventually(lacking, 15, 0.02)


def plug(host: Host) -> None:
    """An interface and an address as the host had them."""
    far = f"v{host.number}"
    peer = ("type", "veth", "peer", "name", far, "netns", HUB)
    command("ip", "-n", host.namespace, "link", "add", "eth0", "mtu", str(host.mtu), *peer)
    hub("ip", "link", "set", far, "mtu", str(host.mtu), "master", "br0", "up")
    hub("ethtool", "-K", far, "gro", "on")
    there(host, "ip", "link", "set", "eth0", "up")
    there(host, "ip", "addr", "add", f"{host.ip}/24", "dev", "eth0")
