# SPDX-License-Identifier: MIT
"""Reports the file descriptors and memory that this process uses, with their limits."""

from __future__ import annotations

import functools
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def usage() -> dict[str, int]:
    """Return the object ``process`` of ``GET /v1/status``: file descriptors and bytes of memory in use, with limits.

    A limit of 0 means no limit.

    The memory is the control group's memory if the group has a limit (set by ``MemoryMax``), otherwise the process's
    memory.
    """
    limit = _number(_group() / "memory.max")
    return {
        "descriptors": _descriptors(),
        "descriptors_limit": _descriptors_limit(),
        "memory": _number(_group() / "memory.current") if limit else _resident(),
        "memory_limit": limit,
    }


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # subtract the descriptor that the listing itself uses
    except OSError:
        return 0  # /proc is hidden, or no file descriptor is free


def _descriptors_limit() -> int:
    """Read the limit of file descriptors from /proc, because the unit's system call filter forbids getrlimit(2)."""
    try:
        lines = Path("/proc/self/limits").read_text().splitlines()
    except OSError:
        return 0
    found = next((line.split()[3] for line in lines if line.startswith("Max open files")), "")
    return int(found) if found.isdigit() else 0


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


@functools.cache
def _group() -> Path:
    """Return the directory of this process's control group in the unified hierarchy."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    own = next((line[len("0::") :] for line in lines if line.startswith("0::")), "/")
    return _GROUPS / own.lstrip("/")


def _number(path: Path) -> int:
    """Return the number in a file of the control group; 0 if the file contains ``max`` or does not exist."""
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
