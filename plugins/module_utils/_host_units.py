# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: queries and controls systemd units. Python 3.8 or later."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host import Host, Refused

_PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,StateChangeTimestampMonotonic"
_LINES = 30


class Unit:
    """A systemd unit with its unit file at ``path``. Each method records its changes in the ``changes`` of the host."""

    def __init__(self, host: Host, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        #: Whether the unit file was written after systemd last read it; in check mode, whether it would be written.
        self.rewritten = False
        self._host = host

    def write(self, content: str) -> bool:
        """Write the unit file. Returns whether the file was created or changed."""
        self.rewritten = self._host.file(self.path, content, "root", "0644")
        return self.rewritten

    @property
    def foreseen(self) -> bool:
        """Return whether this is check mode and the unit file would be written. If the result is true, systemd's
        answers describe the old unit file.
        """
        return self._host.check and self.rewritten

    def active(self) -> bool:
        """Return whether the unit is active, starting or reloading."""
        return self._show()["ActiveState"] in ("active", "activating", "reloading")

    def start(self) -> bool:
        """Start the unit if it does not run. Returns whether this call started the unit. Raises ``Refused``."""
        return not self.active() and self._act("start", "started")

    def stop(self) -> bool:
        """Stop the unit if it runs. Returns whether this call stopped the unit. Raises ``Refused``."""
        return self._show()["ActiveState"] not in ("inactive", "failed") and self._act("stop", "stopped")

    def restart(self) -> bool:
        """Restart the unit. Returns true. Raises ``Refused``."""
        return self._act("restart", "restarted")

    def reload(self) -> bool:
        """Reload the unit if it runs, otherwise start it. Returns true. Raises ``Refused``."""
        return self._act("reload", "reloaded") if self.active() else self._act("start", "started")

    def enable(self, wanted: bool) -> bool:
        """Enable the unit if ``wanted`` is true, otherwise disable the unit. Returns whether the unit was enabled or
        disabled by this call. Raises ``Refused``.
        """
        if (self._show()["UnitFileState"] == "enabled") == wanted:
            return False
        return self._act("enable", "enabled") if wanted else self._act("disable", "disabled")

    def stale(self, paths: t.Sequence[str]) -> list[str]:
        """Return the files that changed after the unit was last started or reloaded. The list of files is empty if the
        unit does not run.

        An earlier run may have been interrupted after it wrote a file and before it restarted the unit. The next run
        finds that the file already has the right content, so only a comparison of times detects the missing restart.
        """
        shown = self._show()
        if shown["ActiveState"] != "active":
            return []
        # Use systemd's monotonic time stamps, because the dates that systemd prints have a resolution of one second.
        elapsed = time.clock_gettime(time.CLOCK_MONOTONIC) - int(shown["StateChangeTimestampMonotonic"]) / 1e6
        return newer(list(paths) + [self.path], time.time() - elapsed)

    def journal(self) -> str:
        """Return the last lines of the unit's journal; "" if the journal cannot be read."""
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
    """Return the last ``lines`` lines of the journal of units; "" if the journal cannot be read."""
    units = ["--unit=" + name for name in names]
    return host.run(["journalctl"] + units + ["--lines=%d" % lines, "--no-pager", "--output=short-iso"])[1]


def newer(paths: t.Sequence[str], since: float) -> list[str]:
    """Return the files that changed after ``since`` (seconds since the epoch), sorted. For a directory, the function
    checks all files in and below it. For a symbolic link, the function checks the link itself and not the target. The
    function skips paths that do not exist.
    """
    found = []
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            found += [os.path.join(top, name) for top, _dirs, names in os.walk(path) for name in names]
        elif os.path.lexists(path):
            found.append(path)
    return sorted(path for path in found if os.lstat(path).st_mtime > since)
