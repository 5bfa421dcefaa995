# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: systemd's units, asked for and acted on. Python 3.8 or later."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host import Host, Refused

_PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,StateChangeTimestampMonotonic"
_LINES = 30


class Unit:
    """A unit whose file is at a path. All that changes it is noted."""

    def __init__(self, host: Host, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        #: Whether its file differs from what systemd has read; in check mode, from what it would read.
        self.rewritten = False
        self._host = host

    def write(self, content: str) -> bool:
        """Whether the unit's file had to be written."""
        self.rewritten = self._host.file(self.path, content, "root", "0644")
        return self.rewritten

    @property
    def foreseen(self) -> bool:
        """In check mode with another file, systemd cannot be asked what it would do."""
        return self._host.check and self.rewritten

    def active(self) -> bool:
        """Whether it runs, or is about to."""
        return self._show()["ActiveState"] in ("active", "activating", "reloading")

    def start(self) -> bool:
        """Whether it had to be started. Raises ``Refused``, as all below."""
        return not self.active() and self._act("start", "started")

    def stop(self) -> bool:
        """Whether it had to be stopped."""
        return self._show()["ActiveState"] not in ("inactive", "failed") and self._act("stop", "stopped")

    def restart(self) -> bool:
        """Always true."""
        return self._act("restart", "restarted")

    def reload(self) -> bool:
        """Always true: one that does not run is started."""
        return self._act("reload", "reloaded") if self.active() else self._act("start", "started")

    def enable(self, wanted: bool) -> bool:
        """Whether it had to be enabled, or disabled."""
        if (self._show()["UnitFileState"] == "enabled") == wanted:
            return False
        return self._act("enable", "enabled") if wanted else self._act("disable", "disabled")

    def stale(self, paths: t.Sequence[str]) -> list[str]:
        """The files that changed after it was last started or reloaded; none when it does not run.

        A run that ends between writing a file and applying it would otherwise never be made up for, as the next one
        finds the file in order.
        """
        shown = self._show()
        if shown["ActiveState"] != "active":
            return []
        # systemd's monotonic clock, because its printed dates end at the second.
        elapsed = time.clock_gettime(time.CLOCK_MONOTONIC) - int(shown["StateChangeTimestampMonotonic"]) / 1e6
        return newer(list(paths) + [self.path], time.time() - elapsed)

    def journal(self) -> str:
        """Its last lines, as far as they can be read."""
        return journal(self._host, [self.name], _LINES)

    def _act(self, verb: str, told: str) -> bool:
        if not self._host.check:
            if self.rewritten or self._show()["NeedDaemonReload"] == "yes":
                self._host.must(["systemctl", "daemon-reload"])
                self.rewritten = False
            self._host.must(["systemctl", verb, self.name])
        self._host.note("%s (%s)" % (self.name, told))
        return True

    def _show(self) -> dict[str, str]:
        shown = self._host.must(["systemctl", "show", self.name, "--property=" + _PROPERTIES])
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        for key in _PROPERTIES.split(","):
            if key not in values:
                raise Refused("%s: expected systemd to tell %s, got none" % (self.name, key))
        return values


def journal(host: Host, names: t.Sequence[str], lines: int) -> str:
    """The last lines of units, as far as they can be read."""
    units = ["--unit=" + name for name in names]
    return host.run(["journalctl"] + units + ["--lines=%d" % lines, "--no-pager", "--output=short-iso"])[1]


def newer(paths: t.Sequence[str], since: float) -> list[str]:
    """The files that changed after ``since`` (seconds of the wall clock), sorted.

    A directory counts with the files in and below it; a symbolic link counts itself, not what it points to; a path that
    does not exist does not count.
    """
    found = []
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            found += [os.path.join(top, name) for top, _dirs, names in os.walk(path) for name in names]
        elif os.path.lexists(path):
            found.append(path)
    return sorted(path for path in found if os.lstat(path).st_mtime > since)
