# SPDX-License-Identifier: MIT
"""The list of networks from which this node accepts packets.

The source address of a packet must lie in one of the networks. The kernel programs use the same list (map ``allow`` of
``bpf/dataplane.c``). XDP and TC run before netfilter, so the host's firewall rules do not apply to packets that these
programs handle.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable
from typing import Union

from .shown import cut, shown

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: Maximum number of networks in a list, which is also the size of the BPF map ``allow``.
MOST = 256
_MAPPED = bytes(10) + b"\xff\xff"


def parse_network(text: object) -> Network:
    """Parse a network such as ``10.0.0.0/8`` or ``2001:db8::/32``, or a single address.

    Raises ``ValueError`` for any other text, and for a value that is no text.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected a network such as 10.0.0.0/8 or 2001:db8::/32, got {shown(text)}")
    try:
        network = ipaddress.ip_network(text)
        if "%" in text:
            raise ValueError("a network cannot have a zone")
    except ValueError as error:
        got = f"{shown(text)}: {cut(str(error))}"
        raise ValueError(f"expected a network such as 10.0.0.0/8 or 2001:db8::/32, got {got}") from None
    if network.version == 6 and network.network_address.packed.startswith(_MAPPED):
        raise ValueError(f"expected the IPv4 form of the network, got the IPv4-mapped {shown(text)}")
    return network


class AllowList:
    """The networks from which this node accepts packets. An empty list accepts packets from every address."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        given = tuple(networks)
        #: The networks of the list. If a network lies within another network of the list, only the larger network is
        #: kept.
        self.networks: tuple[Network, ...] = (
            *ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv4Network)),
            *ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv6Network)),
        )
        # For each IP version: the first addresses of all networks, and the last addresses of all networks, both in
        # ascending order. The networks do not overlap, so only the last network that begins at or before an address can
        # contain that address.
        self._first: dict[int, list[int]] = {4: [], 6: []}
        self._last: dict[int, list[int]] = {4: [], 6: []}
        for network in self.networks:
            self._first[network.version].append(int(network.network_address))
            self._last[network.version].append(int(network.broadcast_address))

    def __bool__(self) -> bool:
        """Whether the list contains at least one network, so that it excludes all addresses outside of its networks."""
        return bool(self.networks)

    def admits(self, ip: str) -> bool:
        """Whether this node accepts packets from the address ``ip`` (text).

        This method checks every packet before all other checks, so it must stay cheap.
        """
        if not self.networks:
            return True
        address = ipaddress.ip_address(ip)
        at = bisect.bisect_right(self._first[address.version], int(address)) - 1
        return at >= 0 and int(address) <= self._last[address.version][at]

    def entries(self) -> dict[tuple[int, bytes], bool]:
        """Return the entries of a table for longest-prefix matching.

        An entry maps (prefix length in bits, address of 16 bytes) to whether this node accepts packets from this
        network. The table stores IPv4 addresses as IPv4-mapped IPv6 addresses, so IPv4 packets would match an IPv6
        network such as ::/0. The entry for ::ffff:0:0/96 prevents an IPv4 address from matching an IPv6 network.
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
