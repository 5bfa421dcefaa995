# SPDX-License-Identifier: MIT
"""What runs before a commit and at the forge is what `make` runs: the same tools, nothing beside them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_hooks_call_the_tools_of_make_and_download_nothing() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system", hook["id"]
        tool = hook["entry"].split()[0]
        called = tool.replace(".cache/venv", "$(VENV)")
        assert re.search(rf"^\t{re.escape(called)}\b", makefile, re.MULTILINE), f"make does not call {tool}"


def test_pre_commit_reads_its_configuration() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_forge_runs_the_whole_suite_and_nothing_else() -> None:
    workflow = load(".github/workflows/ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    checkout, run = job["steps"]
    # A tag can be moved; a commit cannot.
    assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", checkout["uses"])
    assert run == {"run": ".ci/run"}
