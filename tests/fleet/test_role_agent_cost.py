# SPDX-License-Identifier: MIT
"""What the role ``agent`` does to a host in order: few tasks, one execution on the host, whatever the number of hosts.

Tasks and executions are counted, not seconds: each costs the controller a process for each host. ``python -m bench
deploy`` measures them. The hosts are directories of this machine, with a systemd that believes all it is told.
"""

from __future__ import annotations

import collections
import json
import os
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_role_agent_runs import Controller, controller, pytestmark  # noqa: F401  (the same needs)

PLAY = """
- hosts: all
  gather_facts: false
  environment:
    PATH: "{{ playbook_dir }}/programs:{{ lookup('ansible.builtin.env', 'PATH') }}"
    SYSTEMD: "{{ directory }}/systemd.json"
  tasks:
    - name: Change the host
      ansible.builtin.include_role: {name: xdp_gossip.fleet.agent, tasks_from: "{{ way }}.yml"}
      vars:
        __xdp_gossip_archive: {release: 1-aa, version: "1"}
        __xdp_gossip_packages: []
        __xdp_gossip_dataplane_packages: []
        __xdp_gossip_package_query: [echo]
        __xdp_gossip_parts: [configure, run]
        __xdp_gossip_user: root
        __xdp_gossip_group: root
        __xdp_gossip_root: "{{ directory }}/opt"
        __xdp_gossip_config_dir: "{{ directory }}/etc"
        __xdp_gossip_unit_path: "{{ directory }}/units/xdp-gossip.service"
        __xdp_gossip_dataplane_unit_path: "{{ directory }}/units/xdp-gossip-dataplane.service"
        __xdp_gossip_dataplane_path_path: "{{ directory }}/units/xdp-gossip-dataplane.path"
        __xdp_gossip_dataplane_again_path: "{{ directory }}/units/xdp-gossip-dataplane-again.service"
        __xdp_gossip_files_unit_path: "{{ directory }}/units/xdp-gossip-files.service"
        __xdp_gossip_socket: "{{ playbook_dir }}/api.sock"
        __xdp_gossip_snapshot: {directory: "{{ directory }}/rollback"}
        __xdp_gossip_preflight: {addr: 198.18.0.11, port: 8000, answering: [], installed: true, outdated: false}
        xdp_gossip_agent_addr: 198.18.0.11
        xdp_gossip_agent_api_tls: false
        xdp_gossip_agent_health_witness: false
        xdp_gossip_agent_secret_key: a-secret-that-is-long-enough
        xdp_gossip_agent_api_token: a-token-that-is-long-enough
"""
SYSTEMCTL = f"""#!{sys.executable} -IS
import json, os, sys, time
place = os.environ["SYSTEMD"]
units = json.load(open(place)) if os.path.exists(place) else {{}}
words = [word for word in sys.argv[1:] if not word.startswith("--")]
unit = units.setdefault(words[-1], {{"active": "inactive", "enabled": "disabled", "since": 0}})
if words[0] == "show":
    print("LoadState=loaded\\nActiveState=" + unit["active"] + "\\nUnitFileState=" + unit["enabled"])
    print("NeedDaemonReload=no\\nStateChangeTimestampMonotonic=" + str(unit["since"]))
elif words[0] == "enable":
    unit["enabled"] = "enabled"
elif words[0] in ("start", "restart", "reload"):
    unit.update(active="active", since=int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6), last=words[0])
json.dump(units, open(place, "w"))
"""
PROGRAM = """#!/bin/sh
test "$1 $2" != "dataplane status" || echo '{"agent_needs": []}'
"""
CALLBACK = '''
"""Writes down each result: host, action, whether it was skipped, whether it changed something."""
import json, os
from ansible.plugins.callback import CallbackBase
DOCUMENTATION = """
name: counted
type: aggregate
short_description: counted
description: counted
"""

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "aggregate", "counted"

    def _note(self, result, skipped):
        entry = [result._host.get_name(), result._task.action, skipped, bool(result._result.get("changed"))]
        with open(os.environ["COUNTED"], "a") as stream:
            stream.write(json.dumps(entry) + "\\n")

    def v2_runner_on_ok(self, result):
        self._note(result, False)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._note(result, False)

    def v2_runner_on_skipped(self, result):
        self._note(result, True)
'''
#: Actions that need nothing of a host.
OWN = tuple(f"ansible.builtin.{name}" for name in ("include_tasks", "include_role", "debug", "assert"))
STATUS = {"state": "running", "version": "1", "mode": "UDP", "node": {"incarnation": 7}}


