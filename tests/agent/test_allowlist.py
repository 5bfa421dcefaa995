# SPDX-License-Identifier: MIT
"""Who may speak to a node: the list alone, and in front of a member."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xdp_gossip.core.allowlist import MOST, AllowList, parse_network
from xdp_gossip.core.types import Address
from xdp_gossip.dataplane.headers import constants
from xdp_gossip.node.runtime import Runtime


def _network(ip: Any, bits: int) -> Any:
    return ipaddress.ip_network((ip, bits), strict=False)


#: ``parse_network`` refuses networks of IPv4-mapped addresses, which no normalised source is in.
networks = st.one_of(
    st.builds(_network, st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(_network, st.ip_addresses(v=6), st.integers(0, 128)).filter(
        lambda network: not network.subnet_of(ipaddress.ip_network("::ffff:0:0/96"))
    ),
)


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[Any], Any]:
    """Networks and an address: any, or one beside the edge of a network."""
    given = draw(st.lists(networks, min_size=1, max_size=5))
    network = draw(st.sampled_from(given))
    edge = draw(st.sampled_from([int(network.network_address), int(network.broadcast_address)]))
    beside = min(max(edge + draw(st.integers(-1, 1)), 0), 2**network.max_prefixlen - 1)
    return given, draw(st.one_of(st.ip_addresses(), st.just(type(network.network_address)(beside))))


@given(lists())
def test_who_is_admitted(drawn: tuple[list[Any], Any]) -> None:
    """By each of the networks; and the entries for the kernel say the same of the address in 128 bits."""
    given, address = drawn
    allow = AllowList(given)
    assume(getattr(address, "ipv4_mapped", None) is None)  # sources come normalised
    expected = any(address in network for network in given)
    assert allow.admits(str(address)) == expected
    # As a table of longest prefixes has it.
    bits = int.from_bytes(Address.of(str(address), 1).packed, "big")
    matching = {
        prefix: admitted
        for (prefix, net), admitted in allow.entries().items()
        if bits >> (128 - prefix) == int.from_bytes(net, "big") >> (128 - prefix)
    }
    assert bool(matching and matching[max(matching)]) == expected


def test_the_map_has_room_for_the_longest_list() -> None:
    given = [ipaddress.ip_network((2 * number, 32)) for number in range(MOST)]
    assert len(AllowList(given).entries()) == constants()["XG_ALLOWED"]


def test_an_empty_list_admits_everybody() -> None:
    assert not AllowList() and AllowList().admits("198.18.0.1") and AllowList().entries() == {}


@pytest.mark.parametrize("wrong", [5, None, b"10.0.0.0/8", "", "x", "10.0.0.1/8", "10.0.0.0/33", "::ffff:10.0.0.0/104"])
def test_what_is_no_network(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_network(wrong)


def test_a_member_takes_nothing_from_elsewhere() -> None:
    """Over whatever protocol: what the kernel programs would have dropped is dropped by the agent."""

    class Engine:
        def __init__(self) -> None:
            self.unstored_source: object = None
            self.taken: list[bytes] = []

        def receive(self, data: bytes, *_: object) -> bool:
            self.taken.append(data)
            return True

        def take_events(self) -> list[object]:
            return []

        take_transmits = take_events

        def next_timer(self) -> None:
            return None

    engine = Engine()
    allow = AllowList([parse_network("198.18.0.0/24"), parse_network("::/0")])

    async def made() -> Runtime:
        return Runtime(engine, None, None, print, allow=allow)  # type: ignore[arg-type]

    # Before Python 3.10, parts of it belong to the loop in which they were made.
    runtime = asyncio.run(made())
    for ip, admitted in (("198.18.0.9", True), ("198.18.1.9", False), ("fd00::1", True), ("10.0.0.1", False)):
        assert runtime._receive(ip.encode(), Address(ip, 8000)) is admitted
    assert engine.taken == [b"198.18.0.9", b"fd00::1"]
    assert runtime.counters["rx_not_allowed"] == 2
