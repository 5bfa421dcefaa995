# SPDX-License-Identifier: MIT
"""Measures the time to distribute one settings file to all hosts of a fleet, with Ansible's module ``copy`` and with a
publish.

Each measurement runs a complete ``ansible-playbook`` command, like the command that an operator types, on a lab of
systemd hosts reached by ssh. One machine runs the control node and all hosts. The benchmark runs these commands in
turn, each time with new content:

- *copy*: one play on all hosts with ``ansible.builtin.copy``, without facts, with as many forks as hosts, and with
  pipelining, which the lab's inventory turns on. The copy runs once over connections that ssh kept open since the
  previous run (for at most a minute), and once over new connections.

- *publish*: one play on localhost with ``xdp_gossip_publish`` and ``wait: all``, over HTTP with a token. The play ends
  when every member has confirmed that it has stored the new version.

- *nothing*: one play on localhost with ``ansible.builtin.command`` and ``true``, which shows the minimum time of any
  command.

The report also shows the time of the task alone, without the start and the end of the command.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import yaml

from .lab import Lab, lab
from .netns import run as command
from .report import Report, Spread

_SIZES, _RUNS = (3, 5, 10), 5
_QUICK_SIZES, _QUICK_RUNS = (3,), 1
#: Goal: minimum ratio of a copy's time to a publish's time, at the largest number of hosts.
RATIO_GOAL = 5.0
#: Goal: maximum ratio of a publish's time at the largest number of hosts to a publish's time at the smallest number of
#: hosts.
FLAT_GOAL = 1.2

_COPY = """
- hosts: fleet
  gather_facts: false
  tasks:
    - name: Push
      ansible.builtin.copy:
        src: settings.json
        dest: /etc/bench-settings.json
        mode: "0644"
"""
_NOTHING_PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Do nothing
      ansible.builtin.command:
        argv: ["true"]
      changed_when: false
"""


def _publish_play(made: Lab) -> str:
    arguments = {
        "key": "bench/settings",
        "src": str(made.directory / "settings.json"),
        "content_type": "json",
        "wait": "all",
        "endpoints": made.endpoints,
        "token_file": str(made.token_file),
        "ca_path": str(made.ca_path),
    }
    task = {
        "name": "Push",
        "xdp_gossip.fleet.xdp_gossip_publish": arguments,
        "register": "pushed",
        # The benchmark must not measure a publish that changes nothing, or that does not reach all hosts.
        "failed_when": f"pushed is failed or pushed is not changed or pushed.confirmed != {len(made.endpoints)}",
    }
    return yaml.safe_dump([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}])


_ANEW, _KEPT, _PUBLISH, _NOTHING = "copy, ssh anew", "copy, ssh kept open", "publish", "nothing"
_WAYS = (_ANEW, _KEPT, _PUBLISH, _NOTHING)


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    sizes, runs = (_QUICK_SIZES, _QUICK_RUNS) if quick else (_SIZES, _RUNS)
    report = Report(
        "push",
        f"seconds to get a settings file to n hosts, median [least..most] of {runs} runs that took turns",
        ("n", *_WAYS, "anew / publish", "kept open / publish"),
    )
    with lab() as made:
        report.data["ansible"] = command(str(made.ansible_playbook), "--version").split("\n")[0]
        for size in sizes:
            made.grow(size)
            _one(report, made, size, runs)
    last, found = sizes[-1], report.data["hosts"]
    for part in ("command", "task"):
        for way in (_ANEW, _KEPT):
            ratio = found[last][part][way]["median"] / found[last][part][_PUBLISH]["median"]
            report.least(f"{last} hosts, {part}: {way} / publish", ratio, RATIO_GOAL)
    growth = found[last]["command"][_PUBLISH]["median"] / found[sizes[0]]["command"][_PUBLISH]["median"]
    report.most(f"publish, command: {last} hosts / {sizes[0]}", growth, FLAT_GOAL)
    return report


def _one(report: Report, made: Lab, size: int, runs: int) -> None:
    (made.directory / "copy.yml").write_text(_COPY)
    (made.directory / "publish.yml").write_text(_publish_play(made))
    (made.directory / "nothing.yml").write_text(_NOTHING_PLAY)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in _WAYS}
    for number in range(runs + 1):
        for way in _WAYS:
            measured = _push(made, way, size)
            if number:  # The report leaves out the first run, because this run fills caches.
                times[way].append(measured)
    for position, part in enumerate(("command", "task")):
        spreads = {way: Spread.of([pair[position] for pair in pairs]) for way, pairs in times.items()}
        ratios = [f"{spreads[way].median / spreads[_PUBLISH].median:.1f}" for way in (_ANEW, _KEPT)]
        report.rows.append((f"{size}, {part}", *(spreads[way].text(".2f") for way in _WAYS), *ratios))
        found = {way: spread.json() for way, spread in spreads.items()}
        report.data.setdefault("hosts", {}).setdefault(size, {})[part] = found


def _push(made: Lab, way: str, size: int) -> tuple[float, float]:
    """Run the command for ``way`` once, with new settings to distribute.

    Return the seconds of the whole command, and the seconds of its task.
    """
    settings = {"currency": "EUR", "stock_limit": 40, "id": str(uuid.uuid4())}
    (made.directory / "settings.json").write_text(json.dumps(settings) + "\n")
    notes = made.directory / "task-times"
    notes.unlink(missing_ok=True)
    if way == _ANEW:
        made.close_connections()
    copy = ("copy.yml", "--inventory", str(made.inventory), "--forks", str(size))
    took = made.playbook(
        *{_PUBLISH: ("publish.yml",), _NOTHING: ("nothing.yml",)}.get(way, copy),
        ANSIBLE_CALLBACK_PLUGINS=str(Path(__file__).with_name("callbacks")),
        TASK_TIMES=str(notes),
    )
    (task,) = [json.loads(line) for line in notes.read_text().splitlines()]
    return took, float(task["seconds"])
