# SPDX-License-Identifier: MIT
"""Real agents as processes, each in a network namespace and a directory of its own, with or without a data plane."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.process import COMMAND, AgentProcess
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane import headers, layout, libbpf

from . import packets
from .netns import PREFIX, BenchError, enter, run

PROBE = Path(__file__).resolve().parent / "probe.py"
PLANES = ("XDP", "TC", "UDP")
_UP_SECONDS = 120.0
_ARRIVAL = struct.Struct("=QQ")


class Agent(AgentProcess):
    """One agent in the namespace of a host. ``settings`` go into its configuration file."""

    failure = BenchError

    def __init__(
        self, base: Path, name: str, namespace: str, interface: str, address: Address, plane: str, **settings: Any
    ) -> None:
        directory = base / name
        self.namespace, self.interface = namespace, interface
        self.address, self.plane = address, plane
        self.arrivals_file = directory / "arrivals"
        self.plane_directory = directory / "plane"
        with_plane = {"dataplane": {"interface": interface, "directory": str(self.plane_directory)}}
        ours = {
            "cluster": packets.CLUSTER,
            "protocol": plane,
            **(with_plane if plane in ("XDP", "TC") else {}),
            **settings,
        }
        super().__init__(directory, name, address.ip, address.port, packets.SECRET, ours)

    # -- the processes -----------------------------------------------------------------------------------------

    def bring_plane_up(self) -> None:
        """``dataplane up``, when this plane needs it; a failure is shown and followed by one more try.

        Raises :class:`BenchError`.
        """
        self.write_config()
        if self.plane not in ("XDP", "TC"):
            return
        try:
            self.dataplane("up", "--user", "root")
        except BenchError as error:
            print(f"{self.name}: tried again after: {error}", file=sys.stderr, flush=True)
            self.dataplane("up", "--user", "root")

    def dataplane(self, *words: str) -> str:
        """A ``dataplane`` command of the product in this host's namespace. Raises :class:`BenchError`."""
        where = ("--directory", str(self.plane_directory))
        command = (str(COMMAND), "dataplane", words[0], "--config", str(self.config), *where, *words[1:])
        return run(*command, namespace=self.namespace, seconds=_UP_SECONDS)

    def launch(self, cpu: int | None = None, probed: bool = False) -> None:
        """Start the agent's process, on one processor or with the probe in it; does not wait.

        From the main thread: its end is the agents' end.
        """
        pinned = ("taskset", "-c", str(cpu)) if cpu is not None else ()
        self.prefix = (*enter(self.namespace), *pinned)
        self.start((sys.executable, str(PROBE), str(self.arrivals_file)) if probed else (str(COMMAND),))

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Until it serves. Raises :class:`BenchError`."""
        until(self.not_ready, seconds, 0.1)

    def end(self) -> None:
        """Kill the process group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.kill()

    def expect_no_internal_errors(self) -> None:
        """Raises :class:`BenchError` with the first line of an exception that the agent did not foresee."""
        found = [line for line in self.log_text().splitlines() if "internal error in " in line]
        if found:
            raise BenchError(f"{self.name}: {len(found)} internal errors, the first: {found[0]}")

    # -- what it says ------------------------------------------------------------------------------------------

    def arrivals(self) -> dict[int, int]:
        """Number of the document to CLOCK_MONOTONIC ns of its first arrival."""
        found: dict[int, int] = {}
        raw = self.arrivals_file.read_bytes() if self.arrivals_file.exists() else b""
        for when, number in _ARRIVAL.iter_unpack(raw[: len(raw) - len(raw) % _ARRIVAL.size]):
            found.setdefault(number, when)
        return found

    # -- what it uses ------------------------------------------------------------------------------------------

    def run_time(self) -> int:
        """Nanoseconds that all its threads were on a processor, system calls included."""
        total = 0
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{self.pid}/task/{thread}/schedstat") as file:
                total += int(file.read().split()[0])
        return total

    def _field(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise BenchError(f"/proc/{self.pid}/status: expected {name}, found none")

    @property
    def resident_kib(self) -> int:
        """Resident memory in KiB."""
        return self._field("VmRSS")

    @property
    def peak_kib(self) -> int:
        """The most memory that was ever resident, in KiB."""
        return self._field("VmHWM")

    @property
    def wake_ups(self) -> int:
        """How often its main thread waited for something and was woken."""
        return self._field("voluntary_ctxt_switches")


class Pins:
    """The pinned maps of one agent's data plane, read without asking the agent."""

    def __init__(self, agent: Agent) -> None:
        directory = agent.plane_directory / "bpf" / f"v{headers.constants()['XG_LAYOUT']}"
        self._names = list(headers.counters())
        self._nodes = libbpf.get(str(directory / "nodes"))
        self._counters = libbpf.get(str(directory / "counters"))

    def node(self, address: Address) -> tuple[int, int, int] | None:
        """(highest sequence, last seen in ns, documents digest) of an origin; None when it is not known."""
        try:
            fields = layout.NODE.unpack(libbpf.lookup(self._nodes, layout.node_key(address), layout.NODE.size))
        except FileNotFoundError:
            return None
        return fields[2], fields[4], fields[6]

    def entries(self) -> dict[bytes, bytes]:
        """The whole node map, as bytes."""
        found = {}
        for key in libbpf.keys(self._nodes, layout.NODE_KEY.size, libbpf.map_info(self._nodes).max_entries):
            with contextlib.suppress(FileNotFoundError):
                found[key] = libbpf.lookup(self._nodes, key, layout.NODE.size)
        return found

    def counters(self) -> dict[str, int]:
        """Every counter, summed over the processors."""
        return {name: libbpf.lookup_per_cpu(self._counters, number) for number, name in enumerate(self._names)}

    def close(self) -> None:
        """Let go of the maps."""
        os.close(self._nodes)
        os.close(self._counters)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A directory for agents. What a run that was killed left of its own is removed first."""
    temporary = Path(tempfile.gettempdir())
    for left in temporary.glob(f"{PREFIX}-*-*"):
        owner = left.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _clear(left)
    base = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-", dir=temporary))
    try:
        yield base
    finally:
        _clear(base)


def _clear(base: Path) -> None:
    """Unmount everything below ``base`` and remove it: with the pins go programs, links and maps."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in sorted((path for path in mounts if path.startswith(f"{base}/")), reverse=True):
        run("umount", "--lazy", path)
    shutil.rmtree(base, ignore_errors=True)


def until(missing: Callable[[], str | None], seconds: float, pause: float = 0.2) -> float:
    """Wait until ``missing()`` is None; the seconds it took. Raises :class:`BenchError` with its text."""
    began = time.monotonic()
    while (text := missing()) is not None:
        if time.monotonic() - began > seconds:
            raise BenchError(f"after {seconds:g} s: {text}")
        time.sleep(pause)
    return time.monotonic() - began
