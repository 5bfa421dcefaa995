# SPDX-License-Identifier: MIT
"""Run two members of a cluster in one program: list members, publish a document, and wait until the change of the
document arrives.

Both nodes run in this process, so the example needs no fleet. To join a real cluster, pass the address of one of the
cluster's agents to ``set``, and pass the cluster's name and secret to ``AsyncNodeList``.
"""

from __future__ import annotations

import asyncio

from xdp_gossip import AsyncNodeList, Node

SECRET = "the secret of the cluster"


async def follow(node_list: AsyncNodeList, prefix: str) -> str:
    """Wait for a change of a document whose key begins with ``prefix``; return the event and the key of this change."""
    async for change in node_list.watch(prefix):
        if change.document is not None:  # a change of a node has no document
            return f"{change.event} {change.document.key}"
    return "closed"


async def main() -> None:
    """Run two members; one publishes a document, and the other waits for the change."""
    first = AsyncNodeList(secret_key=SECRET, cycle=1, listen_addr="127.0.0.1")
    second = AsyncNodeList(secret_key=SECRET, cycle=1, listen_addr="127.0.0.1")
    async with first, second:
        first.new(Node("127.0.0.1", 8121, "first"))
        second.new(Node("127.0.0.1", 8122, "second"))
        second.set(Node("127.0.0.1", 8121))  # the second node contacts the first node to join
        await first.join()
        await second.join()
        following = asyncio.ensure_future(follow(second, "app/"))
        await asyncio.sleep(0)  # let the task ``following`` start to watch the node list
        await first.publish(b'{"workers": 4}', "app/settings", content_type="json")
        print(await following)
        found = await first.convergence("app/settings", timeout=10)
        print("held by all" if found.converged else f"still missing: {found}")
        print(*(node.name for node in first.get()))


if __name__ == "__main__":
    asyncio.run(main())
