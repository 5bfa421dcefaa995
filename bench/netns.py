# SPDX-License-Identifier: MIT
"""Creates the network namespaces and links of the benchmarks, and removes them at the end, also after an error.

The names of all namespaces begin with :data:`PREFIX`, or with another prefix that a benchmark has for itself.
Namespaces of an earlier run are removed first. The namespaces have addresses from 198.18.64.0/20 (RFC 2544). No
namespace is connected to the network of the machine.
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
#: Maximum seconds for one ip(8) or ethtool(8) command.
_SECONDS = 30.0

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Raised if a benchmark cannot continue. The message states what the benchmark expected."""


def run(*words: str, namespace: str | None = None, seconds: float = _SECONDS) -> str:
    """Run a command, in ``namespace`` or, without ``namespace``, in the current namespace.

    Returns its output. Raises :class:`BenchError` with the error output of the command if the command fails.
    """
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
    """Return the words to put before a command so that it runs in a network namespace.

    The benchmarks do not use ``ip netns exec``, because ``ip netns exec`` gives the command its own mount namespace. A
    bpffs that the command mounts in its own mount namespace would disappear when the command ends.
    """
    return ("nsenter", f"--net=/run/netns/{namespace}")


def batch(lines: Sequence[str], namespace: str | None = None) -> None:
    """Run many ip(8) commands in one process. Raises :class:`BenchError`."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=2 * _SECONDS)
    if done.returncode:
        raise BenchError(f"ip -batch of {len(lines)} lines: exit status {done.returncode}: {done.stderr.strip()}")


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Context manager: the calling thread is in the network namespace ``namespace``."""
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
def namespaces(*names: str, prefix: str = PREFIX) -> Iterator[None]:
    """Context manager: new network namespaces with loopback up, which are deleted at the end with all their links.

    ``prefix``: beginning of all ``names``. Namespaces whose names begin with ``prefix`` are removed first.
    """
    remove(prefix)
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        remove(prefix)


def remove(prefix: str = PREFIX) -> None:
    """Delete all network namespaces whose names begin with ``prefix``."""
    for entry in json.loads(run("ip", "-j", "netns", "list") or "[]"):
        if str(entry["name"]).startswith(prefix):
            run("ip", "netns", "delete", entry["name"])


def link(namespace: str, name: str) -> dict[str, Any]:
    """The output of ip(8) for a link, with its BPF programs and statistics."""
    found: list[dict[str, Any]] = json.loads(run("ip", "-n", namespace, "-j", "-d", "-s", "link", "show", "dev", name))
    return found[0]


def statistics(namespace: str, name: str) -> dict[str, int]:
    """The counters of an interface's driver (``ethtool -S``)."""
    found = {}
    for line in run("ethtool", "-S", name, namespace=namespace).splitlines():
        key, _, value = line.strip().rpartition(": ")
        if value.strip().lstrip("-").isdigit():
            found[key] = int(value)
    return found
