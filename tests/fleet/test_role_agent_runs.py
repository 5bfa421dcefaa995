# SPDX-License-Identifier: MIT
"""The role ``agent``, run by Ansible itself as far as it goes without a host of each kind.

The choice of packages, tags, and what is refused before anything is changed. Facts of other systems are put in;
Molecule has the real hosts, of Debian.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import systems

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook on the PATH"),
]

DEBIAN = [
    "python3",
    "python3-aiohttp",
    "python3-cryptography",
    "python3-msgpack",
    "python3-nacl",
    "python3-prometheus-client",
    "python3-yaml",
]
RED_HAT = [
    "python3",
    "python3-aiohttp",
    "python3-cryptography",
    "python3-msgpack",
    "python3-prometheus_client",
    "python3-pynacl",
    "python3-pyyaml",
]
DEBIAN_PLANE = ["libbpf1", "linux-libc-dev", "python3-bpfcc"]
JAMMY_PLANE = ["libbpf0", "linux-libc-dev", "python3-bpfcc"]
RED_HAT_PLANE = ["kernel-headers", "libbpf", "python3-bcc"]

#: host -> what Ansible's facts call it (family, distribution, version), and the packages that it is to get.
SYSTEMS: dict[str, tuple[str, str, str, list[str], list[str]]] = {
    "debian12": ("Debian", "Debian", "12.11", DEBIAN, DEBIAN_PLANE),
    "debian13": ("Debian", "Debian", "13.1", DEBIAN, DEBIAN_PLANE),
    "ubuntu22": ("Debian", "Ubuntu", "22.04", DEBIAN, JAMMY_PLANE),
    "ubuntu24": ("Debian", "Ubuntu", "24.04", DEBIAN, DEBIAN_PLANE),
    "rhel9": ("RedHat", "RedHat", "9.6", RED_HAT, RED_HAT_PLANE),
    "rhel10": ("RedHat", "RedHat", "10.0", RED_HAT, RED_HAT_PLANE),
    "rocky9": ("RedHat", "Rocky", "9.6", RED_HAT, RED_HAT_PLANE),
    "rocky10": ("RedHat", "Rocky", "10.0", RED_HAT, RED_HAT_PLANE),
    "alma9": ("RedHat", "AlmaLinux", "9.6", RED_HAT, RED_HAT_PLANE),
    "alma10": ("RedHat", "AlmaLinux", "10.0", RED_HAT, RED_HAT_PLANE),
    "stream9": ("RedHat", "CentOS", "9", RED_HAT, RED_HAT_PLANE),
    "oracle9": ("RedHat", "OracleLinux", "9.6", RED_HAT, RED_HAT_PLANE),
}
REFUSED = {
    "debian11": ("Debian", "Debian", "11.11"),
    "ubuntu20": ("Debian", "Ubuntu", "20.04"),
    "rocky8": ("RedHat", "Rocky", "8.10"),
    "fedora42": ("RedHat", "Fedora", "42"),
    "sles15": ("Suse", "SLES", "15.6"),
}

PLAY = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - name: Put the facts of another system in
      ansible.builtin.set_fact:
        ansible_os_family: "{{ family }}"
        ansible_distribution: "{{ distribution }}"
        ansible_distribution_version: "{{ version }}"
        ansible_distribution_major_version: "{{ version.split('.')[0] }}"
        ansible_default_ipv4: {address: 198.18.0.1}
        cacheable: true

    - name: Let the role choose
      ansible.builtin.include_role:
        name: xdp_gossip.fleet.agent
        tasks_from: platform.yml
        public: true

    - name: Write down what it chose
      ansible.builtin.copy:
        content: >-
          {{ {'packages': __xdp_gossip_wanted_packages, 'plane': __xdp_gossip_wanted_dataplane_packages,
              'query': __xdp_gossip_package_query} | to_json }}
        dest: "{{ directory }}/{{ inventory_hostname }}.json"
        mode: "0600"
"""


