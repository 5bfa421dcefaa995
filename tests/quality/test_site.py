# SPDX-License-Identifier: MIT
"""The site that `make docs` builds: without a warning, every link leads somewhere, nothing comes from the network."""

from __future__ import annotations

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from quality_tools import ROOT

#: Attributes whose address a browser loads by itself; of links that readers follow it loads nothing.
LOADED = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"), ("object", "data")}


def build(directory: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs, with the configuration of ``directory``."""
    return subprocess.run(
        [ROOT / ".cache" / "venv" / "docs" / "bin" / "mkdocs", "build", "--strict", "--site-dir", site],
        cwd=directory,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this checkout."""
    directory = tmp_path_factory.mktemp("site")
    done = build(ROOT, directory)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr, done.stderr
    return directory


class Loaded(HTMLParser):
    """Collects what a browser loads for a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the addresses that are loaded; the canonical one of a page is only stated."""
        if ("rel", "canonical") not in attrs:
            self.addresses += [value for name, value in attrs if (tag, name) in LOADED and value]


def test_every_page_is_a_part_of_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages = {path.with_name("index.html") if path.stem == "README" else path for path in pages}
    assert {path for path in pages if not (site / path).is_file()} == set()


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        addresses = Loaded(page).addresses
        assert addresses and not [each for each in addresses if re.match(r"[a-z]+:|//", each)], page
        # For these the theme's script would ask a forge, or fetch a library.
        text = page.read_text(encoding="utf-8")
        assert 'data-md-component="source"' not in text and 'class="mermaid"' not in text, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_a_dead_link_is_an_error(checkout: Path, tmp_path: Path) -> None:
    page = checkout / "docs" / "glossary.md"
    text = page.read_text(encoding="utf-8")
    for dead in ("[x](protocol.md#nothing)", "[x](nothing.md)", "[x](../nothing.py)"):
        page.write_text(f"{text}\n{dead}\n", encoding="utf-8")
        assert build(checkout, tmp_path / "site").returncode != 0, dead
