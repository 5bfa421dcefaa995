# SPDX-License-Identifier: MIT
"""A program that is a member of a cluster by itself: it lists members, publishes, and follows a document.

Two nodes run here in one process, so that the example needs no fleet. Give ``seed`` an agent's address, and the
cluster's name and secret, to join a real one.
"""

from __future__ import annotations

import asyncio

from xdp_gossip import AsyncNodeList, Node

SECRET = "the secret of the cluster"


async def follow(node_list: AsyncNodeList, prefix: str) -> str:
    """Wait for the first change of a document below ``prefix``; returns what it was."""
    async for change in node_list.watch(prefix):
        if change.document is not None:  # nodes change, too
            return f"{change.event} {change.document.key}"
    return "closed"


async def main() -> None:
    """Two members: one publishes, the other one hears of it."""
    first = AsyncNodeList(secret_key=SECRET, cycle=1, listen_addr="127.0.0.1")
    second = AsyncNodeList(secret_key=SECRET, cycle=1, listen_addr="127.0.0.1")
    async with first, second:
        first.new(Node("127.0.0.1", 8121, "first"))
        second.new(Node("127.0.0.1", 8122, "second"))
        second.set(Node("127.0.0.1", 8121))  # the seed
        await first.join()
        await second.join()
        following = asyncio.ensure_future(follow(second, "app/"))
        await asyncio.sleep(0)  # it is watching from now on
        await first.publish(b'{"workers": 4}', "app/settings", content_type="json")
        print(await following)
        found = await first.convergence("app/settings", timeout=10)
        print("held by all" if found.converged else f"still missing: {found}")
        print(*(node.name for node in first.get()))


if __name__ == "__main__":
    asyncio.run(main())
