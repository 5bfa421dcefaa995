# SPDX-License-Identifier: MIT
"""``python -m bench [BENCHMARK...] [--json FILE] [--quick]``, as root."""

from __future__ import annotations

import argparse
import fcntl
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "agent")]

from .netns import BenchError  # noqa: E402
from .report import DIRECTORY, SHORT, Report, machine, save, wait_for_quiet  # noqa: E402

BENCHMARKS = (
    *("dataplane", "planes", "forged", "convergence", "atrest", "members"),
    *("sync", "inventory", "push", "applied", "deploy"),
)


def main() -> int:
    """Run what was asked for; 1 when a goal was missed (with --short: never), 2 when something was not measured."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the agent and its data plane on this machine.")
    parser.add_argument("names", metavar="BENCHMARK", nargs="*", default=["all"], help=", ".join((*BENCHMARKS, "all")))
    parser.add_argument("--json", metavar="FILE", type=Path, help="where the figures go (default: build/bench/)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: to see that it works")
    parser.add_argument("--short", action="store_true", help="see that it works: --quick, --no-wait, no goal is judged")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the machine is quiet")
    parser.add_argument("--former", metavar="DIR", type=Path, help="dataplane: programs to measure beside (a bpf/)")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in (*BENCHMARKS, "all")]
    if unknown:
        parser.error(f"expected {', '.join(BENCHMARKS)} or all, got {', '.join(unknown)}")
    if os.geteuid() != 0:
        parser.error("expected to run as root: namespaces and programs have to be made")
    # Ended from outside, everything is removed as after a failure.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if args.short:
        os.environ[SHORT] = "1"
    lock = _only_one(parser)
    names = BENCHMARKS if "all" in args.names else tuple(dict.fromkeys(args.names))
    about = machine()
    print("machine: " + ", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    reports: list[Report] = []
    failed = False
    for name in names:
        if not (args.no_wait or args.short) and (share := wait_for_quiet()) > 0.15:
            print(f"{name}: others use {share:.0%} of the machine: the figures suffer", file=sys.stderr)
        try:
            beside = {"former": args.former} if name == "dataplane" else {}
            report = importlib.import_module(f"bench.{name}").run(args.quick or args.short, **beside)
        except BenchError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        report.show()
        reports.append(report)
        # After each: a long run that is broken off leaves what it found.
        written = save(reports, about, args.json) if args.json else save([report], about, DIRECTORY / f"{name}.json")
        print(f"\nwritten: {written}", flush=True)
    lock.close()
    if failed:
        return 2
    return 0 if args.short or all(goal.met for report in reports for goal in report.goals) else 1


def _only_one(parser: argparse.ArgumentParser) -> IO[str]:
    """Two at once would take each other's namespaces away, and their figures."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    lock = (DIRECTORY / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error("another benchmark runs in this checkout")
    return lock


if __name__ == "__main__":
    sys.exit(main())
