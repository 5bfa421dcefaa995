# SPDX-License-Identifier: MIT
"""The agent as it is, but for one thing: it notes when a document has arrived.

usage: probe.py FILE xdp-gossip-arguments...

Each document whose value is a decimal number adds 16 bytes to FILE: CLOCK_MONOTONIC in ns, and that number. Asking
agents over their API instead would cost the machine more than what is measured.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "agent"))

from xdp_gossip import changes
from xdp_gossip.cli import main

RECORD = struct.Struct("=QQ")


def note_arrivals(path: str) -> None:
    """Write down every document's arrival."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    inner = changes.ChangeLog.add

    def add(self, kind, event, document=None, member=None):  # type: ignore[no-untyped-def]
        if document is not None and document.value.isdigit():
            os.write(file, RECORD.pack(time.monotonic_ns(), int(document.value)))
        inner(self, kind, event, document, member)

    changes.ChangeLog.add = add  # type: ignore[method-assign]


if __name__ == "__main__":
    arrivals = sys.argv.pop(1)
    note_arrivals(arrivals)
    sys.exit(main())
