# SPDX-License-Identifier: MIT
"""docs/releasing.md and SECURITY.md name files, targets and addresses that exist."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.pages import ROOT, page, rows
from xdp_gossip import __version__
from xdp_gossip.wire.native import WIRE_VERSION

PAGE = page("releasing.md")


def test_every_place_of_the_version() -> None:
    named = re.findall(r"`([\w./]+)`", " ".join(row[0] for row in rows(PAGE, "| file | line |")))
    assert named[:2] == ["galaxy.yml", "agent/xdp_gossip/__init__.py"]
    assert [name for name in named if __version__ not in (ROOT / name).read_text().replace("\\", "")] == []
    assert f"v{__version__}" in PAGE and WIRE_VERSION > 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:tests|molecule|changelogs|agent)/[\w./]+)`", PAGE))))
def test_a_file_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / name).exists()


def test_a_report_goes_to_the_advisories_of_this_repository() -> None:
    repository = yaml.safe_load((ROOT / "galaxy.yml").read_text())["repository"]
    policy = (ROOT / "SECURITY.md").read_text()
    assert f"<{repository}/security/advisories/new>" in policy
    assert re.findall(r"[\w.]+@[\w.]+", policy) == []
    for anchor in re.findall(r"\]\((docs/[\w.]+#[\w-]+)\)", policy):
        path, _, heading = anchor.partition("#")
        titles = re.findall(r"(?m)^#+ (.+)$", (ROOT / path).read_text())
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor
