# SPDX-License-Identifier: MIT
"""What Galaxy and Automation Hub make of the artifact when it is uploaded: galaxy-importer, with its linting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quality_tools import ROOT, Tools

from tests.shipping import ships

#: Stricter than its defaults: the tags that certification asks for.
SETTINGS = """\
[galaxy-importer]
check_required_tags = true
run_ansible_lint = {lint}
offline_ansible_lint = true
ansible_local_tmp = {directory}/importer
"""

#: Directories of plugins against the importer's names for what is in them, where those differ.
CONTENT_TYPES = {"modules": "module"}


def run_importer(tools: Tools, artifact: Path, *, lint: bool) -> tuple[str, dict[str, Any]]:
    """Import an artifact; returns what was said, and the result (empty when there is none)."""
    settings = tools.directory / "galaxy-importer.cfg"
    settings.write_text(SETTINGS.format(lint=lint, directory=tools.directory))
    done = tools.run(
        "python", "-m", "galaxy_importer.main", artifact, seconds=280, GALAXY_IMPORTER_CONFIG=str(settings)
    )
    result = tools.directory / "importer_result.json"
    return done.stdout, json.loads(result.read_text()) if result.exists() else {}


def complaints(output: str) -> list[str]:
    """The lines that are warnings or worse: the importer shows only ordinary progress without its level."""
    return [line for line in output.splitlines() if line.startswith(("WARNING: ", "ERROR: ", "CRITICAL: "))]


# The importer allows its linter three minutes.
@pytest.mark.timeout(300)
def test_the_artifact_is_imported_without_a_warning(tools: Tools, artifact: Path) -> None:
    output, result = run_importer(tools, artifact, lint=True)
    assert complaints(output) == []
    # Neither of these is a warning when it does not happen.
    assert "...ansible-lint run complete" in output
    assert "Importer processing completed successfully" in output
    assert result["requires_ansible"] == ">=2.18.0"
    found = {(content["content_type"], content["name"]) for content in result["contents"]}
    roles = (path.parent.parent.name for path in (ROOT / "roles").glob("*/tasks/main.yml"))
    expected = {("role", name) for name in roles if ships(f"roles/{name}")}
    for path in (ROOT / "plugins").glob("*/*.py"):
        # The importer has no name for what only our own plugins use.
        if path.parent.name != "plugin_utils":
            expected.add((CONTENT_TYPES.get(path.parent.name, path.parent.name), path.stem))
    for path in (ROOT / "extensions" / "eda" / "plugins" / "event_source").glob("*.py"):
        expected.add(("eda/plugins/event_source", path.stem))
    assert expected - found == set()
    described = {content["content_name"] for content in result["docs_blob"]["contents"] if content.get("doc_strings")}
    assert {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")} <= described


def test_what_the_importer_complains_about_is_noticed(tools: Tools, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    (bare / "meta").mkdir(parents=True)
    (bare / "meta" / "runtime.yml").write_text("requires_ansible: '>=2.18.0'\n")
    (bare / "README.md").write_text("# Bare\n")
    (bare / "galaxy.yml").write_text(
        "{namespace: xdp_gossip, name: bare, version: 1.0.0, readme: README.md, authors: [nobody],"
        " license: [MIT], repository: 'https://example.org', tags: [linux]}\n"
    )
    tools.check("ansible-galaxy", "collection", "build", "--output-path", tmp_path, bare)
    output, _ = run_importer(tools, tmp_path / "xdp_gossip-bare-1.0.0.tar.gz", lint=False)
    assert [line for line in complaints(output) if "No changelog found" in line], output
