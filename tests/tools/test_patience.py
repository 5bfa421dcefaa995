# SPDX-License-Identifier: MIT
"""Every wait for a process is as patient as PATIENCE says, whoever wrote it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import subprocess, sys
from tests.support.patience import widen_processes
widen_processes(float(sys.argv[1]))
begun = subprocess.Popen(["sleep", "0.5"])
try:
    begun.wait(timeout=0.01)
    subprocess.run(["sleep", "0.5"], timeout=0.01, capture_output=True)
    begun.communicate(timeout=0.01)
except subprocess.TimeoutExpired:
    print("given up")
else:
    print("waited")
"""


def told(factor: str) -> str:
    command = [sys.executable, "-c", PROGRAM, factor]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.slow
def test_a_net_is_widened_wherever_it_stands() -> None:
    assert told("1") == "given up"
    assert told("60000") == "waited"
