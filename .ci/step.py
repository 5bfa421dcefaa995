# SPDX-License-Identifier: MIT
"""One make target as a step of a test run: run, watched, bounded in time, and its tests counted."""

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

#: Seconds after which a target is ended: nothing may hang. A polite one has twice as long: it gets what others leave.
LIMIT = 15 * 60 * float(os.environ.get("PATIENCE", "1"))
#: Seconds between two looks at a target.
POLL = 5.0
#: Seconds between two signs of life of a target that prints nothing.
QUIET = 60
#: How far a target steps back, in units of nice(1), for the one that it runs beside.
POLITENESS = 5
#: Words before a command that steps back, from its first moment on, with all that it will start. The scheduler weighs
#: sessions against each other by the autogroup, and only inside of one by the priority of a process.
STEP_BACK = (
    *("sh", "-c", f'{{ echo {POLITENESS} > /proc/self/autogroup; }} 2>/dev/null; exec nice -n {POLITENESS} "$@"'),
    "sh",
)

_terminal = threading.Lock()


def show(text: str | bytes) -> None:
    """Print a line; lines of targets that run side by side do not mix."""
    line = text if isinstance(text, bytes) else text.encode() + b"\n"
    with _terminal:
        sys.stdout.buffer.write(line)
        sys.stdout.flush()


@dataclass(frozen=True)
class Outcome:
    """What one target came to."""

    target: str
    status: int
    seconds: float
    passed: int
    failed: int
    skipped: int

    @property
    def verdict(self) -> str:
        """``ok`` or ``FAILED``."""
        return "ok" if self.status == 0 else "FAILED"


class Step:
    """One make target in its own process group, so that it can be ended together with all it started.

    ``prefix`` stands before each line that is shown (not in the log). A ``polite`` one leaves the processors to others.
    """

    def __init__(self, target: str, *, prefix: str = "", polite: bool = False) -> None:
        self.target = target
        self.prefix = prefix.encode()
        self.polite = polite
        self.limit = LIMIT * (2 if polite else 1)
        self.log = LOGS / f"{target}.log"
        self.reports = REPORTS / target
        self.process: subprocess.Popen[bytes] | None = None
        self.last_output = time.monotonic()
        self._unwanted = ""

    def run(self) -> Outcome:
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
            status = self._wait(self.process, begin)
        finally:
            # Not to the end of the output: a daemon left behind by the target may hold the pipe open forever.
            copying.join(5)
        return self._outcome(status, time.monotonic() - begin)

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
