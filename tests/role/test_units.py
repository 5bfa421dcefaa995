# SPDX-License-Identifier: MIT
"""Each service of the project is bounded in memory and processes, and leaves no core."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted([*ROOT.glob("agent/systemd/*.service"), *ROOT.glob("roles/*/templates/*.service.j2")])


def test_all_services_are_here() -> None:
    assert {unit.name.partition(".")[0] for unit in UNITS} == {
        "xdp-gossip",
        "xdp-gossip-files",
        "xdp-gossip-dataplane",
        "xdp-gossip-dataplane-again",
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_service_is_bounded(unit: Path) -> None:
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] not in "#{")
    assert settings["LimitCORE"] == "0"
    assert settings["MemoryMax"]
    assert int(settings["TasksMax"]) > 0
