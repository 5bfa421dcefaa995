# SPDX-License-Identifier: MIT
"""Many documents and a large one reach a member that was away; nobody is removed meanwhile, memory stays bounded."""

from __future__ import annotations

import contextlib
import json
import random
import time
from pathlib import Path
from typing import Callable

import pytest

from tests.cluster.test_cluster_resources import memory
from tests.support.fleet import Agent, Cluster, eventually
from tests.support.process import UnixConnection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SMALL = 10_000
LARGE = 16 * 1024 * 1024
#: Bytes that catching up may add at most: the documents themselves (about 25 MB), and twice the large one.
ADDED = 100e6


def fill(agent: Agent, count: int, together: int = 8) -> None:
    """Publish small documents, some together: each publish waits for the disk."""
    with contextlib.closing(UnixConnection(str(agent.socket))) as connection:
        for begin in range(0, count, together):
            numbers = range(begin, min(count, begin + together))
            documents = [{"key": f"app/{number}", "value": f"value {number}" + "x" * 100} for number in numbers]
            connection.request("POST", "/v1/documents", json.dumps({"documents": documents}))
            response = connection.getresponse()
            response.read()
            assert response.status == 200


def behind(agent: Agent, reference: Agent) -> str | None:
    """None when both hold the same documents."""
    return None if agent.status()["digest"] == reference.status()["digest"] else f"{agent.name} lacks documents"


def removed(cluster: Cluster) -> list[int]:
    """How many members each of the first two agents has removed."""
    return [agent.counters().get("members_became_dead", 0) for agent in cluster.agents[:2]]


def test_a_member_that_was_away_catches_up(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    with Cluster(tmp_path, 3, cycle=1) as cluster:
        cluster.form()
        away = cluster[2]
        away.kill()
        fill(cluster[0], SMALL)
        large = random.Random(1).randbytes(LARGE)
        cluster[0].publish("large", large)
        eventually(lambda: behind(cluster[1], cluster[0]), 30)
        eventually(lambda: None if removed(cluster) == [1, 1] else "not all have removed the member that is away", 30)
        away.start()
        eventually(away.not_ready, 30)
        before = memory(away, "VmRSS")
        took = eventually(lambda: behind(away, cluster[0]), 60, pause=0.05)
        peak = memory(away, "VmHWM")
        assert away.read("large") == large
        figure(
            "10,000 documents and one of 16 MiB to a member that was away",
            f"{took:.1f} s, resident {before / 1e6:.0f} MB before, {peak / 1e6:.0f} MB at most",
        )
        assert peak - before < ADDED
        assert removed(cluster) == [1, 1]
        assert away.counters().get("members_became_dead", 0) == 0


def test_everybody_fetches_a_large_document_at_once_and_one_is_killed_in_the_middle(
    tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    with Cluster(tmp_path, 6, cycle=1) as cluster:
        cluster.form()
        before = {agent.name: memory(agent, "VmRSS") for agent in cluster}
        large = random.Random(2).randbytes(LARGE)
        victim = cluster[5]
        began = time.monotonic()
        cluster[0].publish("large", large)
        # Some of it is there, and not all.
        eventually(lambda: None if victim.counters().get("rx_swap_response", 0) > 20 else "no chunk yet", 20, 0.005)
        in_the_middle = victim.read("large") is None
        victim.kill()
        others = cluster.agents[:5]
        took = max(eventually(lambda agent=agent: behind(agent, cluster[0]), 60) for agent in others)  # type: ignore[misc]
        took = max(took, time.monotonic() - began)
        cluster.start([victim])
        eventually(lambda: behind(victim, cluster[0]), 60)
        assert victim.read("large") == large
        assert in_the_middle, "the transfer was over before the kill"
        added = max(memory(agent, "VmHWM") - before[agent.name] for agent in others)
        figure(
            "one document of 16 MiB to 5 members at once, one of them killed in the middle",
            f"{took:.1f} s, at most {added / 1e6:.0f} MB added to a member",
        )
        assert added < ADDED
        eventually(cluster.disagreement, 20)
        for agent in others:
            # The killed one may be removed, if its start took long; nobody else.
            assert agent.counters().get("members_became_dead", 0) <= 1
