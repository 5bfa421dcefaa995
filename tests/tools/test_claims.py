# SPDX-License-Identifier: MIT
"""The ledger of claims is complete, names tests that exist, and notices one that was not run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import claims
from tests.claims import NEEDS, Claim, Ledger, features, missing, read_ledger, read_reports, unproved

LEDGER = read_ledger()
ROOT = Path(__file__).resolve().parents[2]

#: Promised features that no test proves; see tests/claims.yml. To be lowered with each that is proved, never raised.
MOST_UNPROVED = 0


def test_every_feature_has_a_claim_and_every_claim_a_feature() -> None:
    promised = features()
    listed = [*LEDGER.claims, *LEDGER.no_promise, *LEDGER.unproved]
    assert sorted(promised - set(listed)) == [], "promised, but not in tests/claims.yml"
    assert sorted(set(listed) - promised) == [], "in tests/claims.yml, but promised nowhere"
    assert len(listed) == len(set(listed)), "a feature stands twice"


def test_what_no_test_proves_becomes_less() -> None:
    assert len(LEDGER.unproved) == MOST_UNPROVED


def test_only_headings_promise_nothing() -> None:
    assert not [feature for feature in LEDGER.no_promise if not feature.startswith("text: ")]


def test_every_test_of_a_claim_exists() -> None:
    named = {test for claim in LEDGER.claims.values() for test in claim.tests}
    assert not [problem for problem in map(missing, sorted(named)) if problem is not None]


def commands() -> Iterator[list[str]]:
    """The runs of pytest in `make test`, each with its arguments."""
    environment = {**os.environ, "MAKEFLAGS": "", "PYTEST_ARGS": ""}

    def made(*words: str, text: str = "") -> list[str]:
        done = subprocess.run(
            ["make", "-n", "--no-print-directory", *words],
            cwd=ROOT,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    (line,) = made("-f", "Makefile", "-f", "-", "steps", text="steps:\n\t@echo $(STEPS)\n")
    targets = line.removeprefix("echo ").replace(",", " ").replace("/", " ").split()
    for line in made(*targets):
        _before, found, after = line.partition("/bin/pytest ")
        if found:
            yield [word for word in shlex.split(after) if not word.startswith("--junitxml=")]


@pytest.mark.slow
def test_make_test_runs_every_test_of_a_claim() -> None:
    """A mark, a file name or an expression of a target may leave a test out."""
    found: set[str] = set()
    for arguments in commands():
        words = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found |= {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    named = {test for claim in LEDGER.claims.values() for test in claim.tests if "::" in test}
    # These run under ansible-test, which selects nothing.
    ours = {test for test in named if not test.startswith("tests/unit/")}
    assert len(ours) > 500
    assert sorted(ours - found) == []


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("tests/tools/test_nothing.py::test_x", "there is no such file"),
        ("tests/tools/test_claims.py::test_that_was_renamed", "there is no test_that_was_renamed"),
        ("tests/tools/test_claims.py", "expected FILE::FUNCTION"),
    ],
)
def test_a_test_that_is_none_is_told(test: str, told: str) -> None:
    problem = missing(test)
    assert problem is not None and told in problem


REPORT = """<?xml version="1.0"?>
<testsuites><testsuite tests="5">
  <testcase classname="tests.agent.test_x" name="test_passes[a-b.c]"/>
  <testcase classname="tests.agent.test_x" name="test_passes[b]"><skipped message="not here"/></testcase>
  <testcase classname="tests.agent.test_x" name="test_skipped"><skipped message="no"/></testcase>
  <testcase classname="tests.agent.test_x.TestY" name="test_fails"><failure message="no"/></testcase>
  <testcase classname="tests.agent.test_x" name="test_breaks"/>
  <testcase classname="tests.agent.test_x" name="test_breaks"><error message="at teardown"/></testcase>
</testsuite></testsuites>
"""


def judged(tmp_path: Path, test: str, *needs: str, strict: bool = False) -> list[str]:
    (tmp_path / "unit").mkdir(exist_ok=True)
    (tmp_path / "unit" / "agent.xml").write_text(REPORT)
    claim = Claim("command: x", (test,), frozenset(needs))
    return unproved(Ledger({claim.feature: claim}, {}, {}), read_reports(tmp_path), strict)


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("test_x.py::test_passes", None),
        ("test_x.py::test_skipped", "was skipped, though it needs nothing"),
        ("test_x.py::TestY::test_fails", "failed"),
        ("test_x.py::test_breaks", "failed"),
        ("test_x.py::test_not_run", "was not run"),
    ],
)
def test_a_report_proves_a_claim_or_not(tmp_path: Path, test: str, told: str | None) -> None:
    found = judged(tmp_path, f"tests/agent/{test}")
    assert (not found) if told is None else told in found[0]


def test_what_a_skipped_test_needs_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = "tests/agent/test_x.py::test_skipped"
    monkeypatch.setattr(claims, "NEEDS", {**NEEDS, "browser": lambda: False})
    assert judged(tmp_path, test, "browser") == []
    assert "was skipped" in judged(tmp_path, test, "browser", strict=True)[0]
    monkeypatch.setattr(claims, "NEEDS", {**NEEDS, "browser": lambda: True})
    assert "was skipped, though browser is there" in judged(tmp_path, test, "browser")[0]


def test_without_reports_nothing_is_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.main([str(tmp_path)]) == 2
    assert "found none" in capsys.readouterr().err
