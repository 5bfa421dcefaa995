# SPDX-License-Identifier: MIT
"""What an agent costs while nothing happens but heartbeats and exchanges, cycle 1 s.

The processor time of a machine that runs nothing else is divided among the agents: user and system time of the whole
machine, softirqs included (/proc/stat, in ticks of 10 ms), less what it uses without agents. The agents' own run time
(schedstat, exact) is shown beside it; the rest is the kernel's work in softirqs that no process is charged for.
"""

from __future__ import annotations

import statistics
import time

from . import agents
from .fleet import fleet, form
from .netns import BenchError
from .report import Report, busy_times

_SIZES, _SECONDS, _WINDOWS = (10, 30, 50), 30.0, 3
_SETTLE = 15.0
GOAL = 0.16


def run(quick: bool) -> Report:
    """Measure. Raises ``BenchError``."""
    sizes, seconds, windows = ((10,), 10.0, 1) if quick else (_SIZES, _SECONDS, _WINDOWS)
    idle = _busy(seconds)
    report = Report(
        "atrest",
        f"processor time a minute and agent, cycle 1 s: median of {windows} windows of {seconds:g} s; the machine "
        f"without agents uses {idle * 60:.2f} s a minute",
        ("plane, n", "in all, s/min", "processes, s/min", "resident MB", "greatest MB"),
    )
    report.data["idle_s_per_min"] = idle * 60
    for plane in agents.PLANES:
        for size in sizes:
            try:
                _one(report, plane, size, seconds, windows, idle)
            except BenchError as error:
                print(f"atrest: {plane}, {size}: {error}", flush=True)
    if not report.rows:
        raise BenchError("no plane could be measured")
    return report


def _busy(seconds: float) -> float:
    """Processor seconds a second that the machine uses."""
    before, began = busy_times(), time.monotonic()
    time.sleep(seconds)
    return (busy_times() - before) / (time.monotonic() - began)


def _one(report: Report, plane: str, size: int, seconds: float, windows: int, idle: float) -> None:
    in_all, processes = [], []
    with fleet(size, plane, cycle=1) as hosts:
        form(hosts, size)
        time.sleep(_SETTLE)
        for _ in range(windows):
            before, own, began = busy_times(), sum(host.run_time() for host in hosts), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            in_all.append(((busy_times() - before) / took - idle) * 60 / size)
            processes.append((sum(host.run_time() for host in hosts) - own) / 1e9 / took * 60 / size)
        resident = [host.resident_kib / 1024 for host in hosts]
    whole, own_time = statistics.median(in_all), statistics.median(processes)
    memory, greatest = statistics.median(resident), max(resident)
    cells = (f"{whole:.3f}", f"{own_time:.3f}", f"{memory:.1f}", f"{greatest:.1f}")
    report.rows.append((f"{plane}, {size}", *cells))
    report.data.setdefault("planes", {}).setdefault(plane, {})[size] = {
        "in_all_s_per_min": in_all,
        "processes_s_per_min": processes,
        "resident_mib": memory,
        "greatest_mib": greatest,
    }
    if plane == "XDP":
        report.most(f"{plane}, {size}: s a minute and agent", whole, GOAL)
        report.most(f"{plane}, {size}: resident MB", greatest, 45)
