# SPDX-License-Identifier: MIT
"""Writers that compare and set on all members at once, a partition, kill -9, and one clock an hour wrong: after healing
all members hold the same documents, and whatever was acknowledged is in them, or somebody told that it was lost."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import threading
import time
from collections import defaultdict
from http.client import HTTPException
from pathlib import Path
from typing import Callable
from urllib.parse import quote

import pytest

from tests.cluster.network import Network, move
from tests.support.fleet import Agent, Cluster, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(200),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

CYCLE, TIMEOUT = 0.5, 2.5
KEYS = ("log/0", "log/1", "log/2")


class Writers:
    """Threads that each append a line to documents of *their* member by compare-and-set, again and again.

    So a document's value names all that its author had read, and what became of each line can be told at the end.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged: dict[str, set[str]] = defaultdict(set)
        self.refused = 0
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(a, n)) for a in cluster for n in range(2)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _write(self, agent: Agent, number: int) -> None:
        rng = random.Random(f"{agent.name}/{number}")
        turn = 0
        while not self._stop.is_set():
            turn += 1
            line = f"{agent.name}.{number}.{turn}"
            try:
                self._append(agent, rng.choice(KEYS), line)
            except (OSError, HTTPException):
                pass  # it is down, or was killed before it answered: nothing was acknowledged
            time.sleep(rng.uniform(0.05, 0.25))

    def _append(self, agent: Agent, key: str, line: str) -> None:
        path = f"/v1/documents/{quote(key)}"
        read = agent.ask("GET", path)
        if read.status not in (200, 404):
            return  # it starts
        condition = {"If_Match": read.headers["ETag"]} if read.status == 200 else {"If_None_Match": "*"}
        lines = read.body.decode() if read.status == 200 else ""
        answer = agent.ask("PUT", path, f"{lines}{line}\n".encode(), **condition)
        with self._lock:
            if answer.status == 200:
                self.acknowledged[key].add(line)
            elif answer.status == 412:
                self.refused += 1
            elif answer.status != 503:
                self.faults.append(f"{agent.name}: {answer.status} {answer.body!r}")

    def against_each_other(self, halves: list[list[Agent]], since: dict[str, set[str]]) -> str | None:
        """None once both halves have written to one key after ``since``, a copy of ``acknowledged``."""
        with self._lock:
            for key, lines in self.acknowledged.items():
                names = {line.partition(".")[0] for line in lines - since.get(key, set())}
                if all(names & {agent.name for agent in half} for half in halves):
                    return None
        return "the halves wrote nothing against each other"

    def so_far(self) -> dict[str, set[str]]:
        with self._lock:
            return {key: set(lines) for key, lines in self.acknowledged.items()}


def lines_of(agent: Agent, key: str) -> set[str]:
    return set((agent.read(key) or b"").decode().split())


def told(cluster: Cluster) -> dict[str, set[str]]:
    """By key the lines of all versions that members tell of as lost, in their histories."""
    found: dict[str, set[str]] = defaultdict(set)
    for agent in cluster:
        for key in KEYS:
            for version in agent.call("GET", f"/v1/history/{quote(key)}?values=1")["versions"]:
                if version["conflict"]:
                    found[key] |= set(base64.b64decode(version["value_base64"]).decode().split())
    return found


def libfaketime() -> str:
    """The library that gives a process a clock of its own (Debian's libfaketime)."""
    listed = subprocess.run(["dpkg", "-L", "libfaketime"], capture_output=True, text=True, check=True, timeout=10)
    return next(path for path in listed.stdout.split() if path.endswith("/libfaketimeMT.so.1"))


def test_nothing_acknowledged_is_lost_untold(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    with Network(5) as network, Cluster(tmp_path, 5, cycle=CYCLE, timeout=TIMEOUT, history=1000) as cluster:
        for agent, host in zip(cluster, network.hosts):
            move(agent, host)
            agent.settings["seeds"] = [cluster[0].address, cluster[1].address]
        cluster[4].prefix += ("env", f"LD_PRELOAD={libfaketime()}", "FAKETIME=+3600s", "DONT_FAKE_MONOTONIC=1")
        cluster.form()
        large = random.Random(3).randbytes(8 * 2**20)
        with Writers(cluster) as writers:
            eventually(lambda: None if writers.refused else "no two writers met", 30)
            network.split([3, 5])
            before = writers.so_far()
            time.sleep(1.5 * TIMEOUT)
            cluster[0].publish("large", large)
            time.sleep(1.5 * TIMEOUT)
            halves = [[cluster[0], cluster[1], cluster[3]], [cluster[2], cluster[4]]]
            eventually(lambda: writers.against_each_other(halves, before), 30)
            network.heal()
            # In the middle of the large transfer and of the merge.
            time.sleep(0.3)
            cluster[2].kill()
            time.sleep(1)
            cluster.start([cluster[2]])
            time.sleep(1)
        assert writers.faults == []
        took = eventually(cluster.disagreement, 40)
        assert cluster.holders("large", large) == []
        names = told(cluster)
        total = lost_lines = 0
        for key in KEYS:
            kept = lines_of(cluster[0], key)
            missing = writers.acknowledged[key] - kept
            assert missing <= names[key], f"{key}: lost untold: {sorted(missing - names[key])}"
            total += len(writers.acknowledged[key])
            lost_lines += len(missing)
        assert lost_lines > 0, "the halves wrote nothing against each other"
    figure(
        "10 writers, 2 + 3 apart, a kill, a clock an hour ahead",
        f"{total} writes acknowledged, {writers.refused} refused by compare-and-set, {lost_lines} lost to the other "
        f"half, each of these told of; all equal {took:.1f} s after the end",
    )
