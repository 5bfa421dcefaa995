# SPDX-License-Identifier: MIT
"""The table of coverage: which row a file counts in, and what its sums are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "coverage_by_wing"


def summary(lines: int, run: int, branches: int, taken: int) -> dict[str, dict[str, object]]:
    counts = {"num_statements": lines, "covered_lines": run, "num_branches": branches, "covered_branches": taken}
    return {"summary": {**counts, "percent_covered_display": "50"}}


def table(*reports: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *reports], capture_output=True, text=True, timeout=60)


def test_files_count_in_the_row_of_their_wing(tmp_path: Path) -> None:
    files = {
        "agent/xdp_gossip/core/engine.py": summary(100, 90, 40, 20),
        "agent/xdp_gossip/core/members/ring.py": summary(100, 100, 0, 0),
        "agent/xdp_gossip/nodelist.py": summary(50, 25, 10, 10),
        "agent/xdp_gossip/wire/__init__.py": summary(0, 0, 0, 0),
        "plugins/modules/xdp_gossip_info.py": summary(10, 5, 2, 1),
    }
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": files}))
    rows = [line.split() for line in table(report).stdout.splitlines()]
    assert rows == [
        ["wing", "lines", "run", "branches", "taken"],
        ["(top)", "50", "50", "%", "10", "100", "%"],
        ["core", "200", "95", "%", "40", "50", "%"],
        ["wire", "0", "-", "0", "-"],
        ["plugins/modules", "10", "50", "%", "2", "50", "%"],
        ["all", "260", "85", "%", "52", "60", "%"],
    ]


def test_a_report_that_is_none_is_told(tmp_path: Path) -> None:
    done = table(tmp_path / "nothing.json")
    assert done.returncode == 2
    assert "expected a report of `coverage json`" in done.stderr and "nothing.json" in done.stderr
