# SPDX-License-Identifier: MIT
"""Measures the controller's processor time for a deployment that changes nothing, in comparison with typical roles for
one service.

Each measurement is a complete ``ansible-playbook`` command on a lab of systemd hosts reached by ssh, with pipelining
(as in the lab's inventory) or without pipelining (Ansible's default). The figure is the processor time of the command
and of all its child processes, because other processes on the machine hardly change this processor time. The benchmark
subtracts the processor time of an ``ansible-playbook`` command that runs no task on the same hosts. The following
commands alternate:

- *deploy* runs the complete playbook ``deploy`` of this collection: facts, checks, release, configuration, units, gate.

- *plain role* runs a typical role with one task each for package, user, directories, configuration, unit and service.

- *zabbix_agent* and *memcached* run public roles for one service (:mod:`.publicroles`). With ``--quick`` the benchmark
  leaves out the public roles.

The environment variable ``DEPLOY_HOSTS`` sets the numbers of hosts to measure with, such as ``3,10,30``.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence

from .lab import PUBLIC, Lab, lab
from .netns import run as command
from .publicroles import ROLES, PublicRole, fetch
from .report import Report, Spread

_SIZES, _RUNS = (3, 10), 3
_QUICK_SIZES, _QUICK_RUNS = (3,), 1
#: Goals. ``GOAL``: maximum processor seconds of the controller per host. ``FLAT_GOAL``: maximum ratio of the
#: seconds per host at the largest number of hosts to the seconds per host at the smallest number of hosts.
GOAL, FLAT_GOAL = 1.5, 1.2
_SECONDS = 600.0

_EMPTY = """
- hosts: fleet
  gather_facts: false
  tasks: []
"""
# A typical role for one service: facts, variables by operating system, package, user, files, service.
_PLAIN = """
- hosts: fleet
  become: true
  vars: {plain_user: plain, plain_home: /var/lib/plain, plain_port: 9999}
  handlers:
    - name: Restart plain
      ansible.builtin.systemd_service: {name: plain, state: restarted, daemon_reload: true}
  tasks:
    - name: Choose the packages of the system
      ansible.builtin.set_fact:
        plain_packages: "{{ ['procps'] if ansible_facts['os_family'] == 'Debian' else ['procps-ng'] }}"

    - name: Expect a system that is known
      ansible.builtin.assert:
        that: ansible_facts['os_family'] in ['Debian', 'RedHat']
        quiet: true

    - name: Install the packages
      ansible.builtin.package: {name: "{{ plain_packages }}", state: present}

    - name: Create the group
      ansible.builtin.group: {name: "{{ plain_user }}", system: true}

    - name: Create the user
      ansible.builtin.user:
        name: "{{ plain_user }}"
        group: "{{ plain_user }}"
        system: true
        home: "{{ plain_home }}"
        create_home: false

    - name: Create the directories
      ansible.builtin.file: {path: "{{ item }}", state: directory, owner: "{{ plain_user }}", mode: "0750"}
      loop: [/etc/plain, "{{ plain_home }}"]

    - name: Write the configuration
      ansible.builtin.template: {src: plain.conf.j2, dest: /etc/plain/plain.conf, owner: root, mode: "0644"}
      notify: Restart plain

    - name: Write the unit
      ansible.builtin.template:
        src: plain.service.j2
        dest: /etc/systemd/system/plain.service
        owner: root
        mode: "0644"
      notify: Restart plain

    - name: Start it, now and at every boot
      ansible.builtin.systemd_service: {name: plain, state: started, enabled: true, daemon_reload: false}
"""
_TEMPLATES = {
    "plain.conf.j2": "port = {{ plain_port }}\nhome = {{ plain_home }}\n",
    "plain.service.j2": "[Service]\nUser={{ plain_user }}\nExecStart=/usr/bin/sleep infinity\n\n"
    "[Install]\nWantedBy=multi-user.target\n",
}
_KINDS = ("pipelining", "no pipelining")
_NOTHING, _DEPLOY, _PLAIN_ROLE = "no task", "deploy", "plain role"


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    sizes, runs = (_QUICK_SIZES, _QUICK_RUNS) if quick else (_SIZES, _RUNS)
    kinds = _KINDS[:1] if quick else _KINDS
    if given := os.environ.get("DEPLOY_HOSTS"):
        sizes = tuple(int(size) for size in given.split(","))
    public = () if quick else ROLES
    for role in public:
        fetch(role, PUBLIC)
    with lab([package for role in public for package in role.packages]) as made:
        ways = _ways(made, public)
        report = Report(
            "deploy",
            "processor seconds of the controller for each host, when nothing is to be changed, without "
            f"ansible-playbook's own start; median [least..most] of {runs} runs that took turns",
            ("hosts", "ssh", *(way for way in ways if way != _NOTHING)),
        )
        report.data["ansible"] = command(str(made.ansible_playbook), "--version").split("\n")[0]
        report.data["public roles"] = {role.name: role.requirement for role in public}
        for size in sizes:
            made.grow(size)
            for kind in kinds:
                _one(report, made, ways, size, runs, kind)
    found = report.data["hosts"]
    for size in sizes:
        for kind in kinds:
            report.most(f"{size} hosts, {kind}: deploy", found[size][kind][_DEPLOY]["median"], GOAL)
    most, least = (found[size][kinds[0]][_DEPLOY]["median"] for size in (sizes[-1], sizes[0]))
    report.most(f"deploy: {sizes[-1]} hosts / {sizes[0]}", most / least, FLAT_GOAL)
    return report


def _ways(made: Lab, public: Sequence[PublicRole]) -> dict[str, str]:
    """Write the playbooks to compare.

    Return a dictionary: name of the command in the report -> path or name of its playbook.
    """
    texts = {_NOTHING: _EMPTY, _PLAIN_ROLE: _PLAIN, **{role.name: role.play for role in public}}
    for number, text in enumerate(texts.values()):
        (made.directory / f"way{number}.yml").write_text(text)
    for name, text in _TEMPLATES.items():
        (made.directory / name).write_text(text)
    return {_DEPLOY: "xdp_gossip.fleet.deploy", **{way: f"way{number}.yml" for number, way in enumerate(texts)}}


def _one(report: Report, made: Lab, ways: dict[str, str], size: int, runs: int, kind: str) -> None:
    words = ("-i", str(made.inventory), "-e", f"ansible_ssh_pipelining={str(kind == _KINDS[0]).lower()}")
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(runs + 1):
        for way in ways:
            before = _processor()
            made.playbook(ways[way], *words, seconds=_SECONDS)
            spent = _processor() - before
            # The report leaves out the first run, because this run fills caches and makes changes on the hosts.
            if number:
                times[way].append(spent)
    start = Spread.of(times[_NOTHING]).median
    spreads = {way: Spread.of([(spent - start) / size for spent in times[way]]) for way in ways if way != _NOTHING}
    report.rows.append((str(size), kind, *(spread.text(".2f") for spread in spreads.values())))
    found = {way: spread.json() for way, spread in spreads.items()}
    report.data.setdefault("hosts", {}).setdefault(size, {})[kind] = found


def _processor() -> float:
    """Processor seconds that the child processes of this process, and their children, have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
