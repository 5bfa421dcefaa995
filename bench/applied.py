# SPDX-License-Identifier: MIT
"""Measures, on a lab of systemd hosts, the time from a publish until nginx on all hosts uses the new value.

Each host renders the configuration of nginx from a document, lets nginx check the configuration, and reloads nginx
through systemd. The benchmark publishes the document through one member. The benchmark queries that member until all
members have received the document, and then until all members have applied it. At the end the benchmark requests the
value from nginx on every host. The benchmark measures with two values of the template's ``wait`` (seconds from a change
until the agent renders the file): the default of 0.5 s, and 0.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import yaml

from .lab import Lab, lab
from .netns import BenchError
from .report import Report, Spread

_SIZES, _RUNS = (3, 5), 10
_QUICK_SIZES, _QUICK_RUNS = (3,), 1
_WAITS = (0.5, 0.0)
#: Goal: maximum seconds from the publish request until the last host has reloaded nginx with the new value.
GOAL = 2.0

#: TLS context that trusts the lab's certificate authority. The benchmark adds the authority after it has created the
#: lab.
_TRUSTED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_TEMPLATE = """worker_processes 1;
pid /run/nginx.pid;
user www-data;
events {}
http { server { listen 8088; location / { return 200 "{{ document('bench/nginx') }}"; } } }
"""
_START = """
- hosts: fleet
  gather_facts: false
  tasks:
    - name: Start nginx
      ansible.builtin.systemd_service: {name: nginx.service, state: started}
"""


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    sizes, runs = (_QUICK_SIZES, _QUICK_RUNS) if quick else (_SIZES, _RUNS)
    report = Report(
        "applied",
        f"seconds from the request to publish until all hosts hold it, and run nginx with it; {runs} publishes each",
        ("hosts, gathered for", "held by all", "applied by all", "applied / held"),
    )
    with lab() as made:
        token = ""
        (made.directory / "start.yml").write_text(_START)
        for size in sizes:
            made.grow(size)
            made.playbook("start.yml", "-i", str(made.inventory))
            for wait in _WAITS:
                _deploy(made, wait)
                token = token or made.token_file.read_text().strip()
                _TRUSTED.load_verify_locations(made.ca_path)
                _one(report, made, size, wait, runs, token)
    return report


def _deploy(made: Lab, wait: float) -> None:
    template = {
        "name": "nginx",
        "content": _TEMPLATE,
        "path": "/etc/nginx/nginx.conf",
        "validate": ["/usr/sbin/nginx", "-t", "-c", "{file}"],
        "reload": ["/usr/bin/systemctl", "reload", "nginx.service"],
        "wait": wait,
    }
    # The tag !unsafe keeps Ansible from rendering the expressions in the template, which the agent renders.
    text = yaml.safe_dump({"xdp_gossip_agent_templates": [template]}).replace("content:", "content: !unsafe")
    (made.directory / "templates.yml").write_text(text)
    made.deploy("-e", "@templates.yml")


def _one(report: Report, made: Lab, size: int, wait: float, runs: int, token: str) -> None:
    held, applied = [], []
    for number in range(runs + 1):
        times = _publish(made, f"value {wait:g} {size} {number}", token)
        # The report leaves out the first publish, because before the first publish the document does not exist.
        if number:
            held.append(times[0])
            applied.append(times[1])
    spreads = Spread.of(held), Spread.of(applied)
    ratio = spreads[1].median / spreads[0].median
    report.rows.append((f"{size}, {wait:g} s", spreads[0].text(".3f"), spreads[1].text(".3f"), f"{ratio:.1f}"))
    found = {"held": spreads[0].json(), "applied": spreads[1].json()}
    report.data.setdefault("hosts", {}).setdefault(size, {})[f"{wait:g}"] = found
    if size == _SIZES[-1] and wait == _WAITS[0]:
        report.most(f"{size} hosts: applied by all, s", spreads[1].median, GOAL)


def _publish(made: Lab, value: str, token: str) -> tuple[float, float]:
    first = made.endpoints[0]
    began = time.monotonic()
    version = _ask(first, "PUT", "/v1/documents/bench/nginx", token, value.encode())["version"]
    query = f"/v1/convergence?key=bench/nginx&version={version}&wait=all&timeout=30"
    if not _ask(first, "GET", query, token)["converged"]:
        raise BenchError(f"{first}: expected all members to hold the document within 30 s")
    held = time.monotonic() - began
    found = _ask(first, "GET", f"{query}&applied=1", token)
    if not found["converged"]:
        raise BenchError(f"{first}: expected all members to apply the document within 30 s: {found}")
    applied = time.monotonic() - began
    for endpoint in made.endpoints:
        # A reload of nginx returns before the new workers answer, so nginx may serve the old value for a moment.
        deadline = time.monotonic() + 5
        while (served := _served(endpoint)) != value:
            if time.monotonic() > deadline:
                raise BenchError(f"{endpoint}: expected nginx to serve {value!r}, got {served!r}")
            time.sleep(0.02)
    return held, applied


def _served(endpoint: str) -> str:
    connection = http.client.HTTPConnection(str(urlsplit(endpoint).hostname), 8088, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _ask(endpoint: str, method: str, path: str, token: str, body: bytes | None = None) -> Any:
    parts = urlsplit(endpoint)
    connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=60, context=_TRUSTED)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise BenchError(f"{endpoint}: {method} {path}: {answer.status} {text[:300]!r}")
    return json.loads(text)
