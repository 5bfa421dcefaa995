# SPDX-License-Identifier: MIT
"""The whole way: real agents, the real ansible-rulebook with its rule engine, rules that fire, playbooks that run."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import yaml

from tests.support.fleet import Cluster

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / ".cache" / "venv" / "eda" / "bin" / "ansible-rulebook"

#: Seconds until something that was waited for is a failure; the rule engine needs a few to start.
PATIENCE = 50.0


class Rulebook:
    """Context manager: a running ansible-rulebook, and what it prints."""

    def __init__(self, directory: Path, collections: Path, rulebook: str, variables: dict[str, Any]) -> None:
        directory.mkdir()
        local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        (directory / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": local}}}))
        (directory / "variables.yml").write_text(yaml.safe_dump(variables))
        self._command = [
            str(COMMAND),
            *("--rulebook", rulebook),
            *("--inventory", str(directory / "inventory.yml")),
            *("--vars", str(directory / "variables.yml")),
            "--verbose",
        ]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE", "XDP_GOSSIP"))},
            "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        self._directory = directory
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Rulebook:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for("Waiting for events, ruleset")
        self.wait_for("following the fleet from here")
        return self

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._lines.extend(iter(self._process.stdout.readline, ""))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            # All of its group: the playbooks that it started, too.
            os.killpg(self._process.pid, 9)
            self._process.wait(5)

    @property
    def output(self) -> str:
        """All that it printed so far."""
        return "".join(self._lines)

    def wait_for(self, text: str, seconds: float = PATIENCE) -> None:
        """Until it has printed ``text``."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert self._process is not None
            assert self._process.poll() is None, f"ansible-rulebook ended:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} within {seconds:g} s in:\n{self.output}"
            time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three agents that agree and are quick to notice."""
    assert COMMAND.exists(), f"expected {COMMAND}: run make venv-eda"
    (tmp_path / "agents").mkdir()
    with Cluster(tmp_path / "agents", 3, cycle=0.4, timeout=2) as agents:
        agents.form()
        yield agents


def _variables(cluster: Cluster) -> dict[str, Any]:
    return {"xdp_gossip_endpoints": [f"unix://{agent.socket}" for agent in cluster]}


@pytest.mark.timeout(180)
def test_the_example_rulebook(cluster: Cluster, collections: Path, tmp_path: Path) -> None:
    first, second, third = cluster
    with Rulebook(tmp_path / "rulebook", collections, "xdp_gossip.fleet.fleet", _variables(cluster)) as rulebook:
        version = second.publish("shop/settings", b'{"currency": "EUR"}')
        rulebook.wait_for(f"document_changed: shop/settings, version {version}")
        rulebook.wait_for("all 3 hosts hold the same documents")
        third.kill()
        rulebook.wait_for(f"{third.ip} port {third.port} is gone, 2 members say")
        # The member that the source asks dies as well.
        cluster.start([third])
        rulebook.wait_for(f"join: {third.ip} port {third.port}")
        first.kill()
        rulebook.wait_for(f"{first.ip} port {first.port} is gone, 2 members say")
    assert "Source error" not in rulebook.output


_HOSTILE_RULES = """
- name: Rules of a test
  hosts: localhost
  sources:
    - xdp_gossip.fleet.membership:
        endpoints: "{{ xdp_gossip_endpoints }}"
  rules:
    - name: Show everything
      condition: event.type == "update"
      actions:
        - run_playbook:
            name: show.yml
            extra_vars:
              said: "{{ event.node.private_data }}"
"""
_HOSTILE_PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "said {{ said }}, {{ ansible_eda.event.node.name }}, {{ ansible_eda.event }}"
"""


@pytest.mark.timeout(180)
def test_what_a_node_says_is_not_run_by_a_playbook(cluster: Cluster, collections: Path, tmp_path: Path) -> None:
    # ansible-rulebook hands events to playbooks as extra variables, and these are templates to Ansible.
    marker = tmp_path / "executed"
    evil = f"{{{{ lookup('ansible.builtin.pipe', 'touch {marker}') }}}}"
    directory = tmp_path / "rulebook"
    rules = tmp_path / "rules.yml"
    rules.write_text(_HOSTILE_RULES)
    with Rulebook(directory, collections, str(rules), _variables(cluster)) as rulebook:
        (directory / "show.yml").write_text(_HOSTILE_PLAY)
        cluster[1].call("PATCH", "/v1/node", {"name": evil, "private_data": evil})
        rulebook.wait_for("PLAY RECAP")
        rulebook.wait_for("failed=0")
    assert not marker.exists()
    assert "lookup(" not in rulebook.output
    assert "'withheld': ['node.name', 'node.private_data']" in rulebook.output
