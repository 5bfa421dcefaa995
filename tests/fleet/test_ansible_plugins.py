# SPDX-License-Identifier: MIT
"""Inventory, modules and lookup, run by Ansible itself against three real agents.

The agents run in a network namespace of their own, whose loopback interface carries addresses of 198.18.0.0/15 (the
inventory rightly refuses 127.0.0.1); Ansible reaches their Unix sockets through the file system, and their TLS ports
from inside. The namespace goes away with its processes. Needs `ansible-playbook` on the PATH and the right to make a
network namespace.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
UNSHARE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]

#: Runs inside the namespace: addresses, agents, and an end to all of them when its standard input closes.
SUPERVISOR = """
import subprocess, sys
launcher, *configs = sys.argv[1:]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for last in range(11, 11 + len(configs)):
    subprocess.run(["ip", "address", "add", "198.18.77.%d/32" % last, "dev", "lo"], check=True)
agents = [subprocess.Popen([launcher, "agent", "--config", path], stderr=open(path + ".log", "w")) for path in configs]
print(*[agent.pid for agent in agents], flush=True)
sys.stdin.read()
for agent in agents:
    agent.kill()
    agent.wait()
"""


def can_unshare() -> bool:
    """Whether a network namespace can be had here."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=30, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook on the PATH"),
    pytest.mark.skipif(not can_unshare(), reason="needs a network namespace"),
]


