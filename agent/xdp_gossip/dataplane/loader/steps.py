# SPDX-License-Identifier: MIT
"""Marks the steps after which a killed loader leaves something in the kernel or on the disk.

Tests kill the loader at each step.
"""

from __future__ import annotations

import os
import signal

#: Environment variable: name of the step at which the loader kills itself with SIGKILL.
VARIABLE = "XDP_GOSSIP_DATAPLANE_DIE_AT"


def step(name: str) -> None:
    """Mark the step ``name`` as reached; kill this process if the environment variable names this step."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
