# SPDX-License-Identifier: MIT
"""The runner of `make test`: it runs everything, counts right, and never hangs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"

MAKEFILE = """
good:
\t@echo all is well
bad:
\t@echo broken; exit 3
reports:
\t@mkdir -p "$(REPORTS)"; cp results.xml "$(REPORTS)/"
crash: reports
\t@exit 1
slow:
\t@echo begun; trap 'echo cleaned > cleaned; exit 1' TERM; sleep 60 & wait
daemon:
\t@setsid sleep 8 & echo left one behind
"""

RESULTS = """<testsuites>
<testsuite name="a" tests="7" failures="{failures}" errors="0" skipped="2"/>
<testsuite name="b" tests="3" failures="0" errors="0" skipped="0"/>
</testsuites>
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the runner and targets of our own."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(CI / "steps.py", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "results.xml").write_text(RESULTS.format(failures=0))
    return tmp_path


def run(checkout: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ".ci/steps.py", *targets], cwd=checkout, capture_output=True, text=True, timeout=60
    )


def last_line(text: str) -> str:
    return text.splitlines()[-1]


def test_passes_and_counts(checkout: Path) -> None:
    done = run(checkout, "good", "reports")
    assert done.returncode == 0
    # One for `good`, ten tests less two skips for `reports`.
    assert last_line(done.stdout) == "9 passed, 0 failed"
    assert "2 skipped" in done.stdout
    assert (checkout / ".cache/logs/good.log").read_text() == "all is well\n"


def test_goes_on_after_a_failure_and_fails(checkout: Path) -> None:
    done = run(checkout, "bad", "good")
    assert done.returncode == 1
    assert last_line(done.stdout) == "1 passed, 1 failed"
    assert "bad failed; the end of .cache/logs/bad.log" in done.stdout


def test_failing_tests_are_counted_one_by_one(checkout: Path) -> None:
    (checkout / "results.xml").write_text(RESULTS.format(failures=4))
    done = run(checkout, "crash")
    assert done.returncode == 1
    assert last_line(done.stdout) == "4 passed, 4 failed"


def test_a_failing_target_without_failing_tests_is_a_failure(checkout: Path) -> None:
    done = run(checkout, "crash")
    assert done.returncode == 1
    assert last_line(done.stdout) == "8 passed, 1 failed"


def test_reports_of_an_earlier_run_do_not_count(checkout: Path) -> None:
    run(checkout, "reports")
    (checkout / "Makefile").write_text("reports:\n\t@true\n")
    assert last_line(run(checkout, "reports").stdout) == "1 passed, 0 failed"


@pytest.mark.slow
def test_a_daemon_that_holds_the_output_open_does_not_hold_us(checkout: Path) -> None:
    begin = time.monotonic()
    assert run(checkout, "daemon").returncode == 0
    assert time.monotonic() - begin < 7.5


def test_a_signal_ends_the_target_with_its_clean_up_and_skips_the_rest(checkout: Path) -> None:
    runner = subprocess.Popen(
        [sys.executable, ".ci/steps.py", "slow", "good"], cwd=checkout, stdout=subprocess.PIPE, text=True
    )
    try:
        log = checkout / ".cache/logs/slow.log"
        deadline = time.monotonic() + 20
        while not (log.exists() and "begun" in log.read_text()):
            assert time.monotonic() < deadline, "the target did not start"
            time.sleep(0.05)
        os.kill(runner.pid, signal.SIGTERM)
        output, _ = runner.communicate(timeout=45)
    finally:
        if runner.poll() is None:
            runner.kill()
    assert runner.returncode == 1
    assert (checkout / "cleaned").exists()
    assert "good           NOT RUN" in output
    assert last_line(output) == "0 passed, 2 failed"