class Fleet:
    """Three agents, and Ansible to talk to them."""

    def __init__(self, directory: Path, timeout: float = 2, **more: Any) -> None:
        """``timeout``: seconds of silence, after which members are suspected. ``more``: further settings."""
        self.directory = directory
        self.sockets = [directory / f"n{number}.sock" for number in (1, 2, 3)]
        collections = directory / "collections" / "ansible_collections" / "xdp_gossip"
        collections.mkdir(parents=True)
        (collections / "fleet").symlink_to(ROOT)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "XDP_GOSSIP_"))},
            "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_HOME": str(directory / "ansible"),
        }
        configs = []
        for name in ("secret", "token"):
            (directory / name).write_text(f"a-{name}-for-the-test-of-the-plugins\n")
            (directory / name).chmod(0o600)
        make_certificate(directory, [f"198.18.77.{10 + number}" for number in (1, 2, 3)])
        tls = {"cert": str(directory / "tls.pem"), "key": str(directory / "tls.key")}
        for number, socket in enumerate(self.sockets, 1):
            config = directory / f"n{number}.yml"
            address = f"198.18.77.{10 + number}"
            settings = {
                "cluster": "plugins",
                "node": {"addr": address, "port": 8000, "name": f"host{number}"},
                "listen_addr": address,
                "zone": "" if number == 3 else "a",
                "protocol": "UDP",
                "cycle": 0.3,
                "timeout": timeout,
                "secret_key_file": str(directory / "secret"),
                "seeds": [] if number == 1 else ["198.18.77.11:8000"],
                "state_dir": str(directory / f"state{number}"),
                "api": {
                    "socket": str(socket),
                    "listen": f"{address}:8001",
                    "token_file": str(directory / "token"),
                    "tls": tls,
                },
                **more,
            }
            config.write_text(json.dumps(settings))  # JSON is YAML
            configs.append(str(config))
        self._process = subprocess.Popen(
            [*UNSHARE, PYTHON, "-c", SUPERVISOR, str(ROOT / "agent" / "bin" / "xdp-gossip"), *configs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.pids = [int(pid) for pid in self._process.stdout.readline().split()]
        assert len(self.pids) == 3, "the agents did not start"
        deadline = time.monotonic() + 20
        while not all(socket.exists() for socket in self.sockets) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        """End the agents; with them goes the namespace."""
        self._process.communicate(timeout=30)

    def run(self, *command: str, fails: bool = False, inside: bool = False) -> str:
        """Run an Ansible command, ``inside`` the agents' network namespace; returns its whole output."""
        enter = ["nsenter", f"--target={self._process.pid}", "--net"]
        if os.geteuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        done = subprocess.run(
            [*(enter if inside else []), *command],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.directory,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def inventory(self, **options: Any) -> Path:
        """An inventory file that asks the first member unless told otherwise."""
        path = self.directory / "fleet.nodelist.yml"
        config = {"plugin": "xdp_gossip.fleet.nodelist", "endpoints": [f"unix://{self.sockets[0]}"], **options}
        path.write_text(json.dumps(config))
        return path

    def hosts(self, path: Path) -> dict[str, Any]:
        """Hosts and their variables as `ansible-inventory --list` shows them."""
        shown = self.run("ansible-inventory", "-i", str(path), "--list")

        def unwrap(value: dict[str, Any]) -> Any:
            # From 2.19 on, ansible-inventory marks what is not to be taken for a template.
            return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else value

        decoder = json.JSONDecoder(object_hook=unwrap)
        found: dict[str, Any] = decoder.raw_decode(shown[shown.index("{") :])[0]["_meta"]["hostvars"]
        return found

    def wait_for_hosts(self, path: Path, wanted: set[str], seconds: float) -> float:
        """Read the inventory until it shows exactly ``wanted``; returns the seconds that took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            found = set(self.hosts(path))
            if found == wanted:
                return time.monotonic() - started
            time.sleep(0.3)
        raise AssertionError(f"expected {wanted} within {seconds} s, got {found}")

    def play(
        self, tasks: list[dict[str, Any]], *options: str, fails: bool = False, members: str = "0", tls: bool = False
    ) -> str:
        """Run tasks on this machine; ``members`` are the indices of the members to talk to."""
        endpoints = [f"unix://{self.sockets[int(index)]}" for index in members]
        connection: dict[str, Any] = {"endpoints": endpoints}
        if tls:
            endpoints = [f"https://198.18.77.{11 + int(index)}:8001" for index in members]
            connection = {"endpoints": endpoints, "ca_path": str(self.directory / "tls.pem")}
            connection["token_file"] = str(self.directory / "token")
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": tasks,
            "vars": {
                "ansible_python_interpreter": PYTHON,
                **{f"xdp_gossip_{name}": value for name, value in connection.items()},
            },
            "module_defaults": {"group/xdp_gossip.fleet.xdp_gossip": connection},
        }
        path = self.directory / "play.yml"
        path.write_text(json.dumps([play]))
        command = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(path), *options]
        return self.run(*command, fails=fails, inside=tls)


def make_certificate(directory: Path, addresses: list[str]) -> None:
    """``tls.pem`` and ``tls.key``: a certificate for these addresses that vouches for itself."""
    names = ",".join(f"IP:{address}" for address in addresses)
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            "tls.key",
            "-out",
            "tls.pem",
            "-subj",
            "/CN=fleet",
            "-addext",
            f"subjectAltName={names}",
            "-addext",
            "keyUsage=keyCertSign,digitalSignature",
        ],
        cwd=directory,
        check=True,
        capture_output=True,
        timeout=60,
    )


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    # A Unix socket's path may have 107 bytes, so pytest's own directory could be too deep.
    directory = tmp_path_factory.mktemp("f")
    fleet = Fleet(directory)
    try:
        fleet.wait_for_hosts(fleet.inventory(), {"host1", "host2", "host3"}, 30)
        yield fleet
    finally:
        fleet.close()
        for log in sorted(directory.glob("*.log")):
            sys.stdout.write(f"--- {log.name}\n{log.read_text()[-4000:]}")


PUBLISH = "xdp_gossip.fleet.xdp_gossip_publish"
VERIFY = "xdp_gossip.fleet.xdp_gossip_verify"
INFO = "xdp_gossip.fleet.xdp_gossip_info"
NODE = "xdp_gossip.fleet.xdp_gossip_node"


def that(*conditions: str) -> dict[str, Any]:
    return {"ansible.builtin.assert": {"that": list(conditions)}}


def test_any_member_gives_the_whole_inventory(fleet: Fleet) -> None:
    for socket in fleet.sockets:
        hosts = fleet.hosts(fleet.inventory(endpoints=[f"unix://{socket}"]))
        assert sorted(hosts) == ["host1", "host2", "host3"]
        for number in (1, 2, 3):
            variables = hosts[f"host{number}"]
            assert set(variables) == {"ansible_host", "xdp_gossip"}
            assert variables["ansible_host"] == f"198.18.77.{10 + number}"
            assert variables["xdp_gossip"]["state"] == "alive"
    graph = fleet.run("ansible-inventory", "-i", str(fleet.inventory()), "--graph")
    assert "host2" in graph and "[WARNING]" not in graph


def test_publish_predicts_changes_once_and_converges(fleet: Fleet) -> None:
    options = {"key": "app/limits", "value": {"rate": 5}, "wait": "all", "wait_timeout": 20}
    publish = {PUBLISH: options, "register": "r"}
    predicted = fleet.play([publish, that("r.changed", "r.version is none")], "--check", "--diff")
    applied = fleet.play([publish, that("r.changed", "r.confirmed == 3", "r.members == 3")], "--diff", members="1")

    def diff(output: str) -> list[str]:
        return [line for line in output.splitlines() if re.match(r"[-+@ ]", line)]

    assert diff(predicted) == diff(applied) and '+  "rate": 5' in diff(applied)
    verify = {VERIFY: {"key": "app/limits", "version": "{{ r.version }}"}}
    fleet.play([publish, that("not r.changed", "r.confirmed == 3"), verify], members="2")


def test_verify_and_lookup_and_info_from_another_member(fleet: Fleet) -> None:
    fleet.play([{PUBLISH: {"key": "motd", "content": "hellö", "author": "ops", "wait": "all"}}])
    fleet.play(
        [
            {VERIFY: {"key": "motd", "content": "hellö"}, "register": "v"},
            that("v.converged", "v.holdings | length == 3", "not v.laggards"),
            {VERIFY: {}},
            that("lookup('xdp_gossip.fleet.metadata', 'motd') == 'hellö'"),
            that("lookup('xdp_gossip.fleet.metadata', 'none', default='d') == 'd'"),
            {INFO: {"prefix": "motd"}, "register": "i"},
            that("i.nodes | length == 3", "i.documents[0].comment == '[ops]'", "i.status.state == 'running'"),
        ],
        members="2",
    )
    output = fleet.play([{VERIFY: {"key": "motd", "content": "other", "wait_timeout": 1}}], members="1", fails=True)
    assert "0 of 3 members" in output and "host3" in output


def test_absent_and_compare_and_set(fleet: Fleet) -> None:
    fleet.play(
        [
            {PUBLISH: {"key": "cas", "content": "1", "if_version": "absent"}, "register": "one"},
            {PUBLISH: {"key": "cas", "content": "2", "if_version": "{{ one.version }}"}, "register": "two"},
            that("one.changed", "two.changed", "two.previous_version == one.version"),
            {
                PUBLISH: {"key": "cas", "content": "3", "if_version": "{{ one.version }}"},
                "register": "lost",
                "ignore_errors": True,
            },
            that("lost.failed", "lost.expected == one.version", "lost.actual == two.version"),
            {PUBLISH: {"key": "cas", "state": "absent", "wait": "all"}, "register": "gone"},
            that("gone.changed", "gone.confirmed == 3"),
            {PUBLISH: {"key": "cas", "state": "absent"}, "register": "still"},
            that("not still.changed"),
        ]
    )


def test_private_data_becomes_data_in_the_inventory_and_nothing_more(fleet: Fleet) -> None:
    marker = fleet.directory / "pwned"
    # A single node may say of itself what it likes; only its own API can make it say so.
    evil = "{{ lookup('ansible.builtin.pipe', 'touch " + str(marker) + "') }}"
    (fleet.directory / "evil").write_text(evil)
    task = {NODE: {"private_data": "{{ lookup('ansible.builtin.file', 'evil') }}"}, "register": "r"}
    fleet.play([task, that("r.changed")], members="1")
    fleet.play([task, that("not r.changed")], members="1")
    path = fleet.inventory(compose={"composed": "'x' ~ xdp_gossip.private_data"})
    deadline = time.monotonic() + 20
    while fleet.hosts(path)["host2"]["xdp_gossip"].get("private_data", "") == "":
        assert time.monotonic() < deadline, "the private data did not spread"
        time.sleep(0.3)
    (fleet.directory / "show.yml").write_text(
        json.dumps(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "connection": "local",
                    "tasks": [
                        {
                            "ansible.builtin.debug": {
                                "msg": "{{ xdp_gossip.private_data }} {{ composed }} {{ xdp_gossip }}"
                            }
                        }
                    ],
                }
            ]
        )
    )
    output = fleet.run("ansible-playbook", "-i", str(path), str(fleet.directory / "show.yml"))
    assert "touch" in output and not marker.exists()
    fleet.play([{NODE: {"private_data": ""}}], members="1")


def test_a_member_that_takes_a_name_with_power_is_left_out(fleet: Fleet) -> None:
    path = fleet.inventory()
    try:
        fleet.play([{NODE: {"name": "all"}}], members="1")
        fleet.wait_for_hosts(path, {"host1", "host3"}, 20)
        assert "left out" in fleet.run("ansible-inventory", "-i", str(path), "--graph")
        fleet.run("ansible-inventory", "-i", str(fleet.inventory(strict=True)), "--graph", fails=True)
    finally:
        fleet.play([{NODE: {"name": "host2"}}], members="1")
    fleet.wait_for_hosts(fleet.inventory(), {"host1", "host2", "host3"}, 20)


def test_pause_leave_and_return(fleet: Fleet) -> None:
    path = fleet.inventory()
    for state in ("left", "stopped"):
        again = {NODE: {"state": state}, "register": "r"}
        fleet.play([again, that("r.changed"), again, that("not r.changed")], members="2")
        fleet.wait_for_hosts(path, {"host1", "host2"}, 20)
        start = {NODE: {"state": "started"}, "register": "r"}
        fleet.play([start, that("r.changed", "r.state == 'running'")], members="2")
        fleet.wait_for_hosts(path, {"host1", "host2", "host3"}, 20)


def test_nobody_answers(fleet: Fleet) -> None:
    path = fleet.inventory(endpoints=["unix:///does/not/exist", "http://127.0.0.1:9"], retries=0)
    output = fleet.run("ansible-inventory", "-i", str(path), "--list", fails=True)
    assert "unix:///does/not/exist: No such file or directory" in " ".join(output.split())
    assert "http://127.0.0.1:9: Connection refused" in " ".join(output.split())


def test_a_killed_member_drops_out_and_publishing_goes_on(fleet: Fleet) -> None:
    """Last, because it takes one away."""
    path = fleet.inventory(endpoints=[f"unix://{socket}" for socket in reversed(fleet.sockets)], retries=0, timeout=5)
    os.kill(fleet.pids[2], signal.SIGKILL)
    seconds = fleet.wait_for_hosts(path, {"host1", "host2"}, 30)
    print(f"dropped out after {seconds:.1f} s")
    wait = {"wait": "all", "wait_timeout": 20}
    publish = {PUBLISH: {"key": "after", "content": "x", **wait}, "register": "r"}
    fleet.play([publish, that("r.changed", "r.members == 2", "r.endpoint is search('n2.sock')")], members="21")
