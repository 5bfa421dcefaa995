# SPDX-License-Identifier: MIT
"""Getting one settings file onto all hosts of a fleet: copied to each by Ansible, and published through one member.

Both are whole ``ansible-playbook`` commands, as an operator types them, on a lab of systemd hosts reached by ssh:

- *copy*: one play over all hosts with ``ansible.builtin.copy``, without facts, as many forks as hosts, with pipelining
  and connections that ssh keeps open, both as in the lab's inventory;
- *publish*: one play on localhost with ``xdp_gossip_publish`` and ``wait: all``, over HTTP with a token. It ends when
  every member has said that it holds this version.

The two take turns, and each run brings new content. The time of the task alone is noted, too.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import yaml

from .lab import Lab, lab
from .netns import run as command
from .report import Report, Spread

_SIZES, _RUNS = (3, 5, 10), 7
_QUICK_SIZES, _QUICK_RUNS = (3, 5), 3
#: How many times faster a publish is to be than a copy, at the largest size.
RATIO_GOAL = 5.0
#: How much slower a publish may be at the largest size than at the smallest, to be called flat.
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


def _publish_play(made: Lab) -> str:
    arguments = {
        "key": "bench/settings",
        "src": str(made.directory / "settings.json"),
        "content_type": "json",
        "wait": "all",
        "endpoints": made.endpoints,
        "token_file": str(made.token_file),
    }
    task = {
        "name": "Push",
        "xdp_gossip.fleet.xdp_gossip_publish": arguments,
        "register": "pushed",
        # Not a benchmark of doing nothing, nor of reaching some.
        "failed_when": f"pushed is failed or pushed is not changed or pushed.confirmed != {len(made.endpoints)}",
    }
    return yaml.safe_dump([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}])


def run(quick: bool) -> Report:
    """Measure. Raises ``BenchError``."""
    sizes, runs = (_QUICK_SIZES, _QUICK_RUNS) if quick else (_SIZES, _RUNS)
    report = Report(
        "push",
        f"seconds to get a settings file to n hosts, median [least..most] of {runs} runs that took turns",
        ("n", "copy, command", "publish, command", "ratio", "copy, task", "publish, task", "ratio"),
    )
    with lab() as made:
        for size in sizes:
            made.grow(size)
            _one(report, made, size, runs)
    whole = {size: report.data["hosts"][size]["command"] for size in sizes}
    report.data["ansible"] = command(str(made.ansible_playbook), "--version").split("\n")[0]
    report.least(f"whole command, {sizes[-1]} hosts: copy / publish", whole[sizes[-1]]["ratio"], RATIO_GOAL)
    growth = whole[sizes[-1]]["publish"]["median"] / whole[sizes[0]]["publish"]["median"]
    report.most(f"publish, whole command: {sizes[-1]} hosts / {sizes[0]}", growth, FLAT_GOAL)
    return report


def _one(report: Report, made: Lab, size: int, runs: int) -> None:
    (made.directory / "copy.yml").write_text(_COPY)
    (made.directory / "publish.yml").write_text(_publish_play(made))
    ways = {
        "copy": ("copy.yml", "--inventory", str(made.inventory), "--forks", str(size)),
        "publish": ("publish.yml",),
    }
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(runs + 1):
        for way, words in ways.items():
            measured = _push(made, *words)
            if number:  # the first of each fills caches and opens connections
                times[way].append(measured)
    whole, task = ({way: Spread.of([pair[part] for pair in pairs]) for way, pairs in times.items()} for part in (0, 1))
    row = [str(size)]
    for kind, spreads in (("command", whole), ("task", task)):
        ratio = spreads["copy"].median / spreads["publish"].median
        row += [spreads["copy"].text(".2f"), spreads["publish"].text(".2f"), f"{ratio:.1f}"]
        found = {**{way: spread.json() for way, spread in spreads.items()}, "ratio": ratio}
        report.data.setdefault("hosts", {}).setdefault(size, {})[kind] = found
    report.rows.append(row)


def _push(made: Lab, *words: str) -> tuple[float, float]:
    """Seconds of the whole command, and of its task."""
    settings = {"currency": "EUR", "stock_limit": 40, "id": str(uuid.uuid4())}
    (made.directory / "settings.json").write_text(json.dumps(settings) + "\n")
    notes = made.directory / "task-times"
    notes.unlink(missing_ok=True)
    took = made.playbook(
        *words,
        ANSIBLE_CALLBACK_PLUGINS=str(Path(__file__).with_name("callbacks")),
        TASK_TIMES=str(notes),
    )
    (task,) = [json.loads(line) for line in notes.read_text().splitlines()]
    return took, float(task["seconds"])
