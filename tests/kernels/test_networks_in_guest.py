# SPDX-License-Identifier: MIT
"""Rows of docs/networks.md whose types of interface other kernels may lack: Debian's have them all."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.kernels.distributions import BOOKWORM, TRIXIE, Distribution, kernel, root
from tests.kernels.guest import booted
from tests.kernels.product import AHEAD, compile_ahead, lay_out, lay_out_tests
from tests.networks.rows import ROWS

#: Types of interfaces that kernels without modules lack -> the module that has it.
MODULES = {
    "bond": "bonding",
    "vlan": "8021q",
    "ipvlan": "ipvlan",
    "vrf": "vrf",
    "dummy": "dummy",
    "wireguard": "wireguard",
}
#: Three hosts with loaders and agents for each row, on processors that are emulated.
SECONDS = 2700.0
COMMAND = """
cd product
export PATIENCE=10 XDP_GOSSIP_NETWORK_CYCLE=1 XDP_GOSSIP_NETWORK_ROWS="{row}" PYTHONPATH=/run/share/pytest
python3 -m pytest --no-header -v -rs --durations=12 --junitxml=/run/share/report.xml tests/networks/test_rows.py
"""


def check(distribution: Distribution, name: str, share: Path) -> None:
    """Run the row with this name in a guest. It is not skipped for what the kernel lacks."""
    lay_out(share)
    lay_out_tests(share, ["networks", "planes", "cluster", "patience.py"])
    compile_ahead(share, distribution)
    command = AHEAD + COMMAND.format(row=name)
    modules = ("bridge", *MODULES.values())
    inside = (kernel(distribution), root(distribution), share, command, "-smp", "2")
    with booted(*inside, memory=2048, modules=modules) as guest:
        print(guest.wait(SECONDS))
    cases = list(ET.parse(share / "report.xml").iter("testcase"))
    assert len(cases) >= 6
    skipped = [(case.get("name"), found.get("message", "")) for case in cases for found in case.findall("skipped")]
    assert not [name for name, why in skipped if "this kernel has no" in why], skipped


#: Names of the rows that need one of ``MODULES``.
LACKING_ELSEWHERE = [row.name for row in ROWS if set(row.needs) & set(MODULES)]


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [BOOKWORM, TRIXIE], ids=lambda each: each.suite)
@pytest.mark.parametrize("name", LACKING_ELSEWHERE)
def test_row(name: str, distribution: Distribution, tmp_path: Path) -> None:
    """Bond, VLAN, ipvlan, VRF, dummy and wireguard, each in a guest of its own: all in one outlast any bound."""
    check(distribution, name, tmp_path / "guest")
