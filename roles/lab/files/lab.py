# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the throw-away fleet; the role calls it, a person may too.

Run `lab.py --help`. The work is done in the package `xg_lab` next to this file.
"""

from __future__ import annotations

import sys

from xg_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
