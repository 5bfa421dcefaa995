# SPDX-License-Identifier: MIT
"""Runs real agents as processes, each in its own network namespace and directory, with or without a data plane."""

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
    """One agent in the network namespace of a host. ``settings``: values for the agent's configuration file."""

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
        """Write the configuration, and run ``dataplane up`` if the agent's mode is XDP or TC.

        If ``dataplane up`` fails, print the error and try once more. Raises :class:`BenchError` if
        the second try fails too.
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
        """Run ``xdp-gossip dataplane`` in this host's namespace. Returns its output. Raises :class:`BenchError`."""
        where = ("--directory", str(self.plane_directory))
        command = (str(COMMAND), "dataplane", words[0], "--config", str(self.config), *where, *words[1:])
        return run(*command, namespace=self.namespace, seconds=_UP_SECONDS)

    def launch(self, cpu: int | None = None, probed: bool = False) -> None:
        """Start the agent's process, without waiting until it serves its API.

        ``cpu``: processor to which the agent is pinned (None: any processor). ``probed``: run the agent in
        bench/probe.py. Call this method in the main thread, because the kernel kills the agent when the thread that
        started the agent ends.
        """
        pinned = ("taskset", "-c", str(cpu)) if cpu is not None else ()
        self.prefix = (*enter(self.namespace), *pinned)
        self.start((sys.executable, str(PROBE), str(self.arrivals_file)) if probed else (str(COMMAND),))

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until the agent serves its API. Raises :class:`BenchError` after ``seconds``."""
        until(self.not_ready, seconds, 0.1)

    def end(self) -> None:
        """Kill the processes of the agent's process group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.kill()

    def expect_no_internal_errors(self) -> None:
        """Raise :class:`BenchError` if the agent's log contains internal errors. The message quotes the first error."""
        found = [line for line in self.log_text().splitlines() if "internal error in " in line]
        if found:
            raise BenchError(f"{self.name}: {len(found)} internal errors, the first: {found[0]}")

    # -- what it says ------------------------------------------------------------------------------------------

    def arrivals(self) -> dict[int, int]:
        """Read the probe's file.

        Return a dictionary: document number -> time of the document's first arrival (CLOCK_MONOTONIC, ns).
        """
        found: dict[int, int] = {}
        raw = self.arrivals_file.read_bytes() if self.arrivals_file.exists() else b""
        for when, number in _ARRIVAL.iter_unpack(raw[: len(raw) - len(raw) % _ARRIVAL.size]):
            found.setdefault(number, when)
        return found

    # -- what it uses ------------------------------------------------------------------------------------------

    def run_time(self) -> int:
        """Nanoseconds of processor time that all threads of the agent have used, including system calls."""
        return run_time(self.pid)

    def _field(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise BenchError(f"/proc/{self.pid}/status: expected {name}, found none")

    @property
    def resident_kib(self) -> int:
        """Resident memory of the agent in KiB."""
        return self._field("VmRSS")

    @property
    def peak_kib(self) -> int:
        """Peak resident memory of the agent in KiB."""
        return self._field("VmHWM")

    @property
    def wake_ups(self) -> int:
        """Number of wake-ups (voluntary context switches) of the agent's main thread."""
        return self._field("voluntary_ctxt_switches")


def run_time(pid: int) -> int:
    """Nanoseconds of processor time that all threads of a process have used, including system calls."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


class Pins:
    """The pinned BPF maps of one agent's data plane, which the benchmark reads directly."""

    def __init__(self, agent: Agent) -> None:
        directory = agent.plane_directory / "bpf" / f"v{headers.constants()['XG_LAYOUT']}"
        self._names = list(headers.counters())
        self._nodes = libbpf.get(str(directory / "nodes"))
        self._counters = libbpf.get(str(directory / "counters"))

    def node(self, address: Address) -> tuple[int, int, int] | None:
        """Return (highest sequence, last seen in ns, documents digest) of an origin, or None if the map has no entry
        for this origin.
        """
        try:
            fields = layout.NODE.unpack(libbpf.lookup(self._nodes, layout.node_key(address), layout.NODE.size))
        except FileNotFoundError:
            return None
        return fields[2], fields[4], fields[6]

    def entries(self) -> dict[bytes, bytes]:
        """All entries of the node map: key -> value, as bytes."""
        found = {}
        for key in libbpf.keys(self._nodes, layout.NODE_KEY.size, libbpf.map_info(self._nodes).max_entries):
            with contextlib.suppress(FileNotFoundError):
                found[key] = libbpf.lookup(self._nodes, key, layout.NODE.size)
        return found

    def counters(self) -> dict[str, int]:
        """The value of every counter, summed over the processors."""
        return {name: libbpf.lookup_per_cpu(self._counters, number) for number, name in enumerate(self._names)}

    def close(self) -> None:
        """Close the file descriptors of the maps."""
        os.close(self._nodes)
        os.close(self._counters)


@contextlib.contextmanager
def workspace(prefix: str = PREFIX) -> Iterator[Path]:
    """Context manager: a temporary directory for agents, whose name begins with ``prefix``.

    First remove the directories of earlier runs that were killed.
    """
    temporary = Path(tempfile.gettempdir())
    for left in temporary.glob(f"{prefix}-*-*"):
        owner = left.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _clear(left)
    base = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=temporary))
    try:
        yield base
    finally:
        _clear(base)


def _clear(base: Path) -> None:
    """Unmount all file systems below ``base``, such as a bpffs with pinned programs, and delete ``base``."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in sorted((path for path in mounts if path.startswith(f"{base}/")), reverse=True):
        run("umount", "--lazy", path)
    shutil.rmtree(base, ignore_errors=True)


def until(missing: Callable[[], str | None], seconds: float, pause: float = 0.2) -> float:
    """Wait until ``missing()`` returns None. Return the number of seconds waited.

    After ``seconds``, raises :class:`BenchError` with the last text that ``missing()`` returned.
    """
    began = time.monotonic()
    while (text := missing()) is not None:
        if time.monotonic() - began > seconds:
            raise BenchError(f"after {seconds:g} s: {text}")
        time.sleep(pause)
    return time.monotonic() - began
