# SPDX-License-Identifier: MIT
"""``replace_keys`` of the library: before and after ``join``, on a node with the one interface or the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.keys import KEY, OTHER_KEY, with_id
from tests.support.patience import patient
from tests.support.ports import free_port
from xdp_gossip import AsyncNodeList, Node, NodeList
from xdp_gossip.core.types import State
from xdp_gossip.wire.keys import derive

OLD, NEW = derive("default", KEY), derive("default", OTHER_KEY)
STEPS = (
    [("active", KEY), ("staged", OTHER_KEY)],
    [("active", OTHER_KEY), ("retiring", KEY)],
    [("active", OTHER_KEY)],
)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(round(patient(30) / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to that")


def member(port: int, seed: int) -> AsyncNodeList:
    made = AsyncNodeList(cycle=0.2, timeout=2, secret_key=KEY, listen_addr="127.0.0.1")
    made.new(Node("127.0.0.1", port, f"member {port}"))
    made.set(Node("127.0.0.1", seed))
    return made


def test_a_key_is_replaced_while_nodes_run() -> None:
    async def main() -> None:
        ports = free_port(), free_port()
        nodes = [member(port, ports[0]) for port in ports]
        for node in nodes:
            await node.join()
        try:
            await until(lambda: all(len(node.get()) == 2 for node in nodes))
            for number, step in enumerate(STEPS):
                for node in nodes:
                    node.replace_keys(step)
                    assert node.keys == [(derive("default", secret).fingerprint, state) for state, secret in step]
                told = tuple(sorted(nodes[0].keys))
                await until(
                    lambda told=told: all(  # type: ignore[misc]
                        one.record is not None and one.record.keys == told for node in nodes for one in node.members()
                    )
                )
                await nodes[number % 2].publish(b"%d" % number, "k")
                await until(lambda number=number: all(node.read("k") == b"%d" % number for node in nodes))  # type: ignore[misc]
            for node in nodes:
                counters = node.status()["counters"]
                assert (counters["rx_unknown_key"], counters["rx_bad_mac"]) == (0, 0)
                assert {one.state for one in node.members(None)} == {State.ALIVE}
                assert [one.key_id for one in node.members() if not one.local] == [NEW.id]
            # An error changes nothing, and shows no secret.
            clash = with_id("default", NEW.id, OTHER_KEY)
            for wrong in ([("active", OTHER_KEY), ("staged", clash)], [("active", OTHER_KEY), ("staged", OTHER_KEY)]):
                with pytest.raises(ValueError, match=r"^keys: keys\[1\]: expected") as raised:
                    nodes[0].replace_keys(wrong)
                assert OTHER_KEY not in str(raised.value) and clash not in str(raised.value)
            assert nodes[0].keys == [(NEW.fingerprint, "active")]
        finally:
            for node in nodes:
                await node.close()

    asyncio.run(main())


def test_keys_that_are_replaced_before_join_are_the_ones_of_the_run() -> None:
    port = free_port()
    with NodeList(secret_key=KEY, listen_addr="127.0.0.1") as node_list:
        node_list.new(Node("127.0.0.1", port, "a"))
        node_list.replace_keys(STEPS[0])
        node_list.join()
        (local,) = node_list.members()
        assert local.record is not None
        assert local.record.keys == tuple(sorted([(OLD.fingerprint, "active"), (NEW.fingerprint, "staged")]))
        node_list.replace_keys(STEPS[1])
        (local,) = node_list.members()
        assert local.record is not None
        assert local.record.keys == tuple(sorted([(OLD.fingerprint, "retiring"), (NEW.fingerprint, "active")]))


def test_the_wire_of_pekonode_has_no_keys() -> None:
    node_list = AsyncNodeList(wire="pekonode", secret_key="a secret", size=1024)
    node_list.new(Node("127.0.0.1", 8000))
    assert node_list.keys == []
    with pytest.raises(ValueError, match=r"^keys: expected none with wire='pekonode'"):
        node_list.replace_keys(STEPS[0])
