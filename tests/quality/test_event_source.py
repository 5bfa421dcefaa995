# SPDX-License-Identifier: MIT
"""The event source under the linters that galaxy-importer runs on extensions/eda: advice there, a must here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from quality_tools import ROOT, Tools

PLUGINS = ROOT / "extensions" / "eda" / "plugins"
RUFF = ROOT / ".cache" / "venv" / "dev" / "bin" / "ruff"

#: What galaxy-importer leaves out, as in its ansible_test/container/eda/tox.ini.
IMPORTER_RUFF = ["D100", "D104", "INP001", "FA102", "UP001", "UP010", "I001", "FA100", "PLR0913", "E501"]
IMPORTER_PYLINT = "R0801,E0401,C0103,R0913,R0902,R0903"

#: What we leave out of "all rules" beyond that. Each is a matter of how we write, not of what the code does.
OURS = [
    *("D203", "D212", "D213", "D401", "COM812"),  # the layout of docstrings and commas
    *("EM101", "EM102", "TRY003", "TRY004", "N818"),  # an error's text stands where it is raised; names are ours
    *("ANN401", "TC", "PYI034", "PYI036"),  # Any is what JSON is
    *("PTH", "PLR2004", "FBT", "PERF203"),
    "T201",  # the block under __main__ prints the events, as everyone's does
    "S101",  # assert tells a type checker what is known
    "S311",  # jitter needs no secret randomness
]


def ruff(directory: Path) -> subprocess.CompletedProcess[str]:
    ignored = ",".join([*IMPORTER_RUFF, *OURS])
    # Isolated, as the importer runs it: not with the settings of this repository.
    options = ["--isolated", "--no-cache", "--target-version=py39", "--select=ALL", f"--ignore={ignored}"]
    return subprocess.run(
        [RUFF, "check", *options, "--output-format=concise", directory], capture_output=True, text=True, timeout=60
    )


def pylint(tools: Tools, directory: Path) -> subprocess.CompletedProcess[str]:
    files = sorted((directory / "event_source").glob("*.py"))
    assert files
    options = ["--score=no", "--max-line-length=120", f"--disable={IMPORTER_PYLINT}"]
    return tools.run("pylint", *options, *files)


def test_ruff_with_all_rules() -> None:
    done = ruff(PLUGINS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pylint(tools: Tools) -> None:
    done = pylint(tools, PLUGINS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("code", "rule"), [("import os\n", "F401"), ("def f(x=[]):\n    return x\n", "B006")])
def test_what_ruff_finds_is_noticed(tmp_path: Path, code: str, rule: str) -> None:
    (tmp_path / "bad.py").write_text(code)
    done = ruff(tmp_path)
    assert done.returncode == 1
    assert rule in done.stdout


def test_what_pylint_finds_is_noticed(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "event_source").mkdir()
    (tmp_path / "event_source" / "bad.py").write_text('"""Bad."""\n\nprint(nowhere)\n')
    done = pylint(tools, tmp_path)
    assert done.returncode != 0
    assert "undefined-variable" in done.stdout
