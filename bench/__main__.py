# SPDX-License-Identifier: MIT
"""The command ``python -m bench [BENCHMARK...] [--json FILE] [--quick]``, which must run as root."""

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

from .faults import PLANES  # noqa: E402
from .netns import BenchError  # noqa: E402
from .report import DIRECTORY, SHORT, Report, machine, save, wait_for_quiet  # noqa: E402

BENCHMARKS = (
    *("dataplane", "planes", "forged", "convergence", "atrest", "members"),
    *("faults", "sync", "signed", "join", "inventory", "push", "applied", "deploy", "soak"),
)
#: Benchmarks that last for hours, so that ``all`` leaves them out except with --short.
_HOURS = ("soak",)


def main() -> int:
    """Run the benchmarks that the command line names. Returns the exit status.

    The exit status is 2 if a benchmark failed, 1 if a goal was missed (never with --short), otherwise 0.
    """
    parser = argparse.ArgumentParser(prog="bench", description="Measure the agent and its data plane on this machine.")
    parser.add_argument("names", metavar="BENCHMARK", nargs="*", default=["all"], help=", ".join((*BENCHMARKS, "all")))
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="JSON file to write the figures to (default: build/bench/NAME.json)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, to check that a benchmark works")
    parser.add_argument("--short", action="store_true", help="imply --quick and --no-wait, and do not check the goals")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until other processes are idle")
    parser.add_argument(
        "--former",
        metavar="DIR",
        type=Path,
        help="directory with an earlier release's BPF sources, which 'dataplane' measures as well",
    )
    parser.add_argument(
        "--hosts",
        metavar="N[,N]",
        type=_numbers,
        default=(),
        help="numbers of hosts of 'faults'; the first for 'join' and 'soak'",
    )
    parser.add_argument(
        "--plane",
        metavar="PLANE[,PLANE]",
        type=_planes,
        default=(),
        help=f"data planes that 'faults' measures: {', '.join(PLANES)}",
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="duration of 'soak' (default: two hours)")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in (*BENCHMARKS, "all")]
    if unknown:
        parser.error(f"expected {', '.join(BENCHMARKS)} or all, got {', '.join(unknown)}")
    if os.geteuid() != 0:
        parser.error("expected to run as root: namespaces and programs have to be made")
    # SIGTERM raises SystemExit, so that the context managers remove namespaces and programs.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if args.short:
        os.environ[SHORT] = "1"
    lock = _only_one(parser)
    every = tuple(name for name in BENCHMARKS if args.short or name not in _HOURS)
    names = every if "all" in args.names else tuple(dict.fromkeys(args.names))
    about = machine()
    print("machine: " + ", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    reports: list[Report] = []
    failed = False
    for name in names:
        if not (args.no_wait or args.short) and (share := wait_for_quiet()) > 0.15:
            print(f"{name}: others use {share:.0%} of the machine: the figures suffer", file=sys.stderr)
        try:
            beside = {
                "dataplane": {"former": args.former},
                "faults": {"hosts": args.hosts, "planes": args.plane},
                "join": {"hosts": args.hosts},
                "soak": {"hosts": args.hosts, "seconds": args.seconds},
            }.get(name, {})
            report = importlib.import_module(f"bench.{name}").run(args.quick or args.short, **beside)
        except BenchError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        report.show()
        reports.append(report)
        # Write the file after each benchmark, so that an interrupted run keeps its results so far.
        written = save(reports, about, args.json) if args.json else save([report], about, DIRECTORY / f"{name}.json")
        print(f"\nwritten: {written}", flush=True)
    lock.close()
    if failed:
        return 2
    return 0 if args.short or all(goal.met for report in reports for goal in report.goals) else 1


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of hosts, separated by commas. Raises ``argparse.ArgumentTypeError``."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and 3 <= int(word) <= 1000 for word in words):
        raise argparse.ArgumentTypeError(f"expected numbers from 3 to 1000, separated by commas, got {text!r}")
    return tuple(int(word) for word in words)


def _planes(text: str) -> tuple[str, ...]:
    """Names of data planes, separated by commas. Raises ``argparse.ArgumentTypeError``."""
    words = tuple(text.split(","))
    if unknown := [word for word in words if word not in PLANES]:
        raise argparse.ArgumentTypeError(f"expected {', '.join(PLANES)}, got {', '.join(unknown)}")
    return words


def _only_one(parser: argparse.ArgumentParser) -> IO[str]:
    """Lock this checkout for benchmarks, and return the open lock file.

    Exit with an error if the checkout is locked already. Two benchmark runs at the same time would delete each other's
    namespaces and distort each other's figures.
    """
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    lock = (DIRECTORY / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error("another benchmark runs in this checkout")
    return lock


if __name__ == "__main__":
    sys.exit(main())
