# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down every command line seen on this machine, the lab's hosts included, as anybody can with ps.

Usage: ``argv.py STOP OUTPUT``. Looks until the file STOP exists, ten minutes at most.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

LIMIT = 600.0
#: Seconds between two looks. A process that is gone sooner may be missed; Ansible's live for tenths of seconds.
EVERY = 0.02


def command_lines() -> set[bytes]:
    """Those of all processes at this moment."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as stream:
                    found.add(stream.read().replace(b"\0", b" "))
            except OSError:
                continue  # gone in the meantime
    return found


def main() -> int:
    """Look until told to stop."""
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
