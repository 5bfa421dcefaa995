# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates a control group for each host, so that the systemd instances of two hosts never manage the same group.

If the machine runs systemd, each host gets a scope unit with delegation. If the machine does not run systemd, the lab
creates the groups itself, in the unified hierarchy and, if it exists, in the `name=systemd` hierarchy of version 1.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .config import Config, Host
from .system import LabError, ProcessId, mounts, run, wait_until


def systemd_runs_machine() -> bool:
    """Return whether PID 1 of this machine is systemd, with the same test as sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def scope(config: Config, host: Host) -> str:
    """Return the name of the host's scope unit, for a machine that runs systemd."""
    return f"xdp-gossip-lab-{config.bridge}-{host.name}.scope"


def _parents(config: Config) -> list[Path]:
    """Return the path of the lab's own control group in each cgroup hierarchy that systemd uses."""
    roots = [
        entry.point
        for entry in mounts()
        if entry.kind == "cgroup2" or (entry.kind == "cgroup" and "name=systemd" in entry.options.split(","))
    ]
    # A hierarchy may be mounted at several mount points. systemd uses the first mount of each hierarchy.
    return [root / f"xdp-gossip-lab-{config.bridge}" for root in dict.fromkeys(roots)]


def enter(config: Config, host: Host) -> None:
    """Move the calling process into the host's control group, and create the group if it is missing.

    Use this function only on machines that do not run systemd. Raises LabError.
    """
    parents = _parents(config)
    if not parents:
        raise LabError("no cgroup hierarchy for systemd is mounted; expected cgroup2 at /sys/fs/cgroup")
    for parent in parents:
        folder = parent / host.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        except OSError as error:
            raise LabError(f"{folder}: {error.strerror}; the lab needs a writable cgroup file system") from error


def sweep(config: Config, host: Host) -> bool:
    """Kill all processes in the host's control group and delete the group. Return whether the group existed.

    The group can only contain descendants of a process that this lab started.
    """
    if systemd_runs_machine():
        unit = scope(config, host)
        if run(["systemctl", "is-active", "--quiet", unit], check=False).returncode != 0:
            return False
        run(["systemctl", "kill", "--signal=SIGKILL", unit], check=False)
        run(["systemctl", "stop", unit], timeout=60, check=False)
        return True
    found = False
    for parent in _parents(config):
        folder = parent / host.name
        if folder.is_dir():
            found = True
            _empty(folder)
            _delete(folder)
        # The lab's own group can be removed only after the groups of all hosts.
        _rmdir(parent)
    return found


def _members(folder: Path) -> list[int]:
    pids: list[int] = []
    for path, _dirs, _names in os.walk(folder):
        try:
            pids += map(int, Path(path, "cgroup.procs").read_text(encoding="ascii").split())
        except OSError:
            continue
    return pids


def _empty(folder: Path) -> None:
    def killed() -> bool:
        left = _members(folder)
        for pid in left:
            try:
                ProcessId.of(pid).send(signal.SIGKILL)
            except LabError:
                continue
        return not left

    if not wait_until(killed, 10.0):
        raise LabError(f"{folder}: processes {_members(folder)} survive SIGKILL for 10 s")


def _delete(folder: Path) -> None:
    for path, _dirs, _names in os.walk(folder, topdown=False):
        # The kernel releases a control group only a moment after the last process of the group has ended.
        if not wait_until(lambda: _rmdir(Path(path)), 5.0):  # noqa: B023
            raise LabError(f"{path}: cannot be deleted though it holds no process")


def _rmdir(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
