# SPDX-License-Identifier: MIT
"""What is up, for people and for programs; root and the agent's user may look, the others see no counters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .. import headers
from . import calls, hooks, pins, state


def report(directory: Path) -> dict[str, Any]:
    """Everything about the data plane in ``directory``. Raises ``LoaderError`` when its state cannot be read."""
    now = state.read(directory)
    base: dict[str, Any] = {"up": False, "directory": str(directory)}
    if now is None:
        return {**base, "reason": "nothing is up", "reasons": []}
    described: dict[str, Any] = {
        **base,
        "mode": now.mode,
        "interface": now.interface,
        "since": now.since,
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
    }
    if not now.complete:
        described["reason"] = "a loader is at work, or died: run up again"
        return described
    if not now.mode:
        described["reason"] = f"waiting: {now.waiting}" if now.waiting else "no mode could be had"
        return described
    described["reason"] = _fault(directory, now)
    described["up"] = not described["reason"]
    try:
        described["counters"] = counters(pins.pin_directory(directory, now.layout))
    except OSError as error:
        described["counters"] = {}
        described["notes"] = [*now.notes, f"counters: {error.strerror}: only root and {now.user} may read them"]
    return described


def counters(pinned: Path) -> dict[str, int]:
    """Every counter, summed over the CPUs. Raises ``OSError``."""
    with pins.opened(pinned / "counters") as descriptor:
        return {name: calls.lookup_per_cpu(descriptor, index) for index, name in enumerate(headers.counters())}


def _fault(directory: Path, now: state.State) -> str:
    """Why what was put up is up no longer, "" when it is. Links are root's: others have to believe the state."""
    try:
        gone = [name for name, program in hooks.running(directory, now).items() if not program]
    except PermissionError:
        return ""
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return f"{', '.join(gone)}: detached by somebody, or {now.interface} is gone: run up again" if gone else ""


def show(described: dict[str, Any]) -> None:
    """Print a report for people."""
    from ...cli import tables

    if not described["up"]:
        print(f"down: {described['reason']}")
    if "mode" in described:
        pairs = {
            "mode": described["mode"] or "none",
            "interface": described["interface"],
            "since": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(described["since"])),
            "version": described["version"],
            "room": f"{described['nodes']} nodes",
            "copies": f"{described['amount']} of a heartbeat, {described['wide']} of news",
            "maps of": described["user"],
            "TC by": described["tc"],
            "programs": ", ".join(f"{name} {number}" for name, number in described["programs"].items()),
        }
        tables.show_pairs({name: value for name, value in pairs.items() if value})
    for refusal in described["reasons"]:
        print(f"not {refusal['mode'] or 'up'}: {refusal['reason']}\n  -> {refusal['remedy']}")
    for note in described.get("notes", ()):
        print(f"note: {note}")
    if described.get("counters"):
        print()
        texts = headers.counters()
        rows = [(name, number, texts[name]) for name, number in described["counters"].items() if number]
        if rows:
            tables.show(("counter", "packets", "what"), rows)
        else:
            print("no packet has been counted yet")
