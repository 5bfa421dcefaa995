# SPDX-License-Identifier: GPL-3.0-or-later
"""Print, as a JSON list, the files that changed after a running unit was last started or reloaded.

Usage: ``stale.py UNIT PATH...``. A directory counts with the files in it; a symbolic link counts itself, not what it
points to; a path that does not exist does not count. A unit that does not run has nothing stale.

Why: a run that ends between writing a file and the handler that applies it would otherwise never be made up for, as
the next run finds the file in order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def applied_at(unit: str) -> float | None:
    """Wall-clock seconds of the unit's last change of state (start or reload), None when it does not run."""
    shown = subprocess.run(
        ["systemctl", "show", unit, "--property=ActiveState,StateChangeTimestampMonotonic"],
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
    )
    values = dict(line.split("=", 1) for line in shown.stdout.decode("ascii", "replace").splitlines() if "=" in line)
    if values.get("ActiveState") != "active":
        return None
    # systemd's monotonic clock, because its printed dates end at the second.
    elapsed = time.clock_gettime(time.CLOCK_MONOTONIC) - int(values["StateChangeTimestampMonotonic"]) / 1e6
    return time.time() - elapsed


def files(paths: list[str]) -> list[str]:
    """The paths, with a directory replaced by the files in and below it."""
    found = []
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            found += [os.path.join(top, name) for top, _dirs, names in os.walk(path) for name in names]
        elif os.path.lexists(path):
            found.append(path)
    return found


def main() -> int:
    """Answer for the unit and the paths given as arguments."""
    since = applied_at(sys.argv[1])
    late = [] if since is None else [path for path in files(sys.argv[2:]) if os.lstat(path).st_mtime > since]
    json.dump(sorted(late), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
