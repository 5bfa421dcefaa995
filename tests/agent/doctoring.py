# SPDX-License-Identifier: MIT
"""What the tests of ``doctor`` share: a look at a configuration, and its findings by id."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.patience import patient
from tests.support.process import command
from xdp_gossip.cli.doctor.finding import Finding
from xdp_gossip.cli.doctor.look import Look, gather

NODE = {"addr": "198.18.0.5", "port": 8000, "name": "host5", "state": "alive", "local": True, "version": "0.1.0"}


def look_at(config: Path | str, seconds: float = 10.0, **options: Any) -> Look:
    """What doctor looks at, of a configuration file and the agent that it names."""
    return list(gather(argparse.Namespace(config=str(config), **options), patient(seconds)))[-1]


def told(counters: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    """A status as an agent gives it that has nothing to complain of."""
    return {
        "version": "0.1.0",
        "wire": "native",
        "state": "running",
        "node": {**NODE, **more.pop("node", {})},
        "listen": "0.0.0.0:8000",
        "uptime": 100.0,
        "timeout": 7.0,
        "members": {"alive": 2, "suspect": 0, "dead": 0, "left": 0},
        "documents": 0,
        "document_bytes": 0,
        "document_bytes_limit": 1000,
        "clock_offset": 0.0,
        "catching_up": "",
        "counters": counters or {},
        **more,
    }


def look(counters: dict[str, int] | None = None, nodes: Iterable[dict[str, Any]] = (), **status: Any) -> Look:
    """A look at an agent with this status."""
    return Look("agent.yml", state="answers", status=told(counters, **status), nodes=[NODE_KNOWN, *nodes])


NODE_KNOWN = {**NODE, "record_known": True}


def other(number: int, **more: Any) -> dict[str, Any]:
    """Another member."""
    return {**NODE_KNOWN, "addr": f"198.18.0.{number}", "name": f"host{number}", "local": False, **more}


def wrong(findings: Iterable[Finding]) -> dict[str, Finding]:
    """All findings but those that are ok, by id; each has a remedy."""
    found = {finding.id: finding for finding in findings if finding.level != "ok"}
    assert all(finding.remedy for finding in found.values()), found
    return found


def doctor(config: Path | str, *words: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit status and findings by id of the command, in a process of its own."""
    done = command("doctor", "--json", "--config", str(config), "--timeout", str(patient(10)), *words)
    return done.returncode, by_id(done)


def by_id(done: subprocess.CompletedProcess[Any]) -> dict[str, list[dict[str, str]]]:
    """The findings that a command printed; nothing else."""
    assert not done.stderr, done.stderr
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        found.setdefault(finding["id"], []).append(finding)
    return found
