# SPDX-License-Identifier: MIT
"""The lab's wait for a host that boots: an answer after the deadline is late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles" / "lab" / "files"


@pytest.mark.parametrize("timeout", [0.01, 10.0])
def test_a_host_is_ready_only_if_it_answers_before_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timeout: float
) -> None:
    monkeypatch.syspath_prepend(str(FILES))
    for name in [name for name in sys.modules if name.split(".")[0] == "xg_lab"]:
        monkeypatch.delitem(sys.modules, name)
    from xg_lab import hosts  # type: ignore[import-not-found]
    from xg_lab.system import LabError  # type: ignore[import-not-found]

    clock = [0.0]

    def answer(*_args: Any, **_options: Any) -> subprocess.CompletedProcess[str]:
        clock[0] += 0.5
        return subprocess.CompletedProcess([], 0, "running\n", "")

    log = tmp_path / "log"
    log.write_text("")
    host: Any = SimpleNamespace(name="one", log=log)
    monkeypatch.setattr(hosts, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: None))
    monkeypatch.setattr(hosts, "process", lambda host: 1)
    monkeypatch.setattr(hosts, "record_host_key", lambda host: True)
    monkeypatch.setattr(hosts, "ssh", answer)
    monkeypatch.setattr(hosts.network, "describe", lambda host: "")
    if timeout > 1:
        assert hosts.wait_ready(None, host, timeout) == "running"
        return
    with pytest.raises(LabError, match=r"one: not ready after 0.01 s, 1 attempts \(running\)"):
        hosts.wait_ready(None, host, timeout)
