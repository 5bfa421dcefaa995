# SPDX-License-Identifier: MIT
"""Contents made to hurt whoever parses them, published through one member of three: nobody even suspects it."""

from __future__ import annotations

import asyncio
import collections
import os
from pathlib import Path

import pytest

from tests.cluster.hostile_contents import contents
from tests.support.fleet import Cluster, eventually
from tests.support.patience import patient
from xdp_gossip.api.client import ApiError, Client

COUNT = int(os.environ.get("HOSTILE_CONTENTS", "2000"))
AT_ONCE = 8

pytestmark = [pytest.mark.slow, pytest.mark.timeout(patient(400 + COUNT / 5))]


async def publish_all(socket: str) -> collections.Counter[str]:
    """What the member answered, by status and code."""
    answers: collections.Counter[str] = collections.Counter()
    waiting = iter(enumerate(contents(14, COUNT)))

    async def publish() -> None:
        for number, (kind, value) in waiting:
            try:
                await client.publish(f"k{number % 50}", value, content_type=kind)
                answers["done"] += 1
            except ApiError as error:
                answers[f"{error.status} {error.code}"] += 1

    async with Client(f"unix://{socket}", timeout=patient(300)) as client:
        await asyncio.gather(*(publish() for _ in range(AT_ONCE)))
    return answers


async def suspicions(socket: str, over: asyncio.Event) -> list[str]:
    """Every change of a node that a member saw."""
    seen = []
    async with Client(f"unix://{socket}", timeout=patient(60)) as client:
        revision = (await client.watch(timeout=0))["revision"]
        while not over.is_set():
            found = await client.watch(revision, timeout=1, kind="node")
            assert not found["gap"]
            revision = found["revision"]
            seen += [f"{change['event']} {change['node']['name']}" for change in found["changes"]]
    return seen


def test_nobody_becomes_suspect(tmp_path: Path) -> None:
    # Seconds of silence until a member is suspected: an agent that parses by itself is silent for minutes.
    with Cluster(tmp_path, 3, cycle=0.5, timeout=patient(5)) as cluster:
        cluster.form()

        async def main() -> tuple[collections.Counter[str], list[list[str]]]:
            over = asyncio.Event()
            watching = [asyncio.ensure_future(suspicions(str(member.socket), over)) for member in cluster.agents]
            try:
                answers = await publish_all(str(cluster[0].socket))
            finally:
                over.set()
            return answers, list(await asyncio.gather(*watching))

        answers, changes = asyncio.run(main())
        print(dict(answers))
        assert sum(answers.values()) == COUNT
        assert set(answers) == {"done", "400 invalid_content"}
        assert answers["done"] > COUNT / 20
        assert changes == [[], [], []]
        assert not cluster[0].status()["internal_errors"]
        eventually(cluster.disagreement, 30)
