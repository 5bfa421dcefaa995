# SPDX-License-Identifier: MIT
"""docs/simulator.md: its commands run, its tables are those of the code, its trace is one of the simulator."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import patient

from .checks import Checks
from .scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


def run(command: str) -> str:
    """What a command of the page prints, in the checkout; fails unless it ends well."""
    words = shlex.split(command)
    assert words[:3] == ["python3", "-m", "tests.sim"], f"expected python3 -m tests.sim, got {command}"
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=patient(100), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command: str) -> None:
    assert "seeds well" in run(command)


def test_the_table_has_every_scenario() -> None:
    section = PAGE.split("\n## Scenarios\n")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \| (.+) \|$", section) == [
        (name, (scenario.__doc__ or "").strip().splitlines()[0]) for name, (scenario, _, _) in SCENARIOS.items()
    ]


def test_every_check_exists() -> None:
    section = PAGE.split("\n## Checks\n")[1].split("\n## ")[0]
    named = re.findall(r"(?m)^\| [^|]+ \| `(\w+)` \|", section)
    assert len(named) == 7 and all(callable(getattr(Checks, name)) for name in named)


def plain(line: str) -> str:
    """A line of a trace without its numbers, which follow from the order of random choices."""
    return re.sub(r"\b[0-9a-f]*\d[0-9a-f]*\b|\bhost\d+", "N", re.sub(r"digest [0-9a-f]{4}", "digest N", line)).strip()


@pytest.mark.slow
def test_the_trace_is_a_real_one() -> None:
    (command,) = [line for line in COMMANDS if "--events" in line]
    shown = PAGE.split(command)[1].split("```text\n")[1].split("```")[0].splitlines()
    rest = iter([plain(line) for line in run(command).splitlines()])
    assert len(shown) > 10
    assert [line for line in shown if plain(line) not in rest] == [], (
        "lines that no such trace has, or in another order"
    )


def test_the_failure_on_the_page_is_as_failures_are_shown() -> None:
    source = (ROOT / "tests" / "sim" / "__main__.py").read_text(encoding="utf-8")
    fault, replay = re.findall(r"```text\n(FAILED .*)\n(  replay: .*)\n```", PAGE)[0]
    assert re.fullmatch(r"FAILED \w+: Violation: \[\d+ nodes, \d+\.\d{3} s\] .+", fault)
    assert re.fullmatch(r"  replay: python3 -m tests\.sim --scenario \w+ --seed \d+", replay)
    assert r"\n  replay: python3 -m tests.sim --scenario {name} --seed {seed}" in source
