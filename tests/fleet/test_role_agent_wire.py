# SPDX-License-Identifier: MIT
"""tasks/wire.yml on this machine: which releases the role puts on a host, by the wire version that each tells."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: On the host: no release, a release that does not tell its version, one that tells it.
NOTHING, SILENT = None, ""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook on the PATH"),
]


def archive(path: Path, wire: str) -> None:
    with tarfile.open(path, "w:gz") as made:
        if wire:
            member = tarfile.TarInfo("WIRE")
            member.size = len(wire)
            made.addfile(member, io.BytesIO(wire.encode()))


TASKS = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - xdp_gossip.fleet.xdp_gossip_release:
        archive: "{{ place }}/xdp-gossip-1.0.tar.gz"
      register: __xdp_gossip_archive
    - xdp_gossip.fleet.xdp_gossip_preflight:
        addr: 127.0.0.1
        port: 1
        command: "{{ place }}/command"
        root: "{{ place }}/root"
        config_dir: "{{ place }}/etc"
        unit: no-such.service
      register: __xdp_gossip_preflight
    - ansible.builtin.import_tasks: "{{ role }}/tasks/wire.yml"
"""


def play(place: Path, here: str | None, release: str, accept: bool) -> str:
    """What the play says where it refuses the release, "" where it does not."""
    root = place / "root"
    if here is not None:
        (root / "releases" / "1").mkdir(parents=True)
        (root / "current").symlink_to("releases/1")
    else:
        root.mkdir()
        (root / "current").symlink_to("releases/0")  # of an installation that was taken away by hand
    if here:
        (root / "current" / "WIRE").write_text(f"{here}\n")
    archive(place / "xdp-gossip-1.0.tar.gz", release)
    collections = place / "collections" / "ansible_collections" / "xdp_gossip"
    collections.mkdir(parents=True)
    (collections / "fleet").symlink_to(ROOT)
    variables = {
        "place": str(place),
        "role": str(ROOT / "roles" / "agent"),
        "xdp_gossip_agent_accept_wire_change": accept,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }
    (place / "play.yml").write_text(TASKS)
    environment = {
        **os.environ,
        "ANSIBLE_LOCAL_TEMP": str(place / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(place / "collections"),
    }
    words = ["ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), str(place / "play.yml")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return " ".join(f"{done.stdout} {done.stderr}".split()) if done.returncode else ""


@pytest.mark.parametrize(
    ("here", "release", "accept", "refused"),
    [
        (NOTHING, "2", False, ""),
        ("2", "2", False, ""),
        ("2", "3", False, " speaks wire version 3, the agent here 2: members of the two do not"),
        ("2", "3", True, ""),
        (SILENT, "2", False, "speaks wire version 2, the agent here unknown: "),
        (SILENT, "2", True, ""),
        (SILENT, "", False, ""),
        ("2", "", False, "speaks wire version unknown, the agent here 2: "),
    ],
)
def test_a_release_is_compared_with_the_one_of_the_host(
    tmp_path: Path, here: str | None, release: str, accept: bool, refused: str
) -> None:
    told = play(tmp_path, here, release, accept)
    assert refused in told and bool(told) == bool(refused)
