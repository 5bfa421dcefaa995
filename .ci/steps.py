# SPDX-License-Identifier: MIT
"""Run make targets, show what goes on, and sum up.

usage: steps.py STAGE...

Stages run one after the other. A stage is a target, or several lanes of targets that run side by side, as in
``a,b/c,d``: c and d beside a and b. The first lane has the machine's attention; the others take what it leaves.

All targets run, also after a failure. Each one's output goes to the terminal (behind its name, in a stage with
several lanes) and to .cache/logs/TARGET.log. The last line is ``N passed, N failed``: a target that leaves test
reports (JUnit, .cache/reports/TARGET/*.xml) counts as many as it ran tests, any other as one. What a target leaves
in .cache/reports/TARGET/summary.txt is shown below the table of targets.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
import time

from step import LOGS, REPORTS, Outcome, Step, show

Stage = list[list[str]]

#: Lines of a failed target's log that are shown at the end.
TAIL = 40
#: Lines of its log that say what failed, shown below all ends: at most so many, the last ones.
ABOVE = 15
#: Characters of each of them.
WIDTH = 300
#: How pytest, ansible-test, Ansible, Molecule, ruff and make say that something failed.
FAILING = re.compile(
    r"(?:^|│ )(?:FAILED |E  +\S|ERROR[ :]|fatal: |FATAL: )|: failed \(exit status |: error: |\bassertion: "
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def heading(text: str) -> None:
    """Print a line that the eye finds."""
    show(f"\n=== {text} {'=' * max(3, 100 - len(text))}")


def parse(arguments: list[str]) -> list[Stage]:
    """The stages of a command line, each a list of lanes; ValueError when a target is empty or occurs twice."""
    stages = [[lane.split(",") for lane in argument.split("/")] for argument in arguments]
    targets = [target for stage in stages for lane in stage for target in lane]
    for target in targets:
        if not target:
            raise ValueError(f"expected targets such as a or a,b/c, got an empty one in {' '.join(arguments)!r}")
        if targets.count(target) > 1:
            raise ValueError(f"expected each target once, got {target!r} {targets.count(target)} times")
    return stages


def failing(lines: list[str]) -> list[str]:
    """The lines that say what failed, each with its number; the last ones, when there are many."""
    plain = [COLOURS.sub("", line) for line in lines]
    found = [(number, line.strip()) for number, line in enumerate(plain, start=1) if FAILING.search(line)]
    return [f"line {number}: {line[:WIDTH]}" for number, line in found[-ABOVE:]]


class Run:
    """The stages as they run: what has ended, what is running, and whether somebody has had enough."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self.targets = [target for stage in stages for lane in stage for target in lane]
        self.outcomes: list[Outcome] = []
        self._running: list[Step] = []
        self._interrupted = False
        # Held for moments only, also by the signal handler, which may find the main thread inside: so reentrant.
        self._lock = threading.RLock()

    def interrupt(self, why: str) -> None:
        """End what runs, and begin nothing more. Returns at once."""
        with self._lock:
            self._interrupted = True
            for step in self._running:
                threading.Thread(target=step.end, args=[why], daemon=True).start()

    def all(self) -> None:
        """Run the stages."""
        for stage in self.stages:
            width = max(len(target) for lane in stage for target in lane)
            if len(stage) > 1:
                heading("side by side: " + " | ".join(", ".join(lane) for lane in stage))
            lanes = [
                threading.Thread(target=self._lane, args=[lane, number > 0, width if len(stage) > 1 else 0])
                for number, lane in enumerate(stage)
            ]
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()

    def _lane(self, targets: list[str], polite: bool, width: int) -> None:
        for target in targets:
            step = Step(target, prefix=f"{target:<{width}} | " if width else "", polite=polite)
            with self._lock:
                if self._interrupted:
                    return
                self._running.append(step)
            position = f"{self.targets.index(target) + 1}/{len(self.targets)} {target}"
            if width:
                show(f"--- {position}: begins")
            else:
                heading(position)
            outcome = step.run()
            with self._lock:
                self._running.remove(step)
                self.outcomes.append(outcome)
            show(f"--- {target}: {outcome.verdict} in {outcome.seconds:.1f} s")

    def summary(self, seconds: float) -> int:
        """Print the table and the totals; returns the exit status."""
        heading("summary")
        done = {one.target: one for one in self.outcomes}
        width = max(len(target) for target in self.targets)
        for target in self.targets:
            if (one := done.get(target)) is None:
                show(f"{target:<{width}} NOT RUN")
                continue
            skipped = f", {one.skipped} skipped" if one.skipped else ""
            counts = f"{one.passed} passed, {one.failed} failed{skipped}"
            show(f"{target:<{width}} {one.verdict:<7} {one.seconds:6.1f} s  {counts}")
        for target in done:
            if (words := REPORTS / target / "summary.txt").is_file():
                heading(target)
                show(words.read_text(encoding="utf-8").rstrip("\n"))
        for one in self.outcomes:
            if one.status:
                heading(f"{one.target} failed; the end of .cache/logs/{one.target}.log")
                lines = (LOGS / f"{one.target}.log").read_text(encoding="utf-8", errors="replace").splitlines()
                show("\n".join(lines[-TAIL:]))
        # A target goes on after a failing part, so its end may tell of what passed. These come last of all, as
        # some readers keep only the last lines of a run.
        for one in self.outcomes:
            if one.status and (found := failing((LOGS / f"{one.target}.log").read_text(errors="replace").splitlines())):
                heading(f"what failed in {one.target}")
                show("\n".join(found))
        not_run = len(self.targets) - len(done)
        passed = sum(one.passed for one in self.outcomes)
        failed = sum(one.failed for one in self.outcomes) + not_run
        show(f"\n{seconds / 60:.1f} minutes")
        show(f"{passed} passed, {failed} failed")
        return 1 if failed or any(one.status for one in self.outcomes) else 0


def main(arguments: list[str]) -> int:
    """Run the stages in order; a signal ends what is running and skips the rest."""
    try:
        stages = parse(arguments)
    except ValueError as error:
        print(f"steps.py: {error}", file=sys.stderr)
        return 2
    if not stages:
        print(__doc__, file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    run = Run(stages)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: run.interrupt(f"ended by {signal.Signals(number).name}"))
    begin = time.monotonic()
    run.all()
    return run.summary(time.monotonic() - begin)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
