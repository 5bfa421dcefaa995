# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of this machine's kernel that the hosts of a lab share."""

from __future__ import annotations

from pathlib import Path

from .system import LabError

#: The kernel counts the inotify instances of root on the machine and in all hosts together. At 128, its default, the
#: twenty-third host does not boot.
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
#: Instances that a host may use: systemd, journald, networkd, udevd, dbus and the agent have one or several.
PER_HOST = 12
#: Instances that the lab leaves to the machine and to other labs.
LEFT = 256


def missing(hosts: int) -> list[str]:
    """Return the steps that :func:`ensure` would take for a lab of ``hosts`` hosts."""
    least = LEFT + PER_HOST * hosts
    return [f"raise {INOTIFY} to {least}"] if int(INOTIFY.read_text(encoding="ascii")) < least else []


def ensure(hosts: int) -> list[str]:
    """Raise the limit as far as a lab of ``hosts`` hosts needs. Never lower it: other labs may need more.

    The limit stays until the machine boots again, because a host that was told of a lower one would fail later. Returns
    the steps that the function has taken. Raises LabError if the limit must be raised and cannot be.
    """
    steps = missing(hosts)
    if steps:
        least = LEFT + PER_HOST * hosts
        try:
            INOTIFY.write_text(f"{least}\n", encoding="ascii")
        except OSError as error:
            remedy = f"sysctl -w fs.inotify.max_user_instances={least}"
            raise LabError(f"{INOTIFY}: {error.strerror}; {hosts} hosts need {least}: {remedy}") from error
    return steps
