# SPDX-License-Identifier: MIT
"""The documentation of plugins and roles, as the Ansible documentation site would render it."""

from __future__ import annotations

from pathlib import Path

from quality_tools import ROOT, Tools

LINT = (
    "antsibull-docs",
    "lint-collection-docs",
    # Renders every page, checks it as RST, and checks markup and references in it.
    "--plugin-docs",
    "--no-skip-rstcheck",
    "--validate-collection-refs=all",
    "--disallow-unknown-collection-refs",
    "--check-extra-docs-refs",
)


def test_documentation_renders_and_its_references_hold(tools: Tools, checkout: Path) -> None:
    assert tools.check(*LINT, checkout) == ""


def test_a_reference_to_nothing_is_noticed(tools: Tools, checkout: Path) -> None:
    module = checkout / "plugins" / "modules" / "xdp_gossip_info.py"
    text = module.read_text()
    module.write_text(text.replace("short_description: ", "short_description: P(xdp_gossip.fleet.nothing#lookup) ", 1))
    done = tools.run(*LINT, checkout)
    assert done.returncode != 0
    assert "xdp_gossip.fleet.nothing" in done.stdout


def test_settings_of_the_site_name_this_repository() -> None:
    links = (ROOT / "docs" / "docsite" / "links.yml").read_text()
    repository = next(
        line.split(": ", 1)[1] for line in (ROOT / "galaxy.yml").read_text().splitlines() if "repository:" in line
    )
    owner_and_name = repository.removeprefix("https://github.com/")
    assert f"repository: {owner_and_name}" in links
