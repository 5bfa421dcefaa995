# SPDX-License-Identifier: MIT
"""The runner of `make test`: it runs everything, counts right, and never hangs."""

from __future__ import annotations

import contextlib
import os
import re
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
long:
\t@printf 'FAILED tests/test_a.py::test_b\\n'; seq 100; printf 'the rest: passed\\n'; exit 3
reports:
\t@mkdir -p "$(REPORTS)"; cp results.xml "$(REPORTS)/"
crash: reports
\t@exit 1
slow slow2:
\t@trap 'echo cleaned > cleaned-$@; exit 1' TERM; echo begun; sleep 600 & wait
daemon:
\t@setsid sh -c 'echo $$$$ > daemon.pid; exec sleep 600' & echo left one behind
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
        [sys.executable, ".ci/steps.py", *targets], cwd=checkout, capture_output=True, text=True, timeout=120
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


def test_what_failed_is_shown_also_from_far_above_the_end(checkout: Path) -> None:
    summary = run(checkout, "long").stdout.split("long failed; the end of")[1]
    assert "line 1: FAILED tests/test_a.py::test_b" in summary
    assert "the rest: passed" in summary and "\n50\n" not in summary


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


def test_what_a_target_leaves_for_the_end_is_shown_there(checkout: Path) -> None:
    (checkout / "Makefile").write_text('words:\n\t@mkdir -p "$(REPORTS)"; echo 84 percent > "$(REPORTS)/summary.txt"\n')
    assert "84 percent\n" in run(checkout, "words").stdout.split("=== summary ")[1]


@pytest.mark.slow
def test_a_daemon_that_holds_the_output_open_does_not_hold_us(checkout: Path) -> None:
    try:
        assert run(checkout, "daemon").returncode == 0
        daemon = int((checkout / "daemon.pid").read_text())
        os.kill(daemon, 0)  # it still runs, so nobody waited for it
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((checkout / "daemon.pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("stages", [["slow", "good"], ["slow/slow2,good"]])
def test_a_signal_ends_what_runs_with_its_clean_up_and_skips_the_rest(checkout: Path, stages: list[str]) -> None:
    running = [target for target in ("slow", "slow2") if target in stages[0]]
    runner = subprocess.Popen(
        [sys.executable, ".ci/steps.py", *stages], cwd=checkout, stdout=subprocess.PIPE, text=True
    )
    try:
        for target in running:
            log = checkout / f".cache/logs/{target}.log"
            deadline = time.monotonic() + 60
            while not (log.exists() and "begun" in log.read_text()):
                assert time.monotonic() < deadline, f"{target} did not start"
                time.sleep(0.05)
        os.kill(runner.pid, signal.SIGTERM)
        output, _ = runner.communicate(timeout=110)
    finally:
        if runner.poll() is None:
            runner.kill()
    assert runner.returncode == 1
    assert all((checkout / f"cleaned-{target}").exists() for target in running)
    assert re.search(r"^good +NOT RUN$", output, re.MULTILINE)
    assert last_line(output) == f"0 passed, {len(running) + 1} failed"


@pytest.mark.slow
@pytest.mark.parametrize("polite", [False, True])
def test_a_target_that_takes_too_long_is_ended(checkout: Path, polite: bool) -> None:
    program = (
        "import sys, time; sys.path.insert(0, '.ci')\n"
        "import steps\n"
        "steps.LOGS.mkdir(parents=True)\n"
        # Long enough for make and a shell to begin on a busy machine: what is ended before has nothing to clean.
        "steps.LIMIT, steps.POLL = 6, 0.1\n"
        "begin = time.monotonic()\n"
        f"step = steps.Step('slow', polite={polite})\n"
        "step.run()\n"
        "assert step.status != 0\n"
        "print(time.monotonic() - begin)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, check=True, capture_output=True, text=True, timeout=60
    )
    assert f"slow: not finished after {0.3 if polite else 0.1} minutes: ended" in done.stdout
    assert float(last_line(done.stdout)) > (18 if polite else 6)
    assert (checkout / "cleaned-slow").exists()


def test_a_step_ended_before_it_has_a_process_does_not_run_on(checkout: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, '.ci')\n"
        "import steps\n"
        "steps.LOGS.mkdir(parents=True)\n"
        "one = steps.Step('slow')\n"
        "one.end('nobody wants it')\n"
        "one.run()\n"
        "assert one.status != 0\n"
    )
    # What it runs takes ten minutes when nobody ends it, and the limit of a target is a quarter of an hour.
    subprocess.run([sys.executable, "-c", program], cwd=checkout, check=True, timeout=110)


def test_lanes_run_side_by_side_and_each_in_its_order(checkout: Path) -> None:
    # Each waits for what only the other lane makes; one lane after the other would wait in vain.
    (checkout / "Makefile").write_text(
        "first:\n\t@timeout 60 sh -c 'until [ -e a ]; do sleep 0.1; done'\n"
        "second:\n\t@[ ! -e b ]; touch a; timeout 60 sh -c 'until [ -e b ]; do sleep 0.1; done'\n"
        "third:\n\t@touch b; echo from the third\n"
        "fourth:\n\t@[ -e b ]\n"
    )
    done = run(checkout, "first,third/second", "fourth")
    assert last_line(done.stdout) == "4 passed, 0 failed", done.stdout
    assert "third  | from the third\n" in done.stdout
    assert (checkout / ".cache/logs/third.log").read_text() == "from the third\n"


@pytest.mark.parametrize("back", [5, 0])
def test_only_the_other_lanes_step_back(checkout: Path, monkeypatch: pytest.MonkeyPatch, back: int) -> None:
    monkeypatch.setenv("POLITENESS", str(back))
    (checkout / "Makefile").write_text("a b c:\n\t@nice; cat /proc/self/autogroup 2>/dev/null || true\n")
    run(checkout, "a/b", "c")
    priorities = {name: (checkout / f".cache/logs/{name}.log").read_text().splitlines() for name in ("a", "b", "c")}
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities["a"][0] == priorities["c"][0] == str(own)
    assert priorities["b"][0] == str(min(own + back, 19))
    if len(priorities["b"]) > 1:
        assert priorities["b"][1].endswith(f"nice {back}")


@pytest.mark.parametrize(
    ("stages", "expected"), [(["good", "bad/good"], "'good' 2 times"), (["good,"], "empty"), (["good//bad"], "empty")]
)
def test_a_wrong_plan_is_refused_before_anything_runs(checkout: Path, stages: list[str], expected: str) -> None:
    done = run(checkout, *stages)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not (checkout / ".cache/logs").exists()
