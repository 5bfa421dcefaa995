# SPDX-License-Identifier: MIT
"""The time between join()'s first and last step: no call may meet a node list that is only half there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.keys import KEY
from tests.transports import Wrapped
from xdp_gossip import AsyncNodeList, Node, TransportError
from xdp_gossip.nodelist import NotReadyError
from xdp_gossip.transport import Receive, Transport
from xdp_gossip.transport.udp import UdpTransport

HERE = Node("127.0.0.1", 1)  # port 1 is a name only: the transports below listen wherever the kernel likes


class SlowTransport(Wrapped):
    """Opens when ``owner`` lets it, with a failure if there is one."""

    def __init__(self, owner: SlowList) -> None:
        super().__init__(UdpTransport(("127.0.0.1", 0)))
        self._owner = owner

    async def open(self, receive: Receive) -> None:
        self._owner.opening.set()
        await self._owner.gate.wait()
        if self._owner.failure is not None:
            raise self._owner.failure
        await super().open(receive)


class SlowList(AsyncNodeList):
    """Its transport opens when ``gate`` says so, with ``failure`` if there is one."""

    def __init__(self, state_dir: Path | None = None) -> None:
        super().__init__(secret_key=KEY, listen_addr="127.0.0.1", state_dir=state_dir)
        self.gate = asyncio.Event()
        self.opening = asyncio.Event()
        self.failure: Exception | None = None
        self.new(HERE)

    def _make_transport(self, node: Node) -> Transport:
        return SlowTransport(self)


def test_calls_during_join_are_refused_and_the_stored_document_survives(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = SlowList(tmp_path)
        first.gate.set()
        await first.join()
        stored = (await first.publish(b"stored")).document
        await first.close()

        second = SlowList(tmp_path)
        joining = asyncio.ensure_future(second.join())
        await asyncio.wait_for(second.opening.wait(), 10)
        # Written now, it would be compared with nothing, and then be overwritten by what the disk holds.
        with pytest.raises(NotReadyError):
            await second.publish(b"too early", absent=True)
        with pytest.raises(NotReadyError):
            second.status()
        with pytest.raises(NotReadyError, match="before"):
            await second.join()
        second.set(Node("127.0.0.1", 2, "seed"))  # may come at any time, and counts
        second.gate.set()
        await joining
        assert second.document("default") == stored
        assert [node.port for node in second.get()] == [1, 2]
        await second.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_join_that_failed_may_be_tried_again() -> None:
    async def scenario() -> None:
        node_list = SlowList()
        node_list.gate.set()
        node_list.failure = TransportError("the address is in use")
        with pytest.raises(TransportError):
            await node_list.join()
        with pytest.raises(NotReadyError):
            node_list.members()
        node_list.failure = None
        await node_list.join()
        assert (await node_list.publish(b"value")).changed
        await node_list.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
