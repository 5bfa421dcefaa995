# SPDX-License-Identifier: MIT
"""The role installs rules, token and dashboards, changes nothing the second time, and removes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "monitoring" / "files"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook on the PATH"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files belong to root"),
]


HOSTS = "monitoring: {hosts: {here: {ansible_connection: local, ansible_python_interpreter: /usr/bin/python3}}}\n"


class Host:
    """This machine, with the files in a directory of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rules = directory / "prometheus" / "rules" / "xdp-gossip.yml"
        self.token = directory / "prometheus" / "token"
        self.dashboards = directory / "grafana" / "dashboards"
        self.provider = directory / "grafana" / "provisioning" / "xdp-gossip.yml"
        self.variables: dict[str, Any] = {
            "xdp_gossip_monitoring_rules_file": str(self.rules),
            "xdp_gossip_monitoring_token": "a-token",
            "xdp_gossip_monitoring_token_file": str(self.token),
            "xdp_gossip_monitoring_prometheus_group": "daemon",
            "xdp_gossip_monitoring_prometheus_service": "",
            "xdp_gossip_monitoring_grafana": True,
            "xdp_gossip_monitoring_dashboards_dir": str(self.dashboards),
            "xdp_gossip_monitoring_provider_file": str(self.provider),
            "xdp_gossip_monitoring_grafana_group": "daemon",
            "xdp_gossip_monitoring_grafana_service": "",
        }

    def play(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Run the playbook; the number of changes, or -1 after a failure, and the output."""
        (self.directory / "hosts.yml").write_text(HOSTS)
        words = ["ansible-playbook", "xdp_gossip.fleet.monitoring", "-i", str(self.directory / "hosts.yml")]
        done = subprocess.run(
            [*words, "-e", json.dumps({**self.variables, **variables}), *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=240,
            env={
                **os.environ,
                "HOME": str(self.directory),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
                "ANSIBLE_NOCOWS": "1",
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
            },
        )
        found = re.search(r"changed=(\d+)", done.stdout)
        return int(found[1]) if found and not done.returncode else -1, done.stdout + done.stderr


def test_the_files_come_and_go(tmp_path: Path) -> None:
    host = Host(tmp_path)
    changes, output = host.play("--check")
    assert changes > 0 and not host.rules.exists(), output
    changes, output = host.play()
    assert changes > 0, output
    assert host.rules.read_bytes() == (FILES / "alerts.yml").read_bytes()
    assert host.token.read_text() == "a-token" and stat.S_IMODE(host.token.stat().st_mode) == 0o640
    assert host.token.group() == "daemon" and "a-token" not in output.replace(str(host.token), "")
    placed = {path.name: path.read_bytes() for path in host.dashboards.iterdir()}
    shipped = {f"xdp-gossip-{path.name}": path.read_bytes() for path in (FILES / "dashboards").iterdir()}
    assert placed == shipped
    (provider,) = yaml.safe_load(host.provider.read_text())["providers"]
    assert provider["options"]["path"] == str(host.dashboards)
    changes, output = host.play()
    assert changes == 0, output
    changes, output = host.play(xdp_gossip_monitoring_state="absent")
    assert changes > 0, output
    assert not any(path.exists() for path in (host.rules, host.token, host.provider))
    assert not list(host.dashboards.iterdir())
    changes, output = host.play(xdp_gossip_monitoring_state="absent")
    assert changes == 0, output


def test_what_others_have_there_stays_as_it_is(tmp_path: Path) -> None:
    host = Host(tmp_path)
    others = {
        host.rules.parent / "others.yml": "groups: []\n",
        host.dashboards / "fleet.json": "{}",
        host.provider.parent / "others.yml": "providers: []\n",
    }
    for path, text in others.items():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o700)
        path.write_text(text)
    for state in ("present", "absent"):
        changes, output = host.play(xdp_gossip_monitoring_state=state)
        assert changes > 0, output
        assert {path: path.read_text() for path in others} == others
        assert {stat.S_IMODE(path.parent.stat().st_mode) for path in others} == {0o700}
    assert {path for parent in {path.parent for path in others} for path in parent.iterdir()} == set(others)


def test_a_host_gets_what_it_is_for(tmp_path: Path) -> None:
    host = Host(tmp_path)
    changes, output = host.play(xdp_gossip_monitoring_prometheus=False)
    assert changes > 0 and not host.rules.exists() and host.dashboards.is_dir(), output
    changes, output = host.play(xdp_gossip_monitoring_grafana=False, xdp_gossip_monitoring_token="")
    assert changes > 0 and host.rules.exists() and not host.token.exists(), output


def test_a_change_is_told_to_the_services(tmp_path: Path) -> None:
    host = Host(tmp_path)
    names = {
        "xdp_gossip_monitoring_prometheus_service": "no-such-prometheus",
        "xdp_gossip_monitoring_grafana_service": "no-such-grafana",
    }
    changes, output = host.play(**names)
    assert changes == -1 and "Reload Prometheus" in output and "no-such-prometheus" in output, output
    changes, output = host.play(
        **{**names, "xdp_gossip_monitoring_prometheus": False}, xdp_gossip_monitoring_state="absent"
    )
    assert changes == -1 and "Restart Grafana" in output and "no-such-grafana" in output, output


def test_rules_that_promtool_refuses_replace_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "promtool").write_text("#!/bin/sh\necho this promtool refuses everything\nexit 1\n")
    (tools / "promtool").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}:{before}"
    try:
        changes, output = host.play()
    finally:
        os.environ["PATH"] = before
    assert changes == -1 and "this promtool refuses everything" in output and not host.rules.exists(), output
