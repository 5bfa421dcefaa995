# SPDX-License-Identifier: MIT
"""Run make targets one after the other, show what goes on, and sum up.

usage: steps.py TARGET...

All targets run, also after a failure. Each one's output goes to the terminal and to .cache/logs/TARGET.log. The last
line is ``N passed, N failed``: a target that leaves test reports (JUnit, .cache/reports/TARGET/*.xml) counts as
many as it ran tests, any other as one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "logs"
REPORTS = ROOT / ".cache" / "reports"

#: Seconds after which a target is ended: nothing may hang.
LIMIT = 15 * 60
#: Seconds between two signs of life of a target that prints nothing.
QUIET = 60


@dataclass(frozen=True)
class Outcome:
    """What one target came to."""

    target: str
    status: int
    seconds: float
    passed: int
    failed: int
    skipped: int


class Step:
    """One make target in its own process group, so that it can be ended together with all it started."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.log = LOGS / f"{target}.log"
        self.reports = REPORTS / target
        self.process: subprocess.Popen[bytes] | None = None
        self.last_output = time.monotonic()

    def run(self) -> Outcome:
        """Run the target to its end or to the time limit."""
        shutil.rmtree(self.reports, ignore_errors=True)
        begin = time.monotonic()
        self.process = subprocess.Popen(
            ["make", "--no-print-directory", self.target],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "REPORTS": str(self.reports)},
        )
        copying = threading.Thread(target=self._copy_output, args=[self.process], daemon=True)
        copying.start()
        try:
            status = self._wait(self.process, begin)
        finally:
            # Not to the end of the output: a daemon left behind by the target may hold the pipe open for ever.
            copying.join(5)
        return self._outcome(status, time.monotonic() - begin)

    def _wait(self, process: subprocess.Popen[bytes], begin: float) -> int:
        while True:
            try:
                return process.wait(5)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if now - begin > LIMIT:
                self.end(f"not finished after {LIMIT // 60} minutes: ended")
            elif now - self.last_output > QUIET:
                self.last_output = now
                print(f"    ... {self.target} goes on, {now - begin:.0f} s", flush=True)

    def _copy_output(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with self.log.open("wb") as log:
            for line in iter(process.stdout.readline, b""):
                self.last_output = time.monotonic()
                log.write(line)
                log.flush()
                sys.stdout.buffer.write(line)
                sys.stdout.flush()

    def end(self, why: str) -> None:
        """End the target and what it started; its own clean-up gets a minute and a half."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        print(f"\n*** {self.target}: {why}", flush=True)
        for number, patience in ((signal.SIGTERM, 90.0), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(process.pid, number)
                process.wait(patience)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def _outcome(self, status: int, seconds: float) -> Outcome:
        tests, failed, skipped = count_tests(self.reports)
        if tests == 0:
            return Outcome(self.target, status, seconds, int(status == 0), int(status != 0), 0)
        passed = tests - failed - skipped
        # A target may fail without a failing test, a crash of the runner for instance.
        return Outcome(self.target, status, seconds, passed, max(failed, int(status != 0)), skipped)


def count_tests(reports: Path) -> tuple[int, int, int]:
    """Tests, failures (errors included) and skips in the JUnit files of a directory; none is (0, 0, 0)."""
    tests = failed = skipped = 0
    for file in sorted(reports.glob("**/*.xml")):
        root = ET.parse(file).getroot()
        for suite in root.iter("testsuite"):
            tests += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped") or suite.get("disabled") or 0)
    return tests, failed, skipped


def heading(text: str) -> None:
    """Print a line that the eye finds."""
    print(f"\n=== {text} {'=' * max(3, 100 - len(text))}", flush=True)


def summary(outcomes: list[Outcome], not_run: list[str]) -> int:
    """Print the table and the totals; returns the exit status."""
    heading("summary")
    for one in outcomes:
        verdict = "ok" if one.status == 0 else "FAILED"
        skipped = f", {one.skipped} skipped" if one.skipped else ""
        counts = f"{one.passed} passed, {one.failed} failed{skipped}"
        print(f"{one.target:<14} {verdict:<7} {one.seconds:6.1f} s  {counts}")
    for target in not_run:
        print(f"{target:<14} NOT RUN")
    for one in outcomes:
        if one.status:
            heading(f"{one.target} failed; the end of .cache/logs/{one.target}.log")
            lines = (LOGS / f"{one.target}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join(lines[-40:]))
    passed = sum(one.passed for one in outcomes)
    failed = sum(one.failed for one in outcomes) + len(not_run)
    print(f"\n{sum(one.seconds for one in outcomes) / 60:.1f} minutes")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or any(one.status for one in outcomes) else 0


def main(targets: list[str]) -> int:
    """Run the targets in order; a signal ends the running one and skips the others."""
    if not targets:
        print(__doc__, file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    running: list[Step] = []
    interrupted = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        interrupted.set()
        why = f"ended by {signal.Signals(number).name}"
        for step in running:
            threading.Thread(target=step.end, args=[why], daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    for position, target in enumerate(targets, 1):
        if interrupted.is_set():
            break
        heading(f"{position}/{len(targets)} {target}")
        running[:] = [Step(target)]
        outcome = running[0].run()
        running.clear()
        outcomes.append(outcome)
        print(f"--- {target}: {'ok' if outcome.status == 0 else 'FAILED'} in {outcome.seconds:.1f} s", flush=True)
    return summary(outcomes, targets[len(outcomes) :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