class Controller:
    """Ansible with nothing but this collection and a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir()
        collections = directory / "collections" / "ansible_collections" / "xdp_gossip"
        collections.mkdir(parents=True)
        (collections / "fleet").symlink_to(ROOT)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "XDP_GOSSIP_"))},
            "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
            "ANSIBLE_HOME": str(directory / "ansible"),
            "HOME": str(self.home),
            # Ansible looks up root's home by itself.
            "ANSIBLE_ASYNC_DIR": str(directory / "async"),
            "ANSIBLE_NOCOLOR": "true",
        }

    def inventory(self, hosts: dict[str, dict[str, Any]]) -> None:
        """Hosts with their variables, all on this machine."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        content = {"all": {"hosts": {name: {**local, **variables} for name, variables in hosts.items()}}}
        (self.directory / "hosts.yml").write_text(json.dumps(content))

    def play(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook; standard output and error come as one."""
        return subprocess.run(
            ["ansible-playbook", *([] if "-i" in arguments else ["-i", "hosts.yml"]), *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def described(system: tuple[Any, ...], **other: Any) -> dict[str, Any]:
    return {"family": system[0], "distribution": system[1], "version": system[2], **other}


def choose(controller: Controller, hosts: dict[str, dict[str, Any]]) -> str:
    """Let the role choose on all hosts; returns the output."""
    controller.inventory(hosts)
    (controller.directory / "play.yml").write_text(PLAY)
    return controller.play("play.yml", "-e", f"directory={controller.directory}").stdout


def chosen(controller: Controller, host: str) -> dict[str, Any]:
    return json.loads((controller.directory / f"{host}.json").read_text())  # type: ignore[no-any-return]


def test_packages_of_each_system(controller: Controller, record_property: Any) -> None:
    output = choose(controller, {name: described(system) for name, system in SYSTEMS.items()})
    for name, (family, distribution, version, packages, plane) in SYSTEMS.items():
        assert (controller.directory / f"{name}.json").exists(), output
        found = chosen(controller, name)
        assert (found["packages"], found["plane"]) == (packages, plane), name
        assert found["query"][0] == {"Debian": "dpkg-query", "RedHat": "rpm"}[family]
        record_property("choice of packages", systems.system(distribution, version))


def test_packages_that_variables_ask_for(controller: Controller) -> None:
    system = SYSTEMS["rocky9"]
    hosts = {
        "udp": described(system, xdp_gossip_agent_protocol="UDP"),
        "tc": described(system, xdp_gossip_agent_protocol="TC"),
        "pekonode": described(system, xdp_gossip_agent_wire="pekonode"),
        "files": described(system, xdp_gossip_agent_templates=[{"name": "x", "path": "/etc/x", "content": ""}]),
        "own": described(system, xdp_gossip_agent_packages=["own-python3", "own-bcc"]),
        "container": described(system, xdp_gossip_agent_dataplane_container="/srv/programs.xgp"),
        "auto": described(system, xdp_gossip_agent_dataplane_container="auto"),
        "release": described(system, __xdp_gossip_archive={"container": "ab" * 32}),
        "bare": described(system, __xdp_gossip_archive={"container": ""}),
        "jammy": described(SYSTEMS["ubuntu22"], xdp_gossip_agent_dataplane_container="auto"),
    }
    output = choose(controller, hosts)
    assert "failed=0" in output
    planes = {name: chosen(controller, name)["plane"] for name in hosts}
    compiled = dict.fromkeys(("tc", "files", "bare"), RED_HAT_PLANE)
    # No compiler on hosts that get a program container.
    loaded = {**{name: ["libbpf"] for name in ("container", "auto", "release")}, "jammy": ["libbpf0"]}
    assert planes == {"udp": [], "pekonode": [], "own": [], **compiled, **loaded}
    assert chosen(controller, "files")["packages"] == [*RED_HAT, "python3-jinja2"]
    assert chosen(controller, "own")["packages"] == ["own-python3", "own-bcc"]


def test_systems_that_are_refused(controller: Controller) -> None:
    output = choose(controller, {name: described(system) for name, system in REFUSED.items()})
    for name, (_family, distribution, version) in REFUSED.items():
        told = rf"{name}: expected one of\s+Debian 12, Ubuntu 22, .* got {distribution} {version}"
        assert re.search(told, output), name
        assert not (controller.directory / f"{name}.json").exists()


@pytest.mark.parametrize("playbook", ["deploy", "upgrade", "remove"])
def test_list_tags(controller: Controller, playbook: str) -> None:
    controller.inventory({"host1": {}})
    output = controller.play(f"xdp_gossip.fleet.{playbook}", "--list-tags").stdout
    tags = set(re.findall(r"\bxdp_gossip_agent_\w+", output))
    assert tags == {
        "xdp_gossip_agent_preflight",
        "xdp_gossip_agent_install",
        "xdp_gossip_agent_configure",
        "xdp_gossip_agent_run",
        "xdp_gossip_agent_remove",
    }


#: Files whose tasks have tags of their own; those of the others get theirs from what imports or includes them.
TAGGED = ("main", "present", "change", "guarded")


def tasks_in(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_in(task.get(part, []))


def test_no_task_is_lost_to_tags() -> None:
    """With --tags, a task without one is left out, and so is what is included without passing tags on: even a gate."""
    for path in sorted((ROOT / "roles/agent/tasks").glob("*.yml")):
        listed = yaml.safe_load(path.read_text())
        if path.stem in TAGGED:
            assert all(task.get("tags") for task in listed), path.name
        for task in tasks_in(listed):
            assert task["name"], path.name
            if "ansible.builtin.include_tasks" in task:
                included = task["ansible.builtin.include_tasks"]
                to_tagged = isinstance(included, str) and any(f"{name}.yml" in included for name in TAGGED)
                assert to_tagged or included["apply"]["tags"], f"{path.name}: {task['name']}"


def test_an_upgrade_touches_nobody_while_a_host_is_unreachable(controller: Controller) -> None:
    # A port that preflight refuses: should the play go on, this machine must not become a member.
    there = {"xdp_gossip_agent_port": 0}
    away = {"ansible_connection": "ssh", "ansible_host": "198.18.0.99", "ansible_ssh_executable": "/bin/false"}
    for names in (["here", "away"], ["here"]):
        controller.inventory({"here": there, "away": away})
        done = controller.play("xdp_gossip.fleet.upgrade", "--check", "--limit", ",".join(names))
        assert done.returncode != 0
        assert ("away" in names) == ("UNREACHABLE" in done.stdout), done.stdout
        assert ("away" in names) != ("Check the role's variables" in done.stdout), done.stdout


def preflight(controller: Controller, *arguments: str) -> str:
    """The output of a look at this machine as a host, which it may not become; words that Ansible broke are joined."""
    done = controller.play("xdp_gossip.fleet.deploy", "--tags", "xdp_gossip_agent_preflight", *arguments)
    return " ".join(done.stdout.split())


def test_the_place_of_the_secrets_does_not_depend_on_the_inventory(controller: Controller) -> None:
    """Two inventories, one after the other in either order, names on the command line, and a directory."""
    play = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - ansible.builtin.include_role: {name: xdp_gossip.fleet.agent, tasks_from: secrets.yml}
      vars: {__xdp_gossip_secrets_state: present, xdp_gossip_agent_addr: 198.18.0.11}
"""
    (controller.directory / "play.yml").write_text(play)
    (controller.directory / "two").mkdir()
    for name in ("one.ini", "two/two.ini"):
        (controller.directory / name).write_text(f"{Path(name).stem}\n")
    for sources in (["one.ini", "two/two.ini"], ["two/two.ini", "one.ini"], ["h1,h2,"], ["two"]):
        output = controller.play("play.yml", *(word for source in sources for word in ("-i", source))).stdout
        assert "failed=0" in output and "failed=1" not in output, output
    place = controller.home / ".xdp-gossip" / "default"
    hosts = {path.name for path in (place / "hosts").iterdir()}
    assert {"one.crt", "two.crt", "h1.crt", "h2.crt"} <= hosts
    found = [path for path in controller.directory.rglob("*") if path.name in ("secret.key", "None")]
    assert found == [place / "secret.key"]


def test_the_controllers_own_work_needs_no_connection(controller: Controller) -> None:
    """Whatever the inventory says of all hosts, the controller's own included."""
    play = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: xdp_gossip.fleet.agent, tasks_from: secrets.yml}
      vars: {__xdp_gossip_secrets_state: present, xdp_gossip_agent_addr: 198.18.0.11}
    - xdp_gossip.fleet.xdp_gossip_release: {archive: ''}
      register: release
    - ansible.builtin.assert:
        that: release.wire is match("[0-9]+$")
