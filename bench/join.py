# SPDX-License-Identifier: MIT
"""Measures how long a fleet that starts at once needs for one NodeList.

Each host is a network namespace with an agent, which knows two seeds. All agents are started together. The time runs
from the moment at which the last agent serves its API until each agent lists all others as alive. The agents start
several times without state, and then once more with the state of the last start, as after a power failure.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence

from .agents import Agent
from .fleet import fleet, form
from .report import Report

_HOSTS, _QUICK_HOSTS = 200, 4
_STARTS, _QUICK_STARTS = 5, 2
#: Seconds in which the processes of so many hosts start on two cores.
_PATIENCE = 600.0
#: Seconds from the moment at which the last agent serves its API.
GOAL = 10.0


def run(quick: bool, hosts: Sequence[int] = ()) -> Report:
    """Run this benchmark and return its report.

    ``quick``: make fewer starts of fewer hosts. ``hosts``: the first is the number of hosts. Raises ``BenchError``.
    """
    size = hosts[0] if hosts else _QUICK_HOSTS if quick else _HOSTS
    starts = _QUICK_STARTS if quick else _STARTS
    report = Report(
        "join",
        f"{size} agents over UDP that start at once: seconds until all have one NodeList",
        ("start", "until the last serves", "from then until one NodeList", "resident MB, median"),
    )
    took = []
    with fleet(size, "UDP") as members:
        for number in range(starts + 1):
            began = time.monotonic()
            seconds = form(members, size, seconds=_PATIENCE)
            serves = time.monotonic() - began - seconds
            took.append(seconds)
            memory = statistics.median(member.resident_kib / 1024 for member in members)
            what = "without state" if number < starts else "with the state of the start before"
            report.rows.append((f"{number + 1}, {what}", f"{serves:.1f}", f"{seconds:.1f}", f"{memory:.1f}"))
            _end(members)
            if number + 1 < starts:
                for member in members:
                    shutil.rmtree(member.state_dir, ignore_errors=True)
    report.data["seconds"] = took
    report.most("longest time until one NodeList, s", max(took), GOAL)
    return report


def _end(members: Sequence[Agent]) -> None:
    """Kill all agents at once, as a power failure does."""
    for member in members:
        member.expect_no_internal_errors()
    for member in members:
        member.end()