@pytest.fixture
def agent(controller: Controller) -> Iterator[None]:  # noqa: F811
    """One agent, which answers for all hosts."""

    class Handler(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "a Unix socket"

        def log_message(self, *_words: Any) -> None:
            pass

        def do_GET(self) -> None:
            others = {"nodes": [{"name": "host0", "local": True}, {"name": "other", "local": False}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(STATUS if self.path == "/v1/status" else others).encode())

    server = socketserver.ThreadingUnixStreamServer(str(controller.directory / "api.sock"), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def deploy(controller: Controller, way: str) -> list[list[Any]]:  # noqa: F811
    """One run; its results."""
    counted = controller.directory / "counted"
    counted.unlink(missing_ok=True)
    done = controller.play("play.yml", "-e", f"way={way}")
    assert done.returncode == 0, done.stdout
    return [json.loads(line) for line in counted.read_text().splitlines()]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
@pytest.mark.parametrize("way", ["change", "guarded"])
def test_a_host_in_order_is_one_execution_whatever_the_number_of_hosts(
    controller: Controller,  # noqa: F811
    agent: None,
    way: str,
) -> None:
    place = controller.directory
    (place / "play.yml").write_text(PLAY)
    program(place / "programs/systemctl", SYSTEMCTL)
    program(place / "callbacks/counted.py", CALLBACK)
    controller.environment.update(
        ANSIBLE_CALLBACK_PLUGINS=str(place / "callbacks"),
        ANSIBLE_CALLBACKS_ENABLED="counted",
        COUNTED=str(place / "counted"),
    )
    found: dict[int, dict[str, int]] = {}
    for size in (3, 10):
        names = [f"host{number}" for number in range(size)]
        for name in names:
            program(place / name / "opt/releases/1-aa/bin/xdp-gossip", PROGRAM)
            (place / name / "opt/releases/1-aa/VERSION").write_text("1\n")
            (place / name / "units").mkdir(exist_ok=True)
            if not (place / name / "opt/current").exists():
                (place / name / "opt/current").symlink_to(place / name / "opt/releases/1-aa")
        controller.inventory({name: {"directory": str(place / name)} for name in names})
        made = deploy(controller, "change")
        assert {entry[0] for entry in made if entry[3]} >= set(names) - set(found.get(3, {})), "the first run makes it"
        results = deploy(controller, way)
        assert not [entry for entry in results if entry[3]], "the second run changes nothing"
        tasks = collections.Counter(entry[0] for entry in results)
        executed = collections.Counter(entry[0] for entry in results if not entry[2] and entry[1] not in OWN)
        assert set(tasks) == set(names) and len(set(tasks.values())) == 1, tasks
        assert executed == dict.fromkeys(names, 1), executed
        found[size] = tasks
    assert found[3]["host0"] == found[10]["host0"] <= 8, found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_a_changed_zone_restarts_the_agent(controller: Controller, agent: None) -> None:  # noqa: F811
    for zone, data, verb in [("a", "", ""), ("b", "", "restart"), ("b", "new", "reload"), ("", "new", "restart")]:
        given = {"xdp_gossip_agent_zone": zone, "xdp_gossip_agent_private_data": data}
        written, told = changed(controller, given)
        assert ("zone" in written) == bool(zone) and written.get("zone", "") == zone
        assert told == verb or not verb, (zone, data)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_changed_signers_reload_the_agent(controller: Controller, agent: None) -> None:  # noqa: F811
    one = {"name": "one", "public_key": "ssh-ed25519 AAAA", "prefixes": ["app/"]}
    two = dict(one, name="two", valid_before="2027-01-31T12:00:00Z")
    changed(controller, {})
    for signers in ([one], [one, two], [two], []):
        written, told = changed(controller, {"xdp_gossip_agent_signers": signers})
        assert [signer["name"] for signer in written.get("signers", [])] == [signer["name"] for signer in signers]
        assert told == "reload", signers


def changed(controller: Controller, given: dict[str, Any]) -> tuple[dict[str, Any], str]:  # noqa: F811
    """Deploy to a host with these variables; returns its agent.yml and what systemd was told last of the agent."""
    place = controller.directory
    host = place / "host0"
    (place / "play.yml").write_text(PLAY)
    program(place / "programs/systemctl", SYSTEMCTL)
    program(host / "opt/releases/1-aa/bin/xdp-gossip", PROGRAM)
    (host / "opt/releases/1-aa/VERSION").write_text("1\n")
    (host / "units").mkdir(exist_ok=True)
    if not (host / "opt/current").exists():
        (host / "opt/current").symlink_to(host / "opt/releases/1-aa")
    controller.inventory({"host0": {"directory": str(host), **given}})
    done = controller.play("play.yml", "-e", "way=change")
    assert done.returncode == 0 and "changed=1" in done.stdout, done.stdout
    written = yaml.safe_load((host / "etc/agent.yml").read_text())
    return written, json.loads((host / "systemd.json").read_text())["xdp-gossip.service"]["last"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_a_check_of_a_host_without_the_release(controller: Controller, agent: None) -> None:  # noqa: F811
    place = controller.directory
    (place / "play.yml").write_text(PLAY.replace("[configure, run]", "[install, configure, run]"))
    program(place / "programs/systemctl", SYSTEMCTL)
    controller.inventory({"host0": {"directory": str(place / "host0")}})
    (place / "host0").mkdir()
    done = controller.play("play.yml", "-e", "way=change", "--check")
    assert done.returncode == 0 and "changed=2" in done.stdout, done.stdout
    assert not list((place / "host0").iterdir())
