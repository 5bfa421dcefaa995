# SPDX-License-Identifier: MIT
"""Compares the time that Ansible takes to read a large fleet through the inventory plugin with the time to read a
static inventory file of the same content.

The benchmark runs ``ansible-inventory --list`` with a static JSON file, with a static YAML file, and with the plugin,
which queries the agent's API in another process. The runs alternate. All runs must list the same hosts with the same
variables. The only difference is that Ansible marks the plugin's strings as unsafe (not to be templated).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

from .netns import BenchError
from .netns import run as command
from .report import Report, Spread

ROOT = Path(__file__).resolve().parents[1]
_ANSIBLE = ROOT / ".cache" / "venv" / "ansible" / "bin" / "ansible-inventory"
_NODES, _RUNS = 10_000, 5
_QUICK_NODES, _QUICK_RUNS = 200, 1
_START_SECONDS, _LIST_SECONDS = 30.0, 300.0
GOAL = 1.5

_FILES = ("static JSON", "static YAML")
_LIVE, _CACHED, _UNCHANGED = "nodelist, asked", "nodelist, from its cache", "nodelist, told that nothing has changed"


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: use fewer hosts and runs. Raises ``BenchError``."""
    count, runs = (_QUICK_NODES, _QUICK_RUNS) if quick else (_NODES, _RUNS)
    if not _ANSIBLE.exists():
        raise BenchError(f"expected {_ANSIBLE}: make venv-ansible link")
    version = command(str(_ANSIBLE), "--version").split("\n")[0]
    report = Report(
        "inventory",
        f"{version}, {count:,} hosts: median [least..most] of {runs} runs that took turns "
        "(a file far slower than the other ran once)",
        ("source", "seconds", "processor seconds", "times the faster file"),
    )
    with tempfile.TemporaryDirectory(prefix="xgp-inventory-") as name, _server(Path(name), count) as api:
        sources = _sources(Path(name), api)
        first = {source: _list(Path(name), path) for source, path in sources.items()}  # this also fills caches
        _check_same({source: output for source, (_, _, output) in first.items()}, count)
        times: dict[str, list[tuple[float, float]]] = {source: [] for source in sources}
        slow = max(_FILES, key=lambda source: first[source][1])
        if first[slow][1] > 2 * min(first[source][1] for source in _FILES):
            # The slower static file runs only once: the goal compares the plugin with the faster file, and more runs
            # would take minutes.
            times[slow].append(first[slow][:2])
            del sources[slow]
        for _ in range(runs):
            for source, path in sources.items():
                times[source].append(_list(Path(name), path)[:2])
    _tell(report, times)
    return report


def _tell(report: Report, times: dict[str, list[tuple[float, float]]]) -> None:
    wall = {source: Spread.of([pair[0] for pair in pairs]) for source, pairs in times.items()}
    busy = {source: Spread.of([pair[1] for pair in pairs]) for source, pairs in times.items()}
    fastest = min(wall[source].median for source in _FILES)
    for source in times:
        ratio = wall[source].median / fastest
        report.rows.append((source, wall[source].text(".2f"), busy[source].text(".2f"), f"{ratio:.2f}"))
        report.data[source] = {"seconds": wall[source].json(), "processor_seconds": busy[source].json()}
    report.most("times the faster static file", wall[_LIVE].median / fastest, GOAL)


@contextlib.contextmanager
def _server(directory: Path, count: int) -> Iterator[Path]:
    """Context manager: a process that serves the API. Yields the path of the API's Unix socket."""
    api = directory / "api.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.nodeapi", str(api), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "agent")},
    )
    assert process.stdout is not None
    try:
        if not select.select([process.stdout], [], [], _START_SECONDS)[0] or not process.stdout.readline():
            raise BenchError(f"bench.nodeapi: expected it to serve the API within {_START_SECONDS:g} s")
        yield api
    finally:
        process.kill()
        process.communicate(timeout=_START_SECONDS)


def _sources(directory: Path, api: Path) -> dict[str, Path]:
    """Write the inventory files. Return a dictionary: name of the source -> path of its inventory file."""
    with contextlib.closing(HTTPConnection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_START_SECONDS)
        connection.sock.connect(str(api))
        connection.request("GET", "/v1/nodes?state=alive")
        nodes = json.loads(connection.getresponse().read())["nodes"]
    hosts = {node["name"]: {"ansible_host": node["addr"], "xdp_gossip": node} for node in nodes}
    static = {"all": {"hosts": hosts}}
    sources = {name: directory / file for name, file in zip(_FILES, ("static.json", "static.yml"))}
    sources[_FILES[0]].write_text(json.dumps(static))
    sources[_FILES[1]].write_text(yaml.dump(static, Dumper=yaml.CSafeDumper, default_flow_style=False))
    plugin = {"plugin": "xdp_gossip.fleet.nodelist", "endpoints": [f"unix://{api}"]}
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile"}
    for source, file, more in (
        (_LIVE, "live", {}),
        (_CACHED, "cached", {**cache, "cache_timeout": 86_400, "cache_connection": str(directory / "cached")}),
        (_UNCHANGED, "unchanged", {**cache, "cache_timeout": 1, "cache_connection": str(directory / "unchanged")}),
    ):
        sources[source] = directory / f"{file}.nodelist.yml"
        sources[source].write_text(json.dumps({**plugin, **more}))
    return sources


def _list(directory: Path, source: Path) -> tuple[float, float, Path]:
    """Run ``ansible-inventory --list`` once. Return the seconds of the command, its processor seconds, and its output
    file.

    Raises ``BenchError``.
    """
    output = directory / f"{source.name}.out"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "XDP_GOSSIP_"))},
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "LC_ALL": "C.UTF-8",
    }
    words = [str(_ANSIBLE), "-i", str(source), "--list", "--output", str(output)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    try:
        done = subprocess.run(
            words, env=environment, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_LIST_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(words)}: expected an end within {_LIST_SECONDS:g} s") from None
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"{' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()}")
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, output


def _check_same(outputs: dict[str, Path], count: int) -> None:
    """Check that all outputs list the same hosts and variables. Raises ``BenchError``."""
    listed = {source: json.loads(path.read_text(), object_hook=_unmarked) for source, path in outputs.items()}
    wanted = listed[_FILES[0]]
    found = len(wanted["_meta"]["hostvars"])
    if found != count:
        raise BenchError(f"expected {count} hosts, {_FILES[0]} lists {found}")
    for source, inventory in listed.items():
        for part in wanted:
            if inventory.get(part) != wanted[part] and part != "_meta":
                raise BenchError(f"{source}: expected the same group {part} as {_FILES[0]} lists")
        if inventory["_meta"]["hostvars"] != wanted["_meta"]["hostvars"]:
            raise BenchError(f"{source}: expected the same variables as {_FILES[0]} lists")


def _unmarked(value: dict[str, Any]) -> Any:
    return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else value
