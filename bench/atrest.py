# SPDX-License-Identifier: MIT
"""Measures the processor time of an agent at rest, with only heartbeats and syncs, at a cycle of 1 s.

The benchmark reports two figures for each fleet. The first figure is the exact run time of all agents and of ksoftirqd,
read from ``/proc/PID/schedstat``. The first figure includes the softirqs that receive and relay packets, because these
softirqs run in the sending process or in ksoftirqd. The second figure is the processor time of the whole machine
(/proc/stat, in ticks), including the softirqs of idle processors, minus the processor time that the machine uses
without agents. The second figure only serves to check the first figure, because the work of other processes on the
machine also changes the second figure.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

from . import agents, lane
from .agents import Agent
from .fleet import fleet, form
from .netns import BenchError
from .report import Report, busy_times

_SIZES, _SECONDS, _WINDOWS = (10, 30, 50), 30.0, 2
_SETTLE = 15.0
GOAL = 0.16


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    sizes, seconds, windows = ((4,), 5.0, 1) if quick else (_SIZES, _SECONDS, _WINDOWS)
    idle = _busy(seconds)
    report = Report(
        "atrest",
        f"processor time a minute and agent, cycle 1 s: median of {windows} windows of {seconds:g} s; the machine "
        f"without agents uses {idle * 60:.2f} s a minute",
        ("plane, n", "agents and ksoftirqd, s/min", "machine, s/min", "resident MB", "greatest MB"),
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
    """Wait for ``seconds``, and return how many processor seconds per second the whole machine used during the wait."""
    before, began = busy_times(), time.monotonic()
    time.sleep(seconds)
    return (busy_times() - before) / (time.monotonic() - began)


def _run_time(hosts: Sequence[Agent]) -> int:
    """Nanoseconds of processor time that all agents and the kernel's ksoftirqd threads have used so far."""
    helpers = [lane.kernel_thread(f"ksoftirqd/{cpu}") for cpu in os.sched_getaffinity(0)]
    return sum(host.run_time() for host in hosts) + sum(map(lane.run_time, helpers))


def _one(report: Report, plane: str, size: int, seconds: float, windows: int, idle: float) -> None:
    in_all, processes = [], []
    with fleet(size, plane, cycle=1) as hosts:
        form(hosts, size)
        time.sleep(_SETTLE)
        for _ in range(windows):
            before, own, began = busy_times(), _run_time(hosts), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            in_all.append(((busy_times() - before) / took - idle) * 60 / size)
            processes.append((_run_time(hosts) - own) / 1e9 / took * 60 / size)
        resident = [host.resident_kib / 1024 for host in hosts]
    whole, own_time = statistics.median(in_all), statistics.median(processes)
    memory, greatest = statistics.median(resident), max(resident)
    cells = (f"{own_time:.3f}", f"{whole:.3f}", f"{memory:.1f}", f"{greatest:.1f}")
    report.rows.append((f"{plane}, {size}", *cells))
    report.data.setdefault("planes", {}).setdefault(plane, {})[size] = {
        "machine_s_per_min": in_all,
        "agents_s_per_min": processes,
        "resident_mib": memory,
        "greatest_mib": greatest,
    }
    if plane == "XDP":
        report.most(f"{plane}, {size}: s a minute and agent", own_time, GOAL)
        report.most(f"{plane}, {size}: resident MB", greatest, 45)
