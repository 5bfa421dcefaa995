# SPDX-License-Identifier: MIT
"""``python3 -m xdp_gossip``: the same command as ``xdp-gossip``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
