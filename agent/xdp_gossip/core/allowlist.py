# SPDX-License-Identifier: MIT
"""The networks that may send to this node, looked up by a packet's source address.

The kernel programs use the same list (map ``allow`` of ``bpf/dataplane.c``): XDP and TC come before netfilter, so a
host's firewall cannot filter for them.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable
from typing import Union

from .shown import cut, shown

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: Most networks of a list; the map has room for as many.
MOST = 256
_MAPPED = bytes(10) + b"\xff\xff"


def parse_network(text: object) -> Network:
    """A network such as ``10.0.0.0/8``, ``2001:db8::/32``, or one address. Raises ``ValueError``, also for no text."""
    if not isinstance(text, str):
        raise ValueError(f"expected a network such as 10.0.0.0/8 or 2001:db8::/32, got {shown(text)}")
    try:
        network = ipaddress.ip_network(text)
        if "%" in text:
            raise ValueError("a zone is of an interface")
    except ValueError as error:
        got = f"{shown(text)}: {cut(str(error))}"
        raise ValueError(f"expected a network such as 10.0.0.0/8 or 2001:db8::/32, got {got}") from None
    if network.version == 6 and network.network_address.packed.startswith(_MAPPED):
        raise ValueError(f"expected the network of IPv4 itself, got the IPv4-mapped {shown(text)}")
    return network


class AllowList:
    """Networks that packets are taken from; none: all are."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        given = tuple(networks)
        #: Without those that lie within another.
        self.networks: tuple[Network, ...] = (
            *ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv4Network)),
            *ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv6Network)),
        )
        # In order, and none overlaps another: whoever is admitted lies in the last one that begins before.
        self._first: dict[int, list[int]] = {4: [], 6: []}
        self._last: dict[int, list[int]] = {4: [], 6: []}
        for network in self.networks:
            self._first[network.version].append(int(network.network_address))
            self._last[network.version].append(int(network.broadcast_address))

    def __bool__(self) -> bool:
        """Whether anybody is kept out."""
        return bool(self.networks)

    def admits(self, ip: str) -> bool:
        """Whether packets from ``ip``, as text, are taken. Asked before anything else: a long list costs no more."""
        if not self.networks:
            return True
        address = ipaddress.ip_address(ip)
        at = bisect.bisect_right(self._first[address.version], int(address)) - 1
        return at >= 0 and int(address) <= self._last[address.version][at]

    def entries(self) -> dict[tuple[int, bytes], bool]:
        """For a table of longest prefixes: bits of the prefix and address (16 bytes) -> whether it is admitted.

        IPv4 stands there as IPv4-mapped, and so lies within a network such as ::/0; an entry of its own says that this
        one is not meant for it.
        """
        if not self.networks:
            return {}
        found = {(96, _MAPPED + bytes(4)): False}
        for network in self.networks:
            packed = network.network_address.packed
            if isinstance(network, ipaddress.IPv6Network):
                found[network.prefixlen, packed] = True
            else:
                found[96 + network.prefixlen, _MAPPED + packed] = True
        return found
