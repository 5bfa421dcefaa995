# SPDX-License-Identifier: MIT
"""Sends one rumor to many targets, twice, as the agent's transport does: ``send_copies.py DIRECTORY OWN TARGET...``.

Run in a namespace by ``test_copies.py``. ``DIRECTORY`` is the loaded data plane's, or ``-`` for plain UDP. Prints the
transport's and the kernel's counters as JSON. The first round finds no next hop and goes through the stack, which
resolves it; the second is the kernel's alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "agent"))

from tests.support.keys import KEY
from xdp_gossip.core.events import Rumor
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane.maps import Config, open_plane
from xdp_gossip.dataplane.transport import KernelTransport
from xdp_gossip.wire.keys import Keyring, cluster_id
from xdp_gossip.wire.native import NativeCodec

ROUNDS = 2


KEYRING = Keyring.single("planes", KEY)


def rumor(own: Address, number: int) -> bytes:
    """A heartbeat of ours."""
    header = Header(PacketType.HEARTBEAT, own, 1, number, 0, 0, 0)
    return NativeCodec(KEYRING, b"salt").encode(header, None)


async def main(directory: str, own: Address, targets: tuple[Address, ...]) -> None:
    """Open, send, wait, tell."""
    transport = KernelTransport((own.ip, own.port), own)
    await transport.open(lambda data, source, screened=False: None)
    plane = None
    if directory != "-":
        keys = KEYRING.mac_keys, KEYRING.active.id
        plane = open_plane(Path(directory), "auto", own, cluster_id(KEYRING.cluster), 4, 12, *keys, {})
        plane.write_targets(targets)
        plane.write_config(Config(True, 1, 0, time.monotonic() + 60, 0, 2.0, 60.0, 0, 0, 0, time.monotonic(), 0))
        transport.use(plane)
    for number in range(1, ROUNDS + 1):
        transport.send_rumor(Rumor(rumor(own, number), targets))
        await asyncio.sleep(1.0)
    told = {"transport": dict(transport.counters), "kernel": plane.counters() if plane else {}}
    await transport.close()
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Address.parse(sys.argv[2]), tuple(Address.parse(text) for text in sys.argv[3:])))
