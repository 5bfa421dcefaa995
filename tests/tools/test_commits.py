# SPDX-License-Identifier: MIT
"""Commit messages: which ones `make lint` and the commit-msg hook refuse, and what they say."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "commits"
BODY = "\n\nA page whose checksum was wrong was read as if it were right.\n"


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("commits", str(SCRIPT))
    spec = importlib.util.spec_from_loader("commits", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


commits = load()


@pytest.mark.parametrize(
    "subject",
    [
        "Store: keep the checksum of a page",
        "API: answer 404 for a key that has no document",
        "Command line: print one line for each error",
        "Tests: changes of one document are waited for",
        "Core: " + "x" * 66,
    ],
)
def test_a_message_in_order_passes(subject: str) -> None:
    assert commits.problems(subject + BODY) == []


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Store: keep the checksum", "expected a body"),
        ("Store: keep the checksum\n\nSigned-off-by: A <a@example.org>\n", "expected a body"),
        ("Store: keep the checksum\nof a page", "expected an empty line"),
        ("Core: " + "x" * 67 + BODY, "at most 72 characters, got 73"),
        ("keep the checksum" + BODY, "expected a subject such as"),
        ("Store:keep the checksum" + BODY, "expected a subject such as"),
        ("store: keep the checksum" + BODY, "expected a subject such as"),
        ("Store: keep the checksum." + BODY, "without a full stop"),
        ("Store: added a checksum" + BODY, 'the imperative "add"'),
        ("Store: Fixes the checksum" + BODY, 'the imperative "fix"'),
        ("Store: dropping pages" + BODY, 'the imperative "drop"'),
        ("WIP store" + BODY, "unfinished"),
        ("Store: keep the checksum (wip)" + BODY, "unfinished"),
        ("fixup! Store: keep the checksum" + BODY, "unfinished"),
        ("", "expected a subject such as"),
    ],
)
def test_what_is_wrong_is_told(message: str, told: str) -> None:
    assert any(told in problem for problem in commits.problems(message)), commits.problems(message)


@pytest.mark.parametrize("message", ["fixup! Store: keep the checksum", "Merge branch 'store' into main"])
def test_git_writes_notes_for_a_rebase_and_merges_itself(message: str) -> None:
    assert commits.problems(message, draft=True) == []


def hook(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, timeout=60)


def test_the_hook_does_not_take_comments_for_a_body(tmp_path: Path) -> None:
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text("Store: keep it\n\n# Please enter the commit message.\n# -------- >8 --------\ndiff --git a b\n")
    done = hook(message)
    assert done.returncode == 1
    assert done.stderr.startswith("commit message: expected a body")
    message.write_text("# Please enter the commit message.\nStore: keep it" + BODY)
    assert hook(message).returncode == 0


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose first commit is where the rule begins."""
    monkeypatch.setattr(commits, "ROOT", tmp_path)
    for key, value in (("NAME", "A"), ("EMAIL", "a@example.org")):
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert commits.git("init", "--quiet").returncode == 0
    commit("an old one without a form")
    monkeypatch.setattr(commits, "BEGIN", commits.git("rev-parse", "HEAD").stdout.strip())
    return tmp_path


def commit(message: str) -> None:
    assert commits.git("commit", "--quiet", "--allow-empty", "--message", message).returncode == 0


def test_only_commits_since_the_beginning_are_judged(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commits.main([]) == 0
    commit("Store: keep the checksum" + BODY)
    assert commits.main([]) == 0
    commit("quick try")
    capsys.readouterr()
    assert commits.main([]) == 1
    assert "commits: 2 checked, 2 problems" in capsys.readouterr().out


def test_a_history_without_the_beginning_is_not_judged_and_says_so(
    history: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit("quick try")
    monkeypatch.setattr(commits, "BEGIN", "0" * 40)
    assert commits.main([]) == 0
    assert "commits: not checked" in capsys.readouterr().out
