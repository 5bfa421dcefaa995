# SPDX-License-Identifier: MIT
"""Marks the moments at which a killed loader leaves something behind; tests kill it at each."""

from __future__ import annotations

import os
import signal

#: Set to the name of a step: the loader then dies there as by ``kill -9``.
VARIABLE = "XDP_GOSSIP_DATAPLANE_DIE_AT"


def step(name: str) -> None:
    """Mark a moment."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
