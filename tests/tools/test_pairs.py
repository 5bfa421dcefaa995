# SPDX-License-Identifier: MIT
"""The pairs of Python and libraries: what is run with each, what is skipped, and what is an error."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

import ansible_env  # noqa: E402
import pairs  # noqa: E402


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What is run, without running it; the cache is the test's own, and this Python is every one."""
    called: list[list[str]] = []

    def run(command: list[str], *, cwd: Path | None = None, seconds: float = 0) -> int:
        called.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)
        return int("fails" in " ".join(command))

    monkeypatch.setattr(pairs, "run", run)
    monkeypatch.setattr(pairs, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(pairs, "find_python", lambda versions: sys.executable)
    monkeypatch.setenv("PIP_CONSTRAINT", "")
    return called


def test_an_environment_is_made_once_and_again_for_other_versions(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert pairs.main([str(tmp_path), "el-9"]) == 0
    venv, install, tests = commands
    assert "venv" in venv and {"aiohttp==3.9.5", "pyyaml==5.4.1", "hypothesis"} <= set(install)
    assert f"--junitxml={tmp_path}/el-9.xml" in tests and tests[0] == str(tmp_path / "cache/el-9/bin/python")
    assert os.environ["PIP_CONSTRAINT"] == str(tmp_path / "cache/constraints.txt")
    assert pairs.main([str(tmp_path), "el-9"]) == 0
    assert len(commands) == 4
    (other,) = (pair for pair in pairs.PAIRS if pair.name == "el-9")
    changed = pairs.Pair(other.name, other.system, other.python, {**other.packages, "aiohttp": "3.9.6"})
    monkeypatch.setattr(pairs, "PAIRS", (changed,))
    assert pairs.main([str(tmp_path)]) == 0
    assert len(commands) == 7 and "aiohttp==3.9.6" in commands[5]


def test_a_pair_without_its_python_is_skipped_and_told(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(pairs, "find_python", lambda versions: None)
    assert pairs.main([str(tmp_path)]) == 0 and commands == []
    assert "el-9: skipped, there is no Python 3.9" in capsys.readouterr().out


def test_a_failure_does_not_keep_the_others_from_running(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    reports = tmp_path / "fails"
    assert pairs.main([str(reports), "el-9", "el-10"]) == 1
    assert len([command for command in commands if "pytest" in command]) == 2
    assert "failed: el-9, el-10" in capsys.readouterr().err


def test_names_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert pairs.main([str(tmp_path), "el-8"]) == 2
    assert "expected debian-13, ubuntu-22.04, ubuntu-24.04, el-9, el-10, got el-8" in capsys.readouterr().err


def test_every_pair_has_a_python_that_the_agent_allows() -> None:
    assert all(tuple(map(int, pair.python.split("."))) >= (3, 9) for pair in pairs.PAIRS)
    assert ansible_env.ROOT == ROOT
