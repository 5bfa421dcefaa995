# SPDX-License-Identifier: MIT
"""How the change feed is asked: without holes between two answers, and one request at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._member import Feed
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._options import Options
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._watcher import _Bell


class _Member:
    """Answers a request for changes when a test says so."""

    def __init__(self) -> None:
        self.since: list[int] = []
        self.answers: asyncio.Queue[Feed] = asyncio.Queue()
        self.cancelled = 0

    async def changes(self, since: int, seconds: float, prefix: str) -> Feed:
        """As the real one."""
        self.since.append(since)
        try:
            return await self.answers.get()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def test_the_feed_goes_on_where_it_ended_and_not_where_the_list_is() -> None:
    async def scene() -> list[int]:
        member: Any = _Member()
        async with _Bell(member, Options({})) as bell:
            member.answers.put_nowait(Feed(12, {"app": {}}))
            assert (await bell.wait(10, 5.0)).tombstones == {"app": {}}
            # A document that was deleted at 13, before the list of 15 was read, would otherwise be in no feed.
            member.answers.put_nowait(Feed(16, {}))
            await bell.wait(15, 5.0)
        return list(member.since)

    assert asyncio.run(scene()) == [10, 12]


def test_a_request_that_is_open_is_waited_for_again() -> None:
    # The agent would serve a request to its end that nobody waits for any more, and serves only so many.
    async def scene() -> _Member:
        member: Any = _Member()
        async with _Bell(member, Options({})) as bell:
            for _ in range(3):
                assert await bell.wait(10, 0.01) == Feed(10, {})
                assert not bell.has_rung
            member.answers.put_nowait(Feed(11, {}))
            await bell.wait(10, 5.0)
            assert bell.has_rung
            await bell.wait(10, 0.01)
        return member

    member = asyncio.run(scene())
    assert member.since == [10, 11]
    assert member.cancelled == 1  # only the last one, at the end
