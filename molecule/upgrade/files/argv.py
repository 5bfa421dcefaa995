# SPDX-License-Identifier: GPL-3.0-or-later
"""Record all command lines on this machine and on the lab's hosts, which any user can read with ps.

Usage: ``argv.py STOP OUTPUT``. The script runs until the file STOP exists, at most ten minutes, and then writes OUTPUT.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

LIMIT = 600.0
#: Seconds between two reads of /proc. A process that ends within this time may be missed, but Ansible's processes run
#: for longer.
EVERY = 0.02


def command_lines() -> set[bytes]:
    """Return the command lines of all running processes."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as stream:
                    found.add(stream.read().replace(b"\0", b" "))
            except OSError:
                continue  # the process has ended
    return found


def main() -> int:
    """Record command lines until the file STOP exists, and write them to OUTPUT."""
    stop, output = map(Path, sys.argv[1:3])
    deadline = time.monotonic() + LIMIT
    seen: set[bytes] = set()
    while time.monotonic() < deadline and not stop.exists():
        seen |= command_lines()
        time.sleep(EVERY)
    output.write_bytes(b"\n".join(sorted(seen)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
