# SPDX-License-Identifier: MIT
"""Checks the agent's systemd units, if systemd runs on this host."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

from . import unseen
from .finding import Finding, Subject
from .look import Look

_SAYS = Subject("unit", failed="error", restarts="warning", disabled="warning", changed="warning", stopped="warning")
_UNITS = (
    *("xdp-gossip.service", "xdp-gossip-dataplane.service", "xdp-gossip-dataplane.path"),
    *("xdp-gossip-dataplane-again.service", "xdp-gossip-files.service"),
)
_SHOWN = "Id,LoadState,ActiveState,SubState,Result,NRestarts,UnitFileState,NeedDaemonReload,ActiveEnterTimestamp"
#: ``doctor`` warns if systemd has restarted a unit automatically at least this many times since the unit was last
#: started by hand or at boot.
_OFTEN = 3
_BOOTED = "/run/systemd/system"


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the installed units; no findings on a host without systemd (sd_booted(3))."""
    systemctl = shutil.which("systemctl")
    if systemctl is None or not os.path.isdir(_BOOTED):
        return
    words = [systemctl, "show", f"--property={_SHOWN}", "--", *_UNITS]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        yield unseen(f"systemctl show: {done.stderr.strip()}")
        return
    for block in done.stdout.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit.get("LoadState") == "loaded":
            yield from _one(unit, look)


def _one(unit: dict[str, str], look: Look) -> Iterator[Finding]:
    name, state = unit.get("Id", "?"), unit.get("ActiveState", "")
    wrong = []
    if state == "failed":
        text = f"{name} has failed ({unit.get('Result')})"
        wrong.append(_SAYS("failed", text, f"journalctl -u {name} -n 50; then systemctl restart {name}"))
    elif state == "inactive" and name == "xdp-gossip.service" and look.status is None:
        wrong.append(_SAYS("stopped", f"{name} is not running", f"systemctl start {name}"))
    restarts = unit.get("NRestarts", "")
    if restarts.isdigit() and int(restarts) >= _OFTEN:
        text = (
            f"{name} was restarted {restarts} times by systemd, last on {unit.get('ActiveEnterTimestamp') or 'never'}"
        )
        wrong.append(_SAYS("restarts", text, f"journalctl -u {name} -p warning"))
    if unit.get("UnitFileState") == "disabled" and state == "active":
        text = f"{name} runs, but will not start at boot: it is not enabled"
        wrong.append(_SAYS("disabled", text, f"systemctl enable {name}"))
    if unit.get("NeedDaemonReload") == "yes":
        text = f"{name} has changed on disk since systemd read it"
        wrong.append(_SAYS("changed", text, f"systemctl daemon-reload; systemctl restart {name}"))
    yield from wrong
    if not wrong:
        yield _SAYS.ok(f"{name} is {state} ({unit.get('SubState')})")
