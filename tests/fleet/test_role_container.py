# SPDX-License-Identifier: MIT
"""The role and program containers, on the controller: built once, and refused before any host when they are wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.test_role_agent_runs import ROOT, Controller
from xdp_gossip.dataplane.loader import container

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook on the PATH"),
]

#: What the role does on the controller between the checks and the hosts.
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Provide the container
      ansible.builtin.include_role:
        name: xdp_gossip.fleet.agent
        tasks_from: archive.yml
        public: true

    - name: Write down what came of it
      ansible.builtin.copy:
        content: "{{ __xdp_gossip_archive | to_json }}"
        dest: "{{ directory }}/{{ inventory_hostname }}.json"
        mode: "0600"
"""


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def built(controller: Controller) -> str:
    """The release archive of this checkout."""
    words = ["/usr/bin/python3", "-I", str(ROOT / "agent/build_release.py"), "--output", str(controller.directory)]
    path: str = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=120).stdout)["path"]
    return path


def provide(controller: Controller, archive: str, *arguments: str) -> tuple[str, dict[str, Any]]:
    """The output of Ansible, and what the second host knows of the archive then."""
    (controller.directory / "play.yml").write_text(PLAY)
    variables = {
        "directory": str(controller.directory),
        "xdp_gossip_agent_release_archive": archive,
        "xdp_gossip_agent_dataplane_container": "auto",
        "xdp_gossip_agent_dataplane_builder": "builder",
        "xdp_gossip_agent_manage_packages": False,
    }
    output = controller.play("play.yml", "-e", json.dumps(variables), *arguments).stdout
    path = controller.directory / "other.json"
    return output, json.loads(path.read_text()) if path.exists() else {"output": output}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: BCC creates maps")
def test_a_host_of_the_play_builds_the_container(controller: Controller) -> None:
    """Once for a release; the archive that the hosts get has it."""
    controller.inventory({"other": {}, "builder": {}})
    archive = built(controller)
    output, found = provide(controller, archive)
    assert "failed=0" in output, output
    (kept,) = controller.home.glob(".cache/xdp-gossip/programs-*.xgp")
    assert found["container"] == container.checksum(kept.read_bytes()), output
    assert container.parse(kept.read_bytes()).layout
    assert found["path"] != archive and found["release"] != found["container"]
    # It is not built again, and not in check mode either.
    kept.rename(kept.with_name("away"))
    output, _found = provide(controller, archive, "--check")
    assert "failed=0" in output, output
    kept.with_name("away").rename(kept)
    before = kept.stat().st_mtime_ns
    output, again = provide(controller, archive)
    assert again == found and kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("byte", "the file was changed or is incomplete"),
        ("release", "belongs to another release"),
        ("checksum", "expected a program container with the checksum sha256:0000"),
        ("missing", "No such file"),
    ],
)
def test_a_changed_container_is_refused_before_any_host(controller: Controller, change: str, told: str) -> None:
    from tests.agent.containing import made

    path = controller.directory / "programs.xgp"
    content = bytearray(container.pack(made(**({"sources": "ab" * 32} if change == "release" else {}))))
    if change == "byte":
        content[-1] ^= 1
    if change != "missing":
        path.write_bytes(content)
    more = {"xdp_gossip_agent_dataplane_container": str(path)}
    if change == "checksum":
        more["xdp_gossip_agent_dataplane_container_checksum"] = "sha256:" + "0" * 64
    controller.inventory({"other": {}})
    output, found = provide(controller, built(controller), "-e", json.dumps(more))
    output = " ".join(output.split())
    assert "failed=1" in output and told in output, output
    assert str(path) in output and "path" not in found
