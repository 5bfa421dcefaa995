# SPDX-License-Identifier: MIT
"""docs/releasing.md and SECURITY.md name files, targets and addresses that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

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


def test_a_release_is_signed_and_verified_as_the_page_says(tmp_path: Path) -> None:
    section = PAGE.split("\n## Signatures\n")[1].split("\n## ")[0]
    sign, verify = re.findall(r"(?s)```sh\n(.*?)```", section)
    (build := tmp_path / "build").mkdir()
    (keys := tmp_path / ".ssh").mkdir()

    def run(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        words = ["/bin/bash", "-euc", script.replace("~", str(tmp_path))]
        return subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)

    # As `make sums` names them.
    recipe = re.findall(r"cd build && (sha256sum .*)", (ROOT / "Makefile").read_text())[0]
    sums = recipe.replace("$(VERSION)", __version__)
    names = re.findall(rf"\S+{re.escape(__version__)}\S+", sums)
    assert len(names) == 4
    for name in names:
        (build / name).write_text(name)
    run(f"ssh-keygen -q -t ed25519 -N '' -f {keys}/id_ed25519", tmp_path)
    public = " ".join((keys / "id_ed25519.pub").read_text().split()[:2])
    shown = re.findall(r"(?s)```text\n(.*?)```", section)[0]
    (build / "allowed_signers").write_text(re.sub(r"ssh-ed25519 \S+", public, shown))

    done = run(sign.replace("make sums\n", f"cd build; {sums}; cd ..\n").replace("0.1.0", __version__), tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in build.glob("*.sig")} == {"SHA256SUMS.sig", f"xdp-gossip-{__version__}.tar.gz.sig"}
    done = run(verify, build)
    assert done.returncode == 0, done.stderr
    assert all(f"{name}: OK" in done.stdout for name in names)
    (build / names[1]).write_text("changed")
    assert run(verify, build).returncode != 0
    (build / names[1]).write_text(names[1])
    (build / "SHA256SUMS").write_text((build / "SHA256SUMS").read_text() + "\n")
    assert "incorrect signature" in run(verify, build).stderr


def test_a_report_goes_to_the_advisories_of_this_repository() -> None:
    repository = yaml.safe_load((ROOT / "galaxy.yml").read_text())["repository"]
    policy = (ROOT / "SECURITY.md").read_text()
    assert f"<{repository}/security/advisories/new>" in policy
    assert re.findall(r"[\w.]+@[\w.]+", policy) == []
    for anchor in re.findall(r"\]\((docs/[\w.]+#[\w-]+)\)", policy):
        path, _, heading = anchor.partition("#")
        titles = re.findall(r"(?m)^#+ (.+)$", (ROOT / path).read_text())
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor
