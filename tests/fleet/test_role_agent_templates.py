# SPDX-License-Identifier: MIT
"""What the role ``agent`` makes of its templates and services: agent.yml, the helper's unit, template files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_role_agent_runs import Controller, controller, pytestmark  # noqa: F401  (the same needs)

PLAY = """
- hosts: all
  gather_facts: false
  connection: local
  vars:
    xdp_gossip_agent_addr: 198.18.0.11
    xdp_gossip_agent_api_tls: false
    __xdp_gossip_secrets: {certificate: '', key: ''}
  tasks:
    - name: Put the facts of a system in
      ansible.builtin.set_fact: {ansible_kernel: 6.1.0, ansible_os_family: Debian, ansible_distribution: Debian,
        ansible_distribution_version: "12", ansible_distribution_major_version: "12",
        ansible_default_ipv4: {address: 198.18.0.11}, cacheable: true}

    - name: Read the role's variables
      ansible.builtin.include_role: {name: xdp_gossip.fleet.agent, tasks_from: platform.yml, public: true}

    - name: Install the configuration alone
      ansible.builtin.include_role: {name: xdp_gossip.fleet.agent, tasks_from: host.yml}
      vars:
        __xdp_gossip_proceed: true
        __xdp_gossip_parts: [configure]
        __xdp_gossip_archive: {release: 1-aa, version: "1"}
        __xdp_gossip_root: "{{ directory }}/opt"
        __xdp_gossip_config_dir: "{{ directory }}/etc"
        __xdp_gossip_unit_path: "{{ directory }}/none.service"
        __xdp_gossip_socket: "{{ directory }}/none.sock"
        __xdp_gossip_user: root
        __xdp_gossip_group: root
        xdp_gossip_agent_secret_key: a-secret-that-is-long-enough
        xdp_gossip_agent_api_token: a-token-that-is-long-enough

    - name: Write the rest
      ansible.builtin.template:
        src: "{{ role }}/templates/{{ item }}.j2"
        dest: "{{ directory }}/{{ item }}"
        mode: "0600"
      loop: [agent.yml, xdp-gossip.service, xdp-gossip-files.service]
"""

TEXT = "{% for n in nodes %}server {{ n.addr }};{% endfor %}\n[{{ document('x') }}]\n"
#: As a user writes it: `!unsafe` keeps Ansible's hands off the template.
VARIABLES = """
xdp_gossip_agent_api_ui: true
xdp_gossip_agent_history: 3
xdp_gossip_agent_tombstone_grace: 3600
xdp_gossip_agent_services:
  - name: web
    validate: [/usr/sbin/nginx, -t]
    reload: [/usr/bin/systemctl, reload, nginx]
    timeout: 20
    show_output: true
xdp_gossip_agent_templates:
  - name: site
    path: /etc/nginx/nginx.conf
    content: !unsafe "{% for n in nodes %}server {{ n.addr }};{% endfor %}\\n[{{ document('x') }}]\\n"
    mode: "0644"
    validate: [/usr/sbin/nginx, -t, -c, "{file}"]
    reload: [/usr/bin/systemctl, reload, nginx]
    timeout: 10
    backup: true
  - {name: copied, path: /usr/local/etc/copied.conf, src: copied.j2, service: web, drift: report, show_output: "yes"}
  - {name: there, path: /home/somebody/there, source: /srv/there.j2, wait: 0}
"""


def write(controller: Controller, variables: str) -> Path:  # noqa: F811
    """Let the role write everything; returns the directory."""
    controller.inventory({"host1": {}})
    (controller.directory / "play.yml").write_text(PLAY)
    (controller.directory / "variables.yml").write_text(variables)
    (controller.directory / "copied.j2").write_text(TEXT)
    program = controller.directory / "opt/current/bin/xdp-gossip"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    role = Path(__file__).resolve().parents[2] / "roles" / "agent"
    places = [f"directory={controller.directory}", f"role={role}"]
    done = controller.play("play.yml", "-e", places[0], "-e", places[1], "-e", "@variables.yml")
    assert "failed=0" in done.stdout and done.returncode == 0, done.stdout
    return controller.directory


def config(directory: Path) -> dict[str, Any]:
    return yaml.safe_load((directory / "agent.yml").read_text())  # type: ignore[no-any-return]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_templates_reach_configuration_files_and_unit(controller: Controller) -> None:  # noqa: F811
    directory = write(controller, VARIABLES)
    written = config(directory)
    assert written["api"]["ui"] is True and written["api"]["socket"] == "/run/xdp-gossip/api.sock"
    assert (written["history"], written["tombstone_grace"]) == (3, 3600)
    assert written["templates"] == [
        {
            "name": "site",
            "source": "/etc/xdp-gossip/templates/site.j2",
            "path": "/etc/nginx/nginx.conf",
            "mode": "0644",
            "validate": ["/usr/sbin/nginx", "-t", "-c", "{file}"],
            "reload": ["/usr/bin/systemctl", "reload", "nginx"],
            "timeout": 10.0,
            "backup": True,
        },
        {
            "name": "copied",
            "source": "/etc/xdp-gossip/templates/copied.j2",
            "path": "/usr/local/etc/copied.conf",
            "service": "web",
            "drift": "report",
            "show_output": True,
        },
        {"name": "there", "source": "/srv/there.j2", "path": "/home/somebody/there", "wait": 0.0},
    ]
    assert written["services"] == [
        {
            "name": "web",
            "validate": ["/usr/sbin/nginx", "-t"],
            "reload": ["/usr/bin/systemctl", "reload", "nginx"],
            "timeout": 20,
            "show_output": True,
        }
    ]
    for name in ("site", "copied"):
        file = directory / "etc/templates" / f"{name}.j2"
        assert file.read_text() == TEXT and file.stat().st_mode & 0o777 == 0o640
    assert not (directory / "etc/templates/there.j2").exists()
    lines = (directory / "xdp-gossip-files.service").read_text().splitlines()
    assert [line for line in lines if line.startswith("ReadWritePaths=")] == [
        "ReadWritePaths=-/home/somebody",
        "ReadWritePaths=-/usr/local/etc",
    ]
    start = "ExecStart=/opt/xdp-gossip/current/bin/xdp-gossip files-helper --config /etc/xdp-gossip/agent.yml"
    assert start in lines
    agent = (directory / "xdp-gossip.service").read_text().splitlines()
    (wants,) = [line for line in agent if line.startswith("Wants=")]
    assert wants.endswith(" xdp-gossip-files.service")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_nothing_of_it_without_templates(controller: Controller) -> None:  # noqa: F811
    """A release from before these settings accepts the configuration."""
    directory = write(controller, "xdp_gossip_agent_templates: []\n")
    written = config(directory)
    assert not {"templates", "history", "tombstone_grace"} & set(written) and "ui" not in written["api"]
    agent = (directory / "xdp-gossip.service").read_text().splitlines()
    assert "Wants=network-online.target xdp-gossip-dataplane.service" in agent
