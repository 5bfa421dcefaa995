# SPDX-License-Identifier: MIT
"""What one agent costs its host: memory with 100 nodes known, processor time while nothing happens."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.support.fleet import Agent, Cluster, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CROWD = Path(__file__).with_name("crowd.py")
#: Bytes resident in memory: of an agent in use, and once it was scraped, which loads the Prometheus library for good.
MEMORY, MEMORY_SCRAPED = 46e6, 47e6
#: Share of one core, over UDP: the agent itself answers ten probes a second, and reads ten answers to its own.
IDLE = 0.006
WINDOW = 30.0


@contextlib.contextmanager
def company(agent: Agent, count: int, cycle: float) -> Iterator[None]:
    """``count`` more members in another process, until the block ends."""
    first = agent.ip.rpartition(".")[0] + ".101"
    words = [first, str(count), str(agent.port), agent.ip, str(cycle)]
    crowd = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", sys.executable, str(CROWD), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert crowd.stdout is not None
        # The crowd gives up by itself after a minute, and then this line is empty.
        assert crowd.stdout.readline() == b"complete\n", "the crowd did not find each other"
        yield
        assert crowd.poll() is None, "the crowd ended meanwhile"
    finally:
        crowd.kill()
        crowd.wait(10)


def memory(agent: Agent, which: str) -> int:
    """Bytes, by /proc/PID/status (proc(5))."""
    for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == which:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"/proc/{agent.pid}/status: expected {which}, found none")


def processor_seconds(agent: Agent) -> float:
    """Seconds on a processor so far, of all threads (proc(5), schedstat: exact, where stat counts ticks)."""
    threads = Path(f"/proc/{agent.pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def all_known(agent: Agent, count: int) -> str | None:
    """None when the agent lists ``count`` nodes with their records."""
    nodes = agent.nodes("alive")
    if len(nodes) == count and all(node["record_known"] for node in nodes):
        return None
    return f"{agent.name} knows {len(nodes)} of {count} nodes"


def test_memory_with_a_hundred_nodes(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    with Cluster(tmp_path, 1, cycle=6) as cluster:
        agent = cluster[0]
        cluster.start()
        alone = memory(agent, "VmRSS")
        with company(agent, 99, cycle=12):
            eventually(lambda: all_known(agent, 100), 30)
            # What an operator's tools ask for.
            for turn in range(10):
                agent.publish(f"doc/{turn}", b"x" * 2000)
                agent.call("GET", "/v1/convergence?key=doc/0&timeout=0")
            time.sleep(5)
            assert all_known(agent, 100) is None
            resident = memory(agent, "VmRSS")
            for _ in range(10):
                assert agent.ask("GET", "/v1/metrics").status == 200
            scraped, most = memory(agent, "VmRSS"), memory(agent, "VmHWM")
    figure(
        "memory of one agent with 100 nodes",
        f"{resident / 1e6:.1f} MB resident ({alone / 1e6:.1f} alone), {scraped / 1e6:.1f} once metrics were scraped "
        f"(most ever {most / 1e6:.1f})",
    )
    assert resident < MEMORY
    assert scraped < MEMORY_SCRAPED


def test_idle_processor_time_with_thirty_nodes(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    with Cluster(tmp_path, 1, cycle=6) as cluster:
        agent = cluster[0]
        cluster.start()
        with company(agent, 29, cycle=6):
            eventually(lambda: all_known(agent, 30), 30)
            time.sleep(3)
            # Whatever else runs on the machine (caches, interrupts) can only make it dearer: the best window counts.
            windows = [watch(agent)]
            while min(windows)[0] >= IDLE and len(windows) < 3:
                windows.append(watch(agent))
            assert all_known(agent, 30) is None
    share, received = min(windows)
    # 29 others, each heartbeat in up to four copies: it was idle, not deaf.
    assert received > 29 / 6
    figure(
        "processor of one idle agent with 30 nodes at cycle 6",
        f"{share:.2%} of a core ({received:.0f} datagrams a second, {WINDOW:g} s, best of {len(windows)})",
    )
    assert share < IDLE


def watch(agent: Agent) -> tuple[float, float]:
    """Over one window: the share of a core that the agent took, and datagrams it received a second."""
    used, received, began = processor_seconds(agent), agent.counters()["datagrams_received"], time.monotonic()
    time.sleep(WINDOW)
    elapsed = time.monotonic() - began
    used = processor_seconds(agent) - used
    return used / elapsed, (agent.counters()["datagrams_received"] - received) / elapsed
