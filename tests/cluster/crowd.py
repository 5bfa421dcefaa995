# SPDX-License-Identifier: MIT
"""Many members in one process, as company for a real agent.

usage: crowd.py FIRST_IP COUNT PORT SEED_IP CYCLE

Members FIRST_IP, FIRST_IP + 1, ... join over SEED_IP. Prints "complete" once every member lists all of them and the
seed, and goes on until its standard input ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "agent"), str(ROOT)]

from tests.support.fleet import SECRET  # noqa: E402
from xdp_gossip import AsyncNodeList, Node, State  # noqa: E402

#: Seconds to find each other, and to live.
FORM, LIFE = 60.0, 150.0


async def run(first: str, count: int, port: int, seed: str, cycle: float) -> None:
    """Join, and stay until standard input ends."""
    lists: list[AsyncNodeList] = []
    for number in range(count):
        ip = str(ipaddress.ip_address(first) + number)
        node_list = AsyncNodeList(
            amount=4, cycle=cycle, timeout=5 * cycle + 2, buffer=64, secret_key=SECRET, listen_addr=ip
        )
        node_list.new(Node(ip, port, f"member{number}", f"private data of member {number}"))
        node_list.set(Node(seed, port))
        await node_list.join()
        lists.append(node_list)
        await asyncio.sleep(0.02)
    await asyncio.wait_for(complete(lists), FORM)
    print("complete", flush=True)
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([end], timeout=LIFE)
    await asyncio.gather(*(node_list.close() for node_list in lists))


async def complete(lists: list[AsyncNodeList]) -> None:
    """Wait until every member lists all."""
    while any(len(node_list.members(frozenset({State.ALIVE}))) <= len(lists) for node_list in lists):  # noqa: ASYNC110
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5])))
