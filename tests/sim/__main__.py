# SPDX-License-Identifier: MIT
"""``python3 -m tests.sim --scenario NAME --seed N --seeds COUNT``: play scenarios.

What fails is named together with the command that replays it.
"""

from __future__ import annotations

import argparse
import collections
import gc
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "agent"))

from .scenarios import SCENARIOS, play


def attempt(job: tuple[str, int], show: Callable[[str], None] | None = None) -> tuple[str, int, str | None, str, float]:
    """Play one seed: name, seed, what failed (None: nothing), trace, seconds of processor time."""
    name, seed = job
    # Worlds are small and short-lived; looking for cycles among their packets costs more than it frees.
    gc.disable()
    began = time.process_time()
    try:
        world = play(name, seed, show)
    except Exception as error:
        tail = traceback.format_exc() if not isinstance(error, AssertionError) else ""
        return name, seed, f"{type(error).__name__}: {error}\n{tail}".rstrip(), "", time.process_time() - began
    finally:
        gc.enable()
    return name, seed, None, world.trace, time.process_time() - began


def main() -> int:
    """Play what the command line asks for; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.sim", description="Play simulated clusters.")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds of each scenario")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--hash", action="store_true", help="print a hash over all inputs of each seed that passes")
    parser.add_argument("--events", action="store_true", help="print each event (docs/simulator.md)")
    options = parser.parse_args()
    names = options.scenario or list(SCENARIOS)
    jobs = [(name, seed) for name in names for seed in range(options.seed, options.seed + options.seeds)]
    failed: collections.Counter[str] = collections.Counter()
    spent: collections.Counter[str] = collections.Counter()
    with multiprocessing.Pool(min(options.jobs, len(jobs))) as pool:
        results = (attempt(job, print) for job in jobs) if options.events else pool.imap(attempt, jobs, chunksize=1)
        for name, seed, fault, trace, seconds in results:
            spent[name] += seconds
            if fault is not None:
                failed[name] += 1
                print(
                    f"FAILED {name}: {fault}\n  replay: python3 -m tests.sim --scenario {name} --seed {seed}",
                    flush=True,
                )
            elif options.hash:
                print(f"{name} {seed} {trace}")
    for name in names:
        print(f"{name:20} {options.seeds - failed[name]:5} of {options.seeds} seeds well, {spent[name]:7.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
