# SPDX-License-Identifier: MIT
"""Reports the state of the loaded data plane.

Root and the agent's user see the complete report; the report for other users has no counters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import headers, interfaces, libbpf
from ..health import COPY_ENDS
from . import hooks, pins, refusals, state

#: Maximum seconds until a requested copy is sent, refused or lost.
_FLIGHT = 0.05


def report(directory: Path) -> dict[str, Any]:
    """Describe the data plane in ``directory``. Raises ``LoaderError`` if the state file cannot be read."""
    now = state.read(directory)
    base: dict[str, Any] = {"up": False, "directory": str(directory)}
    if now is None:
        return {**base, "reason": "nothing is up", "reasons": []}
    described: dict[str, Any] = {
        **base,
        "mode": now.mode,
        "interface": now.interface,
        "since": now.since,
        "proved": now.proved,
        "version": now.version,
        "protocol": now.protocol,
        "layout": now.layout,
        "user": now.user,
        "amount": now.amount,
        "wide": now.wide,
        "nodes": now.nodes,
        "tc": "clsact" if now.clsact else "TCX",
        "programs": now.programs,
        "links": now.links,
        "maps": now.maps,
        "reasons": [vars(refusal) for refusal in now.reasons],
        "notes": now.notes,
        "waiting": now.waiting,
        "compiler": now.compiler,
        "container": now.container,
        "container_unfit": now.unfit,
        "rejected": {name: vars(refusal) for name, refusal in now.rejected.items()},
        "changes": [vars(change) for change in now.changes],
    }
    described["interface"] = _name_now(now)
    if not now.complete:
        described["reason"] = "a loader is at work, or died: run up again"
        return described
    if not now.mode:
        described["reason"] = f"waiting: {now.waiting}" if now.waiting else "no mode could be had"
        return described
    described["reason"] = _fault(directory, now)
    described["up"] = not described["reason"]
    pinned = pins.pin_directory(directory, now.layout)
    try:
        described["counters"] = counters(pinned)
        described["copies_missing"] = copies_missing(described["counters"], pinned)
        described["refusals"] = [vars(source) for source in refusals.sources(pinned)]
    except OSError as error:
        described["counters"], described["refusals"], described["copies_missing"] = {}, [], 0
        described["notes"] = [*now.notes, f"counters: {error.strerror}: only root and {now.user} may read them"]
    return described


def origin(described: Mapping[str, Any]) -> str:
    """Return what the programs of a report come from: a program container or this host's compiler."""
    compiler = f" ({described['compiler']})" if described["compiler"] else ""
    if described["container"]:
        return f"program container sha256:{described['container']}{compiler}"
    return f"this host's compiler{compiler}"


def copies_missing(before: Mapping[str, int], pinned: Path) -> int:
    """Return the number of requested copies that the kernel lost before our program saw them.

    ``before``: values of the counters, read just before this call. A copy is in flight for microseconds, so after a
    short sleep every requested copy has an outcome, unless it was lost. Raises ``OSError``.
    """
    time.sleep(_FLIGHT)
    now = counters(pinned)
    return max(0, before["copy_due"] - sum(now[name] for name in COPY_ENDS))


def _name_now(now: state.State) -> str:
    """Return the current name of the interface. The name in the state may be a former name."""
    try:
        found = interfaces.by_index(now.ifindex) if now.ifindex else None
    except OSError:
        found = None
    return found.name if found is not None else now.interface


def counters(pinned: Path) -> dict[str, int]:
    """All counters, summed over the CPUs. Raises ``OSError``."""
    with pins.opened(pinned / "counters") as descriptor:
        return {name: libbpf.lookup_per_cpu(descriptor, index) for index, name in enumerate(headers.counters())}


def _fault(directory: Path, now: state.State) -> str:
    """The reason why the loaded data plane is no longer up; "" if it is up.

    Only root can inspect links, so the result is "" for other users.
    """
    try:
        gone = [name for name, program in hooks.running(directory, now).items() if not program]
    except PermissionError:
        return ""
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return f"{', '.join(gone)}: detached by somebody, or {now.interface} is gone: run up again" if gone else ""
