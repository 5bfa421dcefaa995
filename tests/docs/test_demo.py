# SPDX-License-Identifier: MIT
"""`make demo`, the README's first promise, as an operator sees it: hosts with systemd, a lab of a name of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import patient

ROOT = Path(__file__).resolve().parents[2]
NAME = "xgw"
HOSTS = [f"{NAME}{number}" for number in (1, 2, 3)]

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(patient(1500)),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="needs systemd-nspawn"),
]


def demo(*words: str) -> str:
    """What it prints; fails with that."""
    done = subprocess.run(
        [str(ROOT / ".ci" / "demo"), *words],
        env={**os.environ, "DEMO_NAME": NAME, "DEMO_NETWORK": "198.18.96.0/24"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patient(1200),
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def steps() -> Iterator[list[str]]:
    """What each step printed, from the first to the last; the fleet is removed afterwards."""
    try:
        yield re.split(r"^== ", demo(), flags=re.MULTILINE)[1:]
    finally:
        demo("--clean")
        assert not Path(f"/sys/class/net/{NAME}br0").exists()
        assert not Path("/var/lib/xdp-gossip-labw").exists()


def test_make_demo_shows_what_the_readme_says(steps: list[str]) -> None:
    assert [step.partition(".")[0] for step in steps] == [*map(str, range(1, 9)), steps[-1].partition(".")[0]]
    assert steps[-1].startswith("Done ")
    deployed, packets, inventory, published, verified, _, dropped = steps[1:8]
    for host in HOSTS:
        assert f'"msg": "{host}: XDP (native) on host0"' in deployed
        assert f"|--{host}\n" in inventory
    assert re.search(r"(?m)^mode: +XDP \(native\)$", packets)
    assert re.search(r"shop/settings", published) and "failed=0" in published
    assert "3 of 3 members" in verified
    assert dropped.partition("--graph")[2].count("|--xgw") == 2 and f"|--{HOSTS[2]}\n" not in dropped
