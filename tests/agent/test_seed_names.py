# SPDX-License-Identifier: MIT
"""Seeds by name: looked up again and again, off the event loop, and followed when they move."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable

import pytest

from xdp_gossip.core.types import Address, Node
from xdp_gossip.service import seednames
from xdp_gossip.service.seednames import SeedNames

OWN = Address("198.18.0.1", 8000)


class Nodes:
    """What is asked of a node list."""

    def __init__(self) -> None:
        self.seeds: set[str] = set()
        self.news = asyncio.Event()

    def set(self, node: Node) -> None:
        self.seeds.add(str(node.address))
        self.news.set()

    def unset(self, node: Node) -> None:
        self.seeds.discard(str(node.address))
        self.news.set()

    def members(self) -> list[None]:
        return [None]


def play(scenario: Callable[[Nodes, dict[str, object], SeedNames, dict[str, int]], Awaitable[None]]) -> None:
    async def main() -> None:
        nodes, answers, counters = Nodes(), dict[str, object](), dict[str, int]()

        def lookup(host: str, port: int) -> Iterable[str]:
            answer = answers.get(host, OSError("Name or service not known"))
            if isinstance(answer, threading.Event):
                answer.wait(30)
                return []
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, list)
            return answer

        names = SeedNames(nodes, OWN, counters, lookup)  # type: ignore[arg-type]
        task = asyncio.ensure_future(names.run())
        try:
            await asyncio.wait_for(scenario(nodes, answers, names, counters), 30)
        finally:
            task.cancel()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seednames, "ALONE_EVERY", 0.01)


async def until(nodes: Nodes, seeds: set[str]) -> None:
    while nodes.seeds != seeds:
        nodes.news.clear()
        await nodes.news.wait()


def test_a_name_is_followed_when_it_moves_and_kept_while_it_does_not_resolve() -> None:
    async def scenario(nodes: Nodes, answers: dict[str, object], names: SeedNames, counters: dict[str, int]) -> None:
        names.configure([("seeds.example.org", 8000)], [Address("198.18.0.9", 8000)])
        while counters["seed_lookups_failed"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert nodes.seeds == set()
        answers["seeds.example.org"] = ["198.18.0.1", "198.18.0.2", "fd00::2", "198.18.0.9"]
        await until(nodes, {"198.18.0.2:8000", "[fd00::2]:8000", "198.18.0.9:8000"})
        answers["seeds.example.org"] = OSError("the resolver is down")
        failed = counters["seed_lookups_failed"]
        while counters["seed_lookups_failed"] < failed + 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert len(nodes.seeds) == 3
        answers["seeds.example.org"] = ["198.18.0.3"]
        # What is a seed by its address as well stays one.
        await until(nodes, {"198.18.0.3:8000", "198.18.0.9:8000"})
        names.configure([], [])
        assert nodes.seeds == {"198.18.0.9:8000"}

    play(scenario)


def test_a_resolver_that_does_not_answer_holds_up_nobody_and_gets_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seednames, "LOOKUP_SECONDS", 0.05)

    async def scenario(nodes: Nodes, answers: dict[str, object], names: SeedNames, counters: dict[str, int]) -> None:
        answers["slow"] = stuck = threading.Event()
        answers["quick"] = ["198.18.0.2"]
        names.configure([("slow", 8000), ("quick", 8000)], [])
        while counters["seed_lookups_failed"] < 8:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert sum(thread.name == "xdp-gossip-resolver" for thread in threading.enumerate()) == 1
        stuck.set()
        await until(nodes, {"198.18.0.2:8000"})

    play(scenario)


def test_an_address_of_many_hosts_or_of_none_is_no_seed() -> None:
    async def scenario(nodes: Nodes, answers: dict[str, object], names: SeedNames, counters: dict[str, int]) -> None:
        answers["seeds.example.org"] = ["224.0.0.1", "198.18.0.7", "255.255.255.255", "0.0.0.0", "::"]
        names.configure([("seeds.example.org", 8000)], [])
        await until(nodes, {"198.18.0.7:8000"})
        answers["seeds.example.org"] = ["224.0.0.1", "198.18.0.8"]
        await until(nodes, {"198.18.0.8:8000"})

    play(scenario)