"""
    (controller.directory / "play.yml").write_text(play)
    controller.inventory({"host1": {}, "localhost": {}})
    words = ["-e", "ansible_connection=ssh", "-e", "ansible_ssh_executable=/bin/false", "play.yml"]
    output = controller.play(*words).stdout
    assert "failed=0" in output and "unreachable=0" in output and "FAILED" not in output, output
    tasks = [path.read_text() for path in (ROOT / "roles/agent/tasks").iterdir()]
    assert not [text for text in tasks if "delegate_to: localhost" in text]


def test_secrets_of_another_fleet_are_refused(controller: Controller) -> None:
    place = controller.home / ".xdp-gossip" / "default"
    place.mkdir(parents=True)
    (place / "members").write_text("elsewhere1\nelsewhere2\n")
    for name, text in (("secret.key", "a-secret-that-is-long-enough"), ("api.token", "a-token-that-is-long-enough")):
        (place / name).write_text(text)
        (place / name).chmod(0o600)
    controller.inventory({"host1": {"xdp_gossip_agent_addr": "127.0.0.1"}})
    told = preflight(controller)
    assert "has the secrets of another fleet (elsewhere1, elsewhere2)" in told
    controller.inventory({"host1": {"xdp_gossip_agent_addr": "127.0.0.1"}, "elsewhere2": {}})
    assert "another fleet" not in preflight(controller, "--limit", "host1")


def test_without_secrets_and_not_allowed_to_make_some(controller: Controller) -> None:
    controller.inventory({"host1": {"xdp_gossip_agent_addr": "127.0.0.1", "xdp_gossip_agent_generate_secrets": False}})
    told = preflight(controller)
    assert "no secrets: expected" in told and ".xdp-gossip/default/secret.key" in told
    assert not (controller.home / ".xdp-gossip").exists()


@pytest.mark.parametrize(
    ("others", "seeds"),
    [
        ({"there": {"ansible_host": "198.18.0.12"}}, ["198.18.0.12:8000"]),
        ({"there": {"ansible_host": "[fd00::12]", "xdp_gossip_agent_port": 9000}}, ["[fd00::12]:9000"]),
        ({"there": {"ansible_host": "fd00::12"}}, ["[fd00::12]:8000"]),
        ({"there": {"ansible_host": "there.example"}}, ["there.example:8000"]),
        ({"there": {"ansible_host": "there.example", "xdp_gossip_agent_addr": "198.18.0.13"}}, ["198.18.0.13:8000"]),
        ({"there.example": {}}, ["there.example:8000"]),
        ({"localhost2": {"ansible_host": "localhost"}, "there": {"ansible_host": "127.0.0.1"}}, []),
        ({f"h{n}": {"ansible_host": f"198.18.0.{n}"} for n in range(12)}, [f"198.18.0.{n}:8000" for n in range(8)]),
    ],
)
def test_seeds_of_hosts_outside_of_the_run(
    controller: Controller, others: dict[str, dict[str, Any]], seeds: list[str]
) -> None:
    """Nothing is known of them but what the inventory says, and they cannot be asked."""
    play = """
