# SPDX-License-Identifier: MIT
"""``python -m bench.nodeapi SOCKET COUNT``: serves the agent's API on a Unix socket, with COUNT simulated members.

The process ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import sys
from collections.abc import Collection

from xdp_gossip.api.app import build_app
from xdp_gossip.api.server import ApiServer
from xdp_gossip.core.types import Address, Member, Record, State

_FIRST = ipaddress.IPv4Address("198.18.0.10")
_PLANES = ("XDP (native)", "XDP (native)", "XDP (generic)", "TC", "UDP")


class _Members:
    """A simulated node list with the methods that the handler of ``GET /v1/nodes`` calls.

    Every process with the same ``count`` simulates the same members.
    """

    revision = 1
    cluster = "bench"
    isolated = False

    def __init__(self, count: int) -> None:
        chance = random.Random(count)
        self._members = [self._member(number, chance) for number in range(count)]

    @staticmethod
    def _member(number: int, chance: random.Random) -> Member:
        data = {"zone": "abc"[number % 3], "rack": number // 40, "role": chance.choice(("web", "db", "queue"))}
        return Member(
            address=Address(str(_FIRST + number), 8000),
            state=State.ALIVE,
            incarnation=1_760_000_000 + chance.randrange(30_000_000),
            sequence=chance.randrange(1, 5_000_000),
            record=Record(
                f"host{number:05d}", json.dumps(data), "0.1.0", chance.choice(_PLANES), sealing=chance.randbytes(32)
            ),
            last_heard=round(chance.random(), 3),
            digest=0x5EED,
            local=number == 0,
        )

    def page(
        self,
        states: Collection[State],
        after: Address | None = None,
        limit: int | None = None,
        zones: Collection[str] | None = None,
    ) -> list[Member]:
        """Return up to ``limit`` members of ``zones`` (None: of all zones) whose addresses follow ``after``.

        All members are alive, so return none unless ``states`` contains ALIVE.
        """
        found = self._members if State.ALIVE in states else []
        found = [member for member in found if zones is None or member.zone in zones]
        return [member for member in found if after is None or after < member.address][:limit]

    def tag(self) -> str:
        """A constant ETag, because the members never change."""
        return "bench"

    def documents_digest(self) -> str:
        """A constant documents digest, because there are no documents."""
        return f"{0x5EED:016x}"


async def _serve(path: str, count: int) -> None:
    server = ApiServer(build_app(_Members(count), local=True))  # type: ignore[arg-type]
    await server.open_unix(path)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
