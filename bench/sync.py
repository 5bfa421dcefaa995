# SPDX-License-Identifier: MIT
"""Measures how long a restarted member takes to receive the documents that changed while the member was stopped, and
how many bytes the member sends and receives.

Cases: 1, 100 and 10,000 changed documents among 10,000, and one document of 16 MiB. Three agents run over UDP, each in
a network namespace. The benchmark stops one agent, changes documents on another agent, and starts the first agent
again. The time counts from the moment at which the API of the restarted agent answers until its documents digest is
equal to the digest of the other agents. The bytes are all bytes that the restarted agent's network interface sends and
receives, with all headers, from just before the restart until the agent has all documents. One row shows the cost of a
start without changes, which includes heartbeats and the join. The column "kB beyond no change" subtracts the bytes of a
start without changes.
"""

from __future__ import annotations

import json
import random
import time

from . import agents
from .agents import Agent
from .fleet import fleet, form
from .netns import BenchError
from .netns import run as command
from .report import Report

_DOCUMENTS, _LARGE = 10_000, 16 * 2**20
_QUICK_DOCUMENTS, _QUICK_LARGE = 300, 2**20
_CHANGED, _QUICK_CHANGED = (0, 1, 100, 10_000), (0, 1)
#: Goal: maximum seconds until a member that was stopped has all documents again.
SECONDS_GOAL = 10.0
#: Seconds for which the others rest before the host starts: they write documents of other members a little later.
REST = 2.0
#: Goal: maximum bytes for one changed document among 10,000, in addition to the bytes of a start without a change.
ONE_GOAL = 6_000.0


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    documents, large = (_QUICK_DOCUMENTS, _QUICK_LARGE) if quick else (_DOCUMENTS, _LARGE)
    report = Report(
        "sync",
        f"a member that was away catches up with changes among {documents:,} documents of 60 bytes (UDP, 3 agents)",
        ("changed", "seconds", "kB on the wire", "kB beyond no change", "peak resident MB"),
    )
    with fleet(3, "UDP", cycle=1) as hosts:
        form(hosts, 3)
        _write(hosts[0], range(documents), "first")
        agents.until(lambda: differ(hosts), 60)
        idle = 0.0
        for changed in _QUICK_CHANGED if quick else _CHANGED:
            seconds, sent, peak, _ = away(hosts, lambda changed=changed: _write(hosts[0], range(changed), str(changed)))
            idle = sent if changed == 0 else idle
            _row(report, f"{changed:,}", seconds, sent, idle, peak)
            if changed == 1:
                report.most("bytes for one changed document", sent - idle, ONE_GOAL)
        value = random.Random(1).randbytes(large)
        seconds, sent, peak, _ = away(hosts, lambda: hosts[0].call("PUT", "/v1/documents/large", value))
        _row(report, f"one of {large >> 20} MiB", seconds, sent, idle, peak)
        slowest = max(row["seconds"] for row in report.data["changed"].values())
        report.most("seconds, the slowest", slowest, SECONDS_GOAL)
    return report


def _row(report: Report, what: str, seconds: float, sent: float, idle: float, peak: float) -> None:
    cells = (f"{seconds:.2f}", f"{sent / 1e3:,.1f}", f"{(sent - idle) / 1e3:,.1f}", f"{peak:.0f}")
    report.rows.append((what, *cells))
    row = {"seconds": seconds, "bytes": sent, "bytes_beyond_no_change": sent - idle, "peak_resident_mib": peak}
    report.data.setdefault("changed", {})[what] = row


def away(hosts: list[Agent], change: object) -> tuple[float, float, float, float]:
    """Stop the last host, call ``change``, start the host again, and wait until it has all documents.

    Return the seconds until the host had all documents, the bytes that it sent and received, its peak resident memory
    in MiB, and the seconds of processor time that it used until then.
    """
    last = hosts[-1]
    last.stop()
    change()  # type: ignore[operator]
    agents.until(lambda: differ(hosts[:-1]), 60)
    time.sleep(REST)
    before = _bytes(last)
    last.launch()
    last.wait_ready()
    began, used = time.monotonic(), last.run_time()
    agents.until(lambda: differ(hosts), 120, pause=0.02)
    took, used = time.monotonic() - began, last.run_time() - used
    sent = _bytes(last) - before
    for host in hosts[:-1]:
        alive = host.status()["members"]["alive"]
        if alive != len(hosts):
            raise BenchError(f"{host.name} lists {alive} members at the end, expected {len(hosts)}")
    return took, sent, last.peak_kib / 1024, used / 1e9


def _write(host: Agent, numbers: range, text: str) -> None:
    """Publish one document for each number.

    Each publish returns only after the agent has written the document to disk.
    """
    for number in numbers:
        value = f"{text:8} value of document {number:05d}, for what that is worth"
        host.call("PUT", f"/v1/documents/settings/host{number:05d}", value.encode())


def differ(hosts: list[Agent]) -> str | None:
    """What differs between the documents of ``hosts``; None if they are equal."""
    digests = {host.name: host.status()["digest"] for host in hosts}
    return f"the digests are {digests}" if len(set(digests.values())) > 1 else None


def _bytes(host: Agent) -> int:
    """Number of bytes that the host's network interface has received and sent so far."""
    (link,) = json.loads(command("ip", "-s", "-j", "link", "show", "dev", host.interface, namespace=host.namespace))
    counters = link["stats64"]
    return int(counters["rx"]["bytes"]) + int(counters["tx"]["bytes"])
