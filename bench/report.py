# SPDX-License-Identifier: MIT
"""Reports of benchmarks: a description of the machine, tables for humans, JSON for programs."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .netns import run

DIRECTORY = Path(__file__).resolve().parents[1] / "build" / "bench"
#: A benchmark waits at most ``_PATIENCE`` seconds while other processes use more than ``_BUSY`` / 4 of the processor
#: time.
_BUSY, _PATIENCE = 0.6, 300.0
#: Environment variable that the option --short sets. With --short the benchmarks check no goal, so inaccurate figures
#: do not matter.
SHORT = "XDP_GOSSIP_BENCH_SHORT"


def sound() -> float:
    """Return the minimum share (0 to 1) of frames and copies that the node must process for a measurement to be valid.
    The share is 0 with --short, because --short only checks whether a benchmark works.

    Without --short, the share is below 1, because a busy machine loses some frames.
    """
    return 0.0 if os.environ.get(SHORT) else 0.98


def machine() -> dict[str, Any]:
    """A description of this machine: processor, kernel, versions, load."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    with open("/proc/meminfo", encoding="utf-8") as lines:
        memory = int(next(lines).split()[1]) // 1024
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    try:
        import bcc

        compiler = str(bcc.__version__)
    except ImportError:
        compiler = "none"
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": model,
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in flags,
        "memory_mib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "bcc": compiler,
        "commit": _commit(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _commit() -> str:
    try:
        directory = str(Path(__file__).resolve().parent)
        return run("git", "-c", "safe.directory=*", "-C", directory, "describe", "--always", "--dirty").strip()
    except Exception:  # This directory is not a git checkout, but an unpacked release.
        return "none"


def busy_share(seconds: float = 0.5) -> float:
    """Wait for ``seconds``, and return the share of the machine's processor time that was used during the wait (0 to
    1).
    """
    before = _processor_times()
    time.sleep(seconds)
    after = _processor_times()
    total = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4]
    return 1 - idle / total if total else 1.0


def busy_times() -> float:
    """Processor seconds used since the machine started, without idle time, waiting for I/O, and stolen time."""
    user, nice, system, _, _, interrupts, soft, _ = _processor_times()
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _processor_times() -> list[int]:
    with open("/proc/stat", encoding="utf-8") as lines:
        return [int(word) for word in next(lines).split()[1:9]]


def wait_for_quiet(most: float = _BUSY * 0.25, patience: float = _PATIENCE) -> float:
    """Wait, for at most ``patience`` seconds, until other processes use at most the share ``most`` of the processor
    time.

    Return the share of the processor time that other processes use at the end of the wait.
    """
    deadline = time.monotonic() + patience
    while (share := busy_share()) > most and time.monotonic() < deadline:
        time.sleep(2)
    return share


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of a figure over several runs."""

    median: float
    least: float
    most: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute the spread of ``values``, which contains at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, form: str = ",.0f") -> str:
        """The spread as text: ``median [least..most]``."""
        return f"{self.median:{form}} [{self.least:{form}}..{self.most:{form}}]"

    def json(self) -> dict[str, float]:
        """The spread as a dictionary for the JSON file."""
        return {"median": self.median, "least": self.least, "most": self.most, "runs": self.runs}


@dataclass(frozen=True)
class Goal:
    """A goal for a figure, the measured figure, and whether the goal is met."""

    name: str
    wanted: str
    got: float
    met: bool


@dataclass
class Report:
    """The result of one benchmark: a table, goals, and data for the JSON file."""

    name: str
    text: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def least(self, name: str, got: float, wanted: float) -> None:
        """Add a goal that is met if ``got`` is at least ``wanted``."""
        self.goals.append(Goal(name, f">= {wanted:g}", got, got >= wanted))

    def most(self, name: str, got: float, wanted: float) -> None:
        """Add a goal that is met if ``got`` is at most ``wanted``."""
        self.goals.append(Goal(name, f"<= {wanted:g}", got, got <= wanted))

    def show(self) -> None:
        """Print the table and the goals."""
        print(f"\n{self.name}: {self.text}\n")
        _table([list(self.columns), *[list(row) for row in self.rows]])
        if self.goals:
            print()
            _table(
                [["goal", "wanted", "got", ""]]
                + [[g.name, g.wanted, f"{g.got:.3g}", "met" if g.met else "MISSED"] for g in self.goals]
            )
        sys.stdout.flush()

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [list(self.columns), ["---"] * len(self.columns), *[list(row) for row in self.rows]]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def json(self) -> dict[str, Any]:
        """The report as a dictionary for the JSON file."""
        goals = [{"name": g.name, "wanted": g.wanted, "got": g.got, "met": g.met} for g in self.goals]
        return {"name": self.name, "text": self.text, "goals": goals, **self.data}


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]]
        print("  " + "  ".join(cells).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def save(reports: Sequence[Report], about: dict[str, Any], path: Path) -> Path:
    """Write the reports and the machine's description ``about`` to the JSON file ``path``. Returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": about, "reports": [r.json() for r in reports]}, indent=2) + "\n")
    return path
