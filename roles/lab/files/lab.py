# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab, a throw-away fleet. The role ``xdp_gossip.fleet.lab`` runs ``lab.py``. Users may also run
``lab.py``: see `lab.py --help`.

The package `xg_lab` next to this file contains the implementation.
"""

from __future__ import annotations

import sys

from xg_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