- hosts: here
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: xdp_gossip.fleet.agent, tasks_from: addresses.yml, public: true}
      vars: &others {xdp_gossip_agent_seed_hosts: "{{ groups['all'] }}"}
    - ansible.builtin.copy:
        content: "{{ __xdp_gossip_seeds | to_json }}"
        dest: "{{ playbook_dir }}/seeds.json"
        mode: "0600"
      vars: *others
"""
    (controller.directory / "play.yml").write_text(play)
    away = {"ansible_connection": "ssh", "ansible_ssh_executable": "/bin/false"}
    controller.inventory({"here": {}, **{name: {**away, **variables} for name, variables in others.items()}})
    done = controller.play("play.yml")
    assert done.returncode == 0, done.stdout
    assert json.loads((controller.directory / "seeds.json").read_text()) == seeds


@pytest.mark.parametrize(
    ("secret", "refused"), [("short", True), ("two lines\nthat are long enough", True), ("x" * 16, False), ("", False)]
)
def test_a_secret_that_is_given_is_one_line(controller: Controller, secret: str, refused: bool) -> None:
    controller.inventory(
        {
            "host1": {
                "xdp_gossip_agent_addr": "127.0.0.1",
                "xdp_gossip_agent_secret_key": secret,
                "xdp_gossip_agent_api_token": secret,
            }
        }
    )
    told = preflight(controller)
    for name in ("xdp_gossip_agent_secret_key", "xdp_gossip_agent_api_token"):
        assert (f"host1: {name}: expected one line of at least 16 characters, got another text" in told) == refused
    assert secret not in told or len(secret) < 6


def test_a_zone_that_no_agent_takes_is_refused(controller: Controller) -> None:
    refused = {
        "space": "fra 1",
        "hyphen": "-fra",
        "letter": "f\u00e4r",
        "break": "fra\n",
        "long": "z" * 65,
        "boolean": False,
        "two": ["fra", "ams"],
    }
    taken = {"usual": "fra-1.a_b", "longest": "z" * 64, "number": 1, "none": None, "empty": ""}
    hosts = {name: {"xdp_gossip_agent_zone": zone} for name, zone in {**refused, **taken}.items()}
    hosts["pekonode"] = {"xdp_gossip_agent_zone": "fra", "xdp_gossip_agent_wire": "pekonode"}
    controller.inventory({name: {"xdp_gossip_agent_addr": "127.0.0.1", **given} for name, given in hosts.items()})
    told = preflight(controller, "-e", "xdp_gossip_serial=100%")
    rule = "expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit, got"
    for name in hosts:
        assert (f"{name}: xdp_gossip_agent_zone: {rule} " in told) == (name in refused), (name, told)
    assert f"boolean: xdp_gossip_agent_zone: {rule} false" in told
    wire = "expected none with xdp_gossip_agent_wire: pekonode, whose packets contain no zone, got fra"
    assert told.count("whose packets contain no zone") == told.count(f"pekonode: xdp_gossip_agent_zone: {wire}") > 0


def test_signers_that_no_agent_takes_are_refused(controller: Controller) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + 42 * "A" + "b="
    good = {"name": "alice", "public_key": key, "prefixes": ["app/"], "valid_before": "2027-01-31T12:00:00Z"}
    refused = {
        "private": (
            {"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret"},
            "public_key: expected the line of a",
        ),
        "rsa": ({"public_key": "ssh-rsa AAAAB3NzaC1yc2E="}, "public_key: expected the line of a file"),
        "prefixes": ({"prefixes": []}, "prefixes: expected a list of at least one prefix"),
        "zone": ({"valid_before": "2027-01-31T12:00:00+02:00"}, "valid_before: expected a time (UTC) such as"),
        "day": ({"valid_before": "2027-01-31"}, "valid_before: expected a time (UTC) such as"),
    }
    hosts: dict[str, dict[str, Any]] = {
        name: {"xdp_gossip_agent_signers": [{**good, **wrong}]} for name, (wrong, _told) in refused.items()
    }
    hosts["twice"] = {"xdp_gossip_agent_signers": [good, good]}
    hosts["pekonode"] = {"xdp_gossip_agent_signers": [good], "xdp_gossip_agent_wire": "pekonode"}
    hosts["good"] = {"xdp_gossip_agent_signers": [good, {**good, "name": "bob", "valid_before": None}]}
    controller.inventory({name: {"xdp_gossip_agent_addr": "127.0.0.1", **given} for name, given in hosts.items()})
    told = preflight(controller, "-e", "xdp_gossip_serial=100%")
    for name, (_wrong, reason) in refused.items():
        assert f"{name}: xdp_gossip_agent_signers: {reason}" in told, (name, told)
    assert "twice: xdp_gossip_agent_signers: expected each name once, got alice, alice" in told
    assert "pekonode: xdp_gossip_agent_signers: expected none with xdp_gossip_agent_wire: pekonode" in told
    assert "good: xdp_gossip_agent_signers" not in told and "secret" not in told.split("xdp_gossip_agent_signers")[1]


#: Documents that members with these signers would no longer return, and what the role says of them.
UNSIGNED = [
    {"key": "app/none", "version": "01a22d2d03b90d40@198.18.0.11:8000", "signed_by": None},
    {"key": "free", "version": "01a22d2d03b90d40@198.18.0.11:8000", "signed_by": None},
]


def test_signers_that_make_documents_unreadable_are_refused(controller: Controller) -> None:
    """A host without an agent asks another one, and nothing is changed."""
    play = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: xdp_gossip.fleet.agent, tasks_from: signers.yml}
      vars: {__xdp_gossip_socket: "{{ playbook_dir }}/{{ item }}.sock"}
"""
    (controller.directory / "play.yml").write_text(play)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + 42 * "A" + "b="
    signers = [{"name": "alice", "public_key": key, "prefixes": ["app/"]}]
    names = ("fresh", "member")
    addresses = {name: f"198.18.0.{number}" for number, name in enumerate(names, 11)}
    controller.inventory(
        {
            name: {"xdp_gossip_agent_addr": address, "xdp_gossip_agent_signers": signers}
            for name, address in addresses.items()
        }
    )
    done = controller.play("play.yml")
    assert done.returncode == 0, done.stdout

    class Handler(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "a Unix socket"

        def log_message(self, *_words: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"documents": UNSIGNED}).encode())

    server = socketserver.ThreadingUnixStreamServer(str(controller.directory / "member.sock"), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = controller.play("play.yml")
    finally:
        server.shutdown()
        server.server_close()
    told = " ".join(done.stdout.split())
    assert done.returncode != 0 and "app/none (no signature, expected one by alice)" in told, done.stdout
    assert "fresh: xdp_gossip_agent_signers: expected signatures" in told and "sign_key first" in told
    assert "free (" not in told


def test_signers_that_are_forced_are_not_compared() -> None:
    """Neither is anything asked where there are no signers."""
    tasks = yaml.safe_load((ROOT / "roles" / "agent" / "tasks" / "preflight.yml").read_text())
    (task,) = [task for task in tasks if "signers.yml" in str(task.get("ansible.builtin.include_tasks"))]
    assert task["when"] == "xdp_gossip_agent_signers | length > 0 and not xdp_gossip_agent_signers_force | bool"


def test_the_sealing_key_is_collected_last_and_replaced_only_on_request() -> None:
    """Molecule's scenario trust runs this task; here is under which conditions."""
    tasks = yaml.safe_load((ROOT / "roles" / "agent" / "tasks" / "present.yml").read_text())
    task = tasks[-2]
    options = task["xdp_gossip.fleet.xdp_gossip_sealing_key"]
    accepted = "{{ xdp_gossip_agent_replace_sealing_key | bool or not __xdp_gossip_preflight.installed }}"
    assert options["replace"] == accepted
    assert options["directory"] == "{{ xdp_gossip_agent_secret_dir }}/sealing"
    assert "xdp_gossip_agent_wire == 'native'" in task["when"] and "not ansible_check_mode" in task["when"]
    defaults = yaml.safe_load((ROOT / "roles" / "agent" / "defaults" / "main.yml").read_text())
    assert defaults["xdp_gossip_agent_replace_sealing_key"] is False
