# SPDX-License-Identifier: MIT
"""Programs of the environment `quality` (.ci/requirements/quality.txt), run where they can leave nothing behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".cache" / "venv" / "quality" / "bin"


class Tools:
    """Runs programs with a home directory and a working directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(directory),
            "ANSIBLE_HOME": str(directory / ".ansible"),
        }

    def run(self, *command: str | Path, seconds: float = 100, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, whatever its exit status; its two outputs are one."""
        return subprocess.run(
            [str(TOOLS / command[0]), *map(str, command[1:])],
            cwd=self.directory,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )

    def check(self, *command: str | Path, **options: str) -> str:
        """Run a program that has to succeed; returns its output."""
        done = self.run(*command, **options)
        assert done.returncode == 0, f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout
