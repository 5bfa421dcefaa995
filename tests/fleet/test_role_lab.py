# SPDX-License-Identifier: MIT
"""The role ``lab`` as far as its base image: what its variables make of the tool that builds it, and of its cache.

Molecule makes labs and boots their hosts; here ``mmdebstrap`` is a script that notes how it was called.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_role_agent_runs import Controller
from test_role_agent_runs import pytestmark as needs

pytestmark = [*needs, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as a lab does")]

PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: xdp_gossip.fleet.lab
"""


class Lab:
    """A lab in a directory of its own, and the tool that it would build its image with."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.called = directory / "called"
        self.settings: dict[str, Any] = {"lab_dir": str(directory / "lab"), "lab_cache_dir": str(directory / "cache")}
        tools = directory / "tools"
        tools.mkdir()
        self._tool = tools / "mmdebstrap"
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        self._controller = Controller(directory)
        self._controller.inventory({"here": {}})
        (directory / "play.yml").write_text(PLAY)

    def play(self, script: str = "exit 7", **settings: Any) -> str:
        """Run the role, with ``script`` at the end of the tool; what Ansible said, its folded lines joined.

        The tool, called with the words ... SUITE DIRECTORY SOURCES, notes them in ``called/SUITE``.
        """
        self.called.mkdir(exist_ok=True)
        self._tool.write_text(
            "#!/bin/sh\nfor word; do case $word in bookworm | trixie) suite=$word ;; esac; done\n"
            f'printf "%s\\n" "$@" > {self.called}/$suite\necho "the tool ends"\n{script}\n'
        )
        self._tool.chmod(0o755)
        (self.directory / "settings.yml").write_text(yaml.safe_dump({**self.settings, **settings}))
        done = self._controller.play("play.yml", "-e", "@settings.yml")
        return " ".join(done.stdout.split())


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_what_the_images_are_made_of_and_that_they_are_made_at_the_same_time(lab: Lab) -> None:
    """Each call of the tool waits until both have been called, and ends after a minute if the other does not come."""
    both = f"for _ in $(seq 600); do [ $(ls {lab.called} | wc -l) = 2 ] && exit 7; sleep 0.1; done; exit 8"
    said = lab.play(
        both,
        lab_suites=["bookworm", "bookworm", "trixie"],
        lab_mirror="http://198.18.0.9/debian",
        lab_packages=["systemd-sysv", "openssh-server"],
        lab_extra_packages=["tree"],
    )
    assert "the tool ends" in said
    assert sorted(path.name for path in lab.called.iterdir()) == ["bookworm", "trixie"]
    for suite in ("bookworm", "trixie"):
        assert f"base image of {suite}: mmdebstrap ended with status 7" in said
        called = (lab.called / suite).read_text().splitlines()
        assert "--include=openssh-server,systemd-sysv,tree" in called
        assert [called[-3], called[-1]] == [suite, f"deb http://198.18.0.9/debian {suite} main"]
        assert Path(called[-2]).parent == lab.directory / "cache"
    assert not (lab.directory / "lab").exists(), "without an image there is no lab"


def test_an_image_takes_no_longer_than_it_may(lab: Lab) -> None:
    said = lab.play("sleep 600", lab_image_timeout=1)
    assert "base image of bookworm: not complete after 1 s" in said


def test_the_cache_goes_when_it_is_asked_for(lab: Lab) -> None:
    image = lab.directory / "cache" / "image-bookworm-0123456789ab"
    image.mkdir(parents=True)
    assert "failed=0" in lab.play(lab_state="absent")
    assert image.is_dir()
    assert "failed=0" in lab.play(lab_state="absent", lab_purge_cache=True)
    assert not image.parent.exists()
