# SPDX-License-Identifier: MIT
"""How long tests wait for what must come: nets against hanging, wider on a machine that is kept busy.

``PATIENCE`` in the environment is the factor (1). No test takes such a time for a claim.
"""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
from collections.abc import Callable
from typing import Any

#: Factor of all nets; `make test-loaded` sets it.
PATIENCE = float(os.environ.get("PATIENCE", "1"))


def patient(seconds: float) -> float:
    """``seconds`` of a quiet machine as the net for this one."""
    return seconds * PATIENCE


def widen_processes(factor: float) -> None:
    """Make every wait for a process of this program ``factor`` times as patient, whoever wrote the wait.

    Tests start hundreds of processes with nets of a minute. A process that compiles takes longer than that on a machine
    that is kept busy.
    """
    if factor == 1:
        return
    for name in ("wait", "communicate"):
        setattr(subprocess.Popen, name, _widened(getattr(subprocess.Popen, name), factor))


def _widened(method: Callable[..., Any], factor: float) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def waits(process: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(process, *args, **kwargs)
        # ``communicate`` calls ``wait`` with the rest of its own net.
        inner = getattr(process, "_patient", False)
        if given.arguments.get("timeout") is not None and not inner:
            given.arguments["timeout"] *= factor
        process._patient = True
        try:
            return method(*given.args, **given.kwargs)
        finally:
            process._patient = inner

    return waits
