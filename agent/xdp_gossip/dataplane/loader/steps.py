# SPDX-License-Identifier: MIT
"""Names of the steps after which a killed loader leaves something behind; tests kill the loader at each step."""

from __future__ import annotations

import os
import signal

#: Environment variable with the name of a step at which the loader kills itself, as ``kill -9`` would.
VARIABLE = "XDP_GOSSIP_DATAPLANE_DIE_AT"

UP = (
    *("directory made", "state written", "mounted", "pin directory made", "compiled", "loaded", "maps handed over"),
    *("link_tc_egress attached", "link_xdp attached", "hooks attached", "tested", "hooks proved", "programs pinned"),
)
UP_CLSACT = (
    *("filter egress intended", "clsact made", "filter egress attached"),
    *("filter ingress intended", "filter ingress attached"),
)
UPGRADE = (
    *("compiled", "loaded", "link_tc_egress exchanged", "link_xdp exchanged", "hooks attached", "tested"),
    *("hooks proved", "programs pinned"),
)
#: Steps of an ``up`` that waits for an interface.
PREPARE = (
    *("state written", "mounted", "pin directory made", "compiled", "loaded", "maps handed over", "programs pinned"),
)
MOVE = ("move intended", "taken off", "link_tc_egress attached", "link_xdp attached", "tested", "hooks proved")
DOWN = ("down intended", "links removed", "filters removed", "pins removed", "unmounted", "state removed")


def step(name: str) -> None:
    """Mark the step ``name`` as reached; kill this process if the environment variable names it."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
