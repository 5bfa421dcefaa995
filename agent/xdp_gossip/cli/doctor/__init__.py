# SPDX-License-Identifier: MIT
"""The command ``doctor``: checks everything that an agent needs on this host, and reports each problem with a remedy.

Each module of this package checks one subject. ``CHECKS`` orders the modules so that a cause is reported before its
consequences. Each check runs in its own process (:mod:`.apart`), so a check that hangs or crashes does not affect the
others.
"""

from __future__ import annotations

import argparse
import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ...core.shown import shown
from ..common import FAILED, OK, print_json, wants_json
from ..parser import add_command, add_config
from ..text import escaped
from .finding import LEVELS, Finding, Subject

#: Modules of the checks, in the order in which their findings are reported. Each module has a function
#: ``examine(look)``.
CHECKS = (
    *("libraries", "configuration", "rights", "certificates", "disks", "units", "asking", "process", "ports"),
    *("identity", "members", "versions", "clocks", "keys", "documents", "signers", "rendered", "traffic", "dataplane"),
)
#: Default time limit of one check, in seconds. The check of the data plane has the limit ``_MUCH``, because this check
#: compiles BPF programs, which takes long on a busy host.
SECONDS = 10.0
_MUCH = 12.0

_SAYS = Subject("doctor", timeout="error", internal="error", unseen="note")


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``doctor`` to the parser."""
    text = "Examine this host and its agent. Each finding has a remedy. Exit code 1: there is an error."
    examples = ["xdp-gossip doctor", "xdp-gossip doctor --json", "xdp-gossip doctor --timeout 60"]
    doctor = add_command(commands, "doctor", "find out what is wrong on this host", text, examples, common)
    add_config(doctor)
    text = f"seconds for one subject (default: {SECONDS:g})"
    doctor.add_argument("--timeout", metavar="S", type=_seconds, default=SECONDS, help=text)
    doctor.set_defaults(handler=run_doctor)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0  # text that is not a number is rejected below, like a number out of range
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 3600 seconds, got {shown(text)}")
    return seconds


def run_doctor(args: argparse.Namespace) -> int:
    """Print all findings. Returns exit code 1 if a finding is an error; 0 if there are only notes and warnings."""
    counts: Counter[str] = Counter()
    findings = []
    for finding in examine(args):
        counts[finding.level] += 1
        findings.append(finding)
        if not wants_json(args):
            print(f"{finding.level:<7} {finding.id}: {escaped(finding.text)}", flush=True)
            if finding.remedy:
                print(f"        -> {escaped(finding.remedy)}", flush=True)
    if wants_json(args):
        summary = {level: counts[level] for level in LEVELS}
        print_json({"ok": not counts["error"], "summary": summary, "findings": [asdict(each) for each in findings]})
    return FAILED if counts["error"] else OK


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield the findings of all checks, in the order of ``CHECKS``.

    A check that fails does not stop the other checks.
    """
    from .look import Look, gather

    seconds = getattr(args, "timeout", SECONDS)
    look = Look(args.config)
    for found in _bounded("look", lambda: gather(args, seconds), seconds * 3):
        if isinstance(found, Look):
            look = found
        else:
            yield found
    for name in CHECKS:
        limit = seconds * _MUCH if name == "dataplane" else seconds
        yield from _bounded(name, lambda name=name: _check(name, look), limit)


def _check(name: str, look: Any) -> Iterator[Finding]:
    found: Iterator[Finding] = importlib.import_module(f".{name}", __name__).examine(look)
    return found


def _bounded(name: str, work: Any, seconds: float) -> Iterator[Any]:
    """Yield the items of ``work``, then a finding if ``work`` failed or exceeded its time limit."""
    from . import apart

    try:
        yield from apart.each(work, seconds)
    except apart.TookTooLong as error:
        remedy = "is a disk, or the network that it is on, hanging? dmesg; a busy host: doctor --timeout 60"
        yield _SAYS("timeout", f"{name}: {error}", remedy)
    except apart.Broken as error:
        yield _SAYS("internal", f"{name}: {error}", "report it, with the configuration but without its secrets")
    except OSError as error:
        yield _SAYS("internal", f"{name}: no process can be started: {error}", "free -m; ulimit -u")


def unseen(what: str) -> Finding:
    """Return a finding which says that this user may not examine ``what``."""
    return _SAYS("unseen", f"{what}: not for this user to see", "run doctor as root")
