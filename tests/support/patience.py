# SPDX-License-Identifier: MIT
"""How long tests wait for what must come: nets against hanging, wider on a machine that is kept busy.

``PATIENCE`` in the environment is the factor (1). No test takes such a time for a claim.
"""

from __future__ import annotations

import os

#: Factor of all nets; `make test-loaded` sets it.
PATIENCE = float(os.environ.get("PATIENCE", "1"))


def patient(seconds: float) -> float:
    """``seconds`` of a quiet machine as the net for this one."""
    return seconds * PATIENCE
