# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the throw-away fleet, which the role calls. Users may call it, too: see `lab.py --help`.

The package `xg_lab` next to this file contains the implementation.
"""

from __future__ import annotations

import sys

from xg_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
