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

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "logs"
REPORTS = ROOT / ".cache" / "reports"

#: Seconds after which a target is ended: nothing may hang. A polite one has three times as long: it gets what others
#: leave.
LIMIT = 15 * 60 * float(os.environ.get("PATIENCE", "1"))
#: Seconds between two looks at a target, and between two signs of life of one that prints nothing.
POLL, QUIET = 5.0, 60
#: How far a target steps back, in units of nice(1), for the one that it runs beside. Where something else keeps the
#: processors busy, one that steps back would get next to nothing.
POLITENESS = int(os.environ.get("POLITENESS", "5"))
#: Words before a command that steps back, from its first moment on, with all that it will start. The scheduler weighs
#: sessions against each other by the autogroup, and only inside of one by the priority of a process.
STEP_BACK = (
    *("sh", "-c", f'{{ echo {POLITENESS} > /proc/self/autogroup; }} 2>/dev/null; exec nice -n {POLITENESS} "$@"'),
    "sh",
)

#: Lines of a failed target's log that are shown at the end; lines of it that say what failed, shown below all ends: at
#: most so many, the last ones; characters of each of them.
TAIL, ABOVE, WIDTH = 40, 15, 300
#: How pytest, ansible-test, Ansible, Molecule, ruff and make say that something failed.
FAILING = re.compile(
    r"(?:^|│ )(?:FAILED |E  +\S|ERROR[ :]|fatal: |FATAL: )|: failed \(exit status |: error: |\bassertion: "
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_terminal = threading.Lock()


def show(text: str | bytes) -> None:
    """Print a line; lines of targets that run side by side do not mix."""
    with _terminal:
        sys.stdout.buffer.write(text if isinstance(text, bytes) else text.encode() + b"\n")
        sys.stdout.flush()


def heading(text: str) -> None:
    """Print a line that the eye finds."""
    show(f"\n=== {text} {'=' * max(3, 100 - len(text))}")


def count_tests(reports: Path) -> tuple[int, int, int]:
    """Tests, failures (errors included) and skips in the JUnit files of a directory; none is (0, 0, 0)."""
    tests = failed = skipped = 0
    for file in reports.glob("**/*.xml"):
        for suite in ET.parse(file).getroot().iter("testsuite"):
            tests += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped") or suite.get("disabled") or 0)
    return tests, failed, skipped


class Step:
    """One make target in its own process group, so that it can be ended together with all it started.

    ``prefix`` stands before each line that is shown (not in the log). A ``polite`` one leaves the processors to others.
    :meth:`run` sets ``status``, ``seconds``, and the numbers of tests ``passed``, ``failed`` and ``skipped``.
    """

    def __init__(self, target: str, *, prefix: str = "", polite: bool = False) -> None:
        self.target, self.prefix, self.polite = target, prefix.encode(), polite
        self.limit = LIMIT * (3 if polite else 1)
        self.log, self.reports = LOGS / f"{target}.log", REPORTS / target
        self.process: subprocess.Popen[bytes] | None = None
        self.last_output = time.monotonic()
        self.status, self.seconds = 0, 0.0
        self.passed = self.failed = self.skipped = 0
        self._unwanted = ""

    @property
    def verdict(self) -> str:
        """``ok`` or ``FAILED``."""
        return "FAILED" if self.status else "ok"

    def run(self) -> None:
        """Run the target to its end or to the time limit."""
        shutil.rmtree(self.reports, ignore_errors=True)
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [*(STEP_BACK if self.polite else ()), "make", "--no-print-directory", self.target],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "REPORTS": str(self.reports)},
        )
        if self._unwanted:
            # Somebody asked for the end before there was a process to end.
            self.end(self._unwanted)
        copying = threading.Thread(target=self._copy_output, args=[self.process], daemon=True)
        copying.start()
        try:
            self.status = self._wait(self.process, begin)
        finally:
            # Not to the end of the output: a daemon left behind by the target may hold the pipe open forever.
            copying.join(5)
        self.seconds = time.monotonic() - begin
        self._count()

    def _wait(self, process: subprocess.Popen[bytes], begin: float) -> int:
        while True:
            try:
                return process.wait(POLL)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if now - begin > self.limit:
                self.end(f"not finished after {self.limit / 60:g} minutes: ended")
            elif now - self.last_output > QUIET:
                self.last_output = now
                show(f"    ... {self.target} goes on, {now - begin:.0f} s")

    def _copy_output(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with self.log.open("wb") as log:
            for line in iter(process.stdout.readline, b""):
                self.last_output = time.monotonic()
                log.write(line)
                log.flush()
                show(self.prefix + line)

    def end(self, why: str) -> None:
        """End the target and what it started; its own clean-up gets a minute and a half."""
        self._unwanted = why
        process = self.process
        if process is None or process.poll() is not None:
            return
        show(f"\n*** {self.target}: {why}")
        for number, patience in ((signal.SIGTERM, 90.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(process.pid, number)
                process.wait(patience)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def _count(self) -> None:
        """Count the tests of its reports; without any, the target itself is one."""
        tests, self.failed, self.skipped = count_tests(self.reports)
        self.passed = tests - self.failed - self.skipped if tests else int(self.status == 0)
        # A target may fail without a failing test, a crash of the runner for instance.
        self.failed = max(self.failed, int(self.status != 0))

    def failing(self) -> list[str]:
        """The lines of its log that say what failed, each with its number; the last ones, when there are many."""
        plain = (COLOURS.sub("", line) for line in self.log.read_text(errors="replace").splitlines())
        found = [(number, line.strip()) for number, line in enumerate(plain, start=1) if FAILING.search(line)]
        return [f"line {number}: {line[:WIDTH]}" for number, line in found[-ABOVE:]]


class Run:
    """The stages as they run: what has ended, what is running, and whether somebody has had enough.

    A stage is a list of lanes, a lane a list of targets. Raises ``ValueError`` if a target is empty or occurs twice.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.stages = [[lane.split(",") for lane in argument.split("/")] for argument in arguments]
        self.targets = [target for stage in self.stages for lane in stage for target in lane]
        for target in self.targets:
            if not target:
                raise ValueError(f"expected targets such as a or a,b/c, got an empty one in {' '.join(arguments)!r}")
            if self.targets.count(target) > 1:
                raise ValueError(f"expected each target once, got {target!r} {self.targets.count(target)} times")
        self._done: list[Step] = []
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
            width = max(len(target) for lane in stage for target in lane) if len(stage) > 1 else 0
            if width:
                heading("side by side: " + " | ".join(", ".join(lane) for lane in stage))
            lanes = [
                threading.Thread(target=self._lane, args=[lane, number > 0, width]) for number, lane in enumerate(stage)
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
            step.run()
            with self._lock:
                self._running.remove(step)
                self._done.append(step)
            show(f"--- {target}: {step.verdict} in {step.seconds:.1f} s")

    def summary(self, seconds: float) -> int:
        """Print the table and the totals; returns the exit status."""
        heading("summary")
        done = {step.target: step for step in self._done}
        width = max(map(len, self.targets))
        for target in self.targets:
            if (step := done.get(target)) is None:
                show(f"{target:<{width}} NOT RUN")
                continue
            skipped = f", {step.skipped} skipped" if step.skipped else ""
            counts = f"{step.passed} passed, {step.failed} failed{skipped}"
            show(f"{target:<{width}} {step.verdict:<7} {step.seconds:6.1f} s  {counts}")
        for step in self._done:
            if (words := step.reports / "summary.txt").is_file():
                heading(step.target)
                show(words.read_text(encoding="utf-8").rstrip("\n"))
        broken = [step for step in self._done if step.status]
        for step in broken:
            heading(f"{step.target} failed; the end of .cache/logs/{step.target}.log")
            show("\n".join(step.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]))
        # A target goes on after a failing part, so its end may tell of what passed. These come last of all, as
        # some readers keep only the last lines of a run.
        for step in broken:
            if found := step.failing():
                heading(f"what failed in {step.target}")
                show("\n".join(found))
        failed = sum(step.failed for step in self._done) + len(self.targets) - len(done)
        show(f"\n{seconds / 60:.1f} minutes")
        show(f"{sum(step.passed for step in self._done)} passed, {failed} failed")
        return 1 if failed or broken else 0


def main(arguments: list[str]) -> int:
    """Run the stages in order; a signal ends what is running and skips the rest."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        run = Run(arguments)
    except ValueError as error:
        print(f"steps.py: {error}", file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: run.interrupt(f"ended by {signal.Signals(number).name}"))
    begin = time.monotonic()
    run.all()
    return run.summary(time.monotonic() - begin)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
