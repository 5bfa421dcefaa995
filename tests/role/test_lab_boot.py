# SPDX-License-Identifier: MIT
"""What the lab does so that its hosts boot, and its wait for one: an answer after the deadline is late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles" / "lab" / "files"


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the lab, imported anew."""
    monkeypatch.syspath_prepend(str(FILES))
    for name in [name for name in sys.modules if name.split(".")[0] == "xg_lab"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(("now", "hosts", "then"), [(128, 30, 616), (128, 3, 292), (5000, 30, 5000)])
def test_the_limit_of_inotify_instances_is_raised_for_many_hosts_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, now: int, hosts: int, then: int
) -> None:
    from xg_lab import limits  # type: ignore[import-not-found]

    monkeypatch.setattr(limits, "INOTIFY", tmp_path / "max_user_instances")
    limits.INOTIFY.write_text(f"{now}\n")
    planned = limits.missing(hosts)
    assert limits.ensure(hosts) == planned == ([f"raise {limits.INOTIFY} to {then}"] if then > now else [])
    assert int(limits.INOTIFY.read_text()) == then
    assert limits.ensure(hosts) == []


def test_a_limit_that_cannot_be_raised_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from xg_lab import limits  # type: ignore[import-not-found]
    from xg_lab.system import LabError  # type: ignore[import-not-found]

    class ReadOnly(type(tmp_path)):  # type: ignore[misc]
        def write_text(self, *_args: Any, **_options: Any) -> int:
            raise OSError(30, "Read-only file system")

    (tmp_path / "limit").write_text("128\n")
    monkeypatch.setattr(limits, "INOTIFY", ReadOnly(tmp_path / "limit"))
    with pytest.raises(LabError, match=r"30 hosts need 616: sysctl -w fs.inotify.max_user_instances=616"):
        limits.ensure(30)


@pytest.mark.parametrize("timeout", [0.01, 10.0])
def test_a_host_is_ready_only_if_it_answers_before_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timeout: float
) -> None:
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
