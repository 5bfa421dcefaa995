# SPDX-License-Identifier: MIT
"""Network namespaces and links of the benchmarks: made here, and removed whatever happens.

Every name begins with :data:`PREFIX`; what an earlier run left under it is removed first. Addresses come from
198.18.64.0/20 (RFC 2544), and no namespace has a way out of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

PREFIX = "xgp"
_CLONE_NEWNET = 0x40000000
#: Seconds one ip(8) or ethtool(8) may take.
_SECONDS = 30.0

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A benchmark cannot go on; the message says what was expected."""


def run(*words: str, namespace: str | None = None, seconds: float = _SECONDS) -> str:
    """Run a command, in ``namespace`` if given; its output. Raises :class:`BenchError` with its error text."""
    command = [*(enter(namespace) if namespace else ()), *words]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)}: expected an end within {seconds:g} s") from None
    except OSError as error:
        raise BenchError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: exit status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def enter(namespace: str) -> tuple[str, ...]:
    """Command words before those to run in a namespace.

    Not ``ip netns exec``: that gives a command mounts of its own, and a bpffs mounted there ends with it.
    """
    return ("nsenter", f"--net=/run/netns/{namespace}")


def batch(lines: Sequence[str], namespace: str | None = None) -> None:
    """Many ip(8) commands in one process. Raises :class:`BenchError`."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=2 * _SECONDS)
    if done.returncode:
        raise BenchError(f"ip -batch of {len(lines)} lines: exit status {done.returncode}: {done.stderr.strip()}")


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The calling thread works in ``namespace`` meanwhile."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(other)
        finally:
            os.close(other)
        try:
            yield
        finally:
            _setns(own)
    finally:
        os.close(own)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise BenchError(f"setns: {os.strerror(error)}")


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """Fresh namespaces with loopback up; with them go their links, programs and TC filters."""
    remove()
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        remove()


def remove() -> None:
    """Take away every namespace of ours."""
    for entry in json.loads(run("ip", "-j", "netns", "list") or "[]"):
        if str(entry["name"]).startswith(PREFIX):
            run("ip", "netns", "delete", entry["name"])


def link(namespace: str, name: str) -> dict[str, Any]:
    """What ip(8) tells of a link, its programs and statistics included."""
    found: list[dict[str, Any]] = json.loads(run("ip", "-n", namespace, "-j", "-d", "-s", "link", "show", "dev", name))
    return found[0]


def statistics(namespace: str, name: str) -> dict[str, int]:
    """The driver's counters (``ethtool -S``)."""
    found = {}
    for line in run("ethtool", "-S", name, namespace=namespace).splitlines():
        key, _, value = line.strip().rpartition(": ")
        if value.strip().lstrip("-").isdigit():
            found[key] = int(value)
    return found
